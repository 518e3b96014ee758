// Package dbisolation checks isolation over a database that other processes write to: a Python process commits
// blocks whose every byte tells of its revision, clients with views of their own on a mount of wcfs move
// along, and each byte that they read is compared with what its revision must hold.
//
// It owns the writer's process and its clients. It does not own the database, the mount, or what is done to
// both meanwhile. The writer's report of its commits alone decides whether a revision is right.
package dbisolation

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	rel "wcfs/t/relstorage"
	"wcfs/zcore/zodb"
)

const (
	blkSize  = 16384
	blocks   = 16
	patience = time.Minute
)

// revision is the counter that fills each block; 0 is a hole.
type revision [blocks]int

// Writer is a running bigfile.py stamp, and what it has committed.
type Writer struct {
	oid    zodb.Oid      // of the file
	in     io.Writer     // a line pauses, another resumes
	paused chan struct{} // one for each time that it has paused
	ended  chan struct{} // closed when nothing more comes

	mu   sync.Mutex
	tids int                   // guarded by mu; commits
	last zodb.Tid              // guarded by mu; of them
	revs map[zodb.Tid]revision // guarded by mu
	err  error                 // guarded by mu; why no more come
}

// Start has Python write to a storage, named as for bigfile.py, and waits for its first commit. args are
// further ones of stamp. The writer ends when the test does.
func Start(t *testing.T, storage string, seed uint64, args ...string) *Writer {
	t.Helper()
	cmd, err := rel.BigFile(t.Context(), append([]string{"stamp", storage, fmt.Sprint(seed)}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the writer ended: %v", cmd.Wait())
	}
	w := &Writer{in: in, paused: make(chan struct{}, 1), ended: make(chan struct{}), revs: map[zodb.Tid]revision{}}
	if w.oid, err = zodb.ParseOid(lines.Text()); err != nil {
		t.Error(err)
	}
	go w.follow(lines)
	t.Cleanup(func() {
		in.Close()
		<-w.ended
		cmd.Wait()
	})
	return w
}

// follow reads what the writer prints.
func (w *Writer) follow(lines *bufio.Scanner) {
	defer close(w.ended)
	var now revision
	for lines.Scan() {
		if lines.Text() == "paused" {
			w.paused <- struct{}{}
			continue
		}
		words := strings.Fields(lines.Text())
		tid, err := zodb.ParseTid(words[0])
		for _, word := range words[1:] {
			var blk, n int
			if _, serr := fmt.Sscanf(word, "%d=%d", &blk, &n); serr != nil {
				err = serr
			}
			now[blk] = n
		}
		w.mu.Lock()
		w.tids++
		w.last = tid
		w.revs[tid], w.err = now, errors.Join(w.err, err)
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, lines.Err(), io.EOF)
}

// Pause has the writer close the database, calls fn, and has it go on.
func (w *Writer) Pause(t *testing.T, fn func()) {
	t.Helper()
	fmt.Fprintln(w.in)
	select {
	case <-w.paused:
	case <-w.ended:
		t.Fatal("the writer has ended")
	case <-time.After(patience):
		t.Fatal("the writer does not pause")
	}
	fn()
	fmt.Fprintln(w.in)
}

// at waits until the writer told of tid, which a server may know first.
func (w *Writer) at(tid zodb.Tid) (revision, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		rev, ok := w.revs[tid]
		err := w.err
		w.mu.Unlock()
		if ok || err != nil {
			return rev, err
		}
	}
	return revision{}, fmt.Errorf("the writer does not tell of %s", tid)
}

// Last is the last commit that the writer has told of.
func (w *Writer) Last() zodb.Tid {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *Writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tids
}
