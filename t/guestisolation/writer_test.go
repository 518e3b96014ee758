package guestisolation

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

const (
	blksize = 16 << 10
	nfiles  = 3
	nblocks = 48 // a file grows up to so many
	pace    = 70 * time.Millisecond
)

// writer commits to a database, and tells of each commit in a log (see checker.c).
type writer struct {
	t    *testing.T
	dir  string // has the database and, in a folder of its own for guests, the log
	log  *os.File
	db   *zgen.DB
	rnd  *rand.Rand
	oids []zodb.Oid
	bad  zodb.Oid     // a file of two blocks that nobody writes
	end  [nfiles]int  // blocks of the file
	n    uint64       // commits; also of the goroutine that commits
	made atomic.Int64 // n, for others

	stop, done chan struct{} // done is nil when it commits only when told
	once       sync.Once
}

// startWriter makes the files, and commits to them until the test ends.
func startWriter(t *testing.T) *writer {
	t.Helper()
	w := newWriter(t)
	w.done = make(chan struct{})
	go w.run()
	t.Cleanup(w.finish)
	return w
}

// newWriter makes the files.
func newWriter(t *testing.T) *writer {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed of the writer: %d", seed)
	w := &writer{t: t, dir: t.TempDir(), rnd: rand.New(rand.NewPCG(seed, 1)), stop: make(chan struct{})}
	fw, err := fswriter.Create(w.path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fw.Close() })
	if err := os.Mkdir(w.logDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if w.log, err = os.Create(filepath.Join(w.logDir(), "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.log.Close() })
	w.db = zgen.New(fw, zgen.Options{LeafMax: 8, NodeMax: 4})
	w.commit(func(tx *zgen.Tx) {
		for range nfiles {
			w.oids = append(w.oids, tx.NewFile(blksize))
		}
		w.bad = tx.NewFile(blksize)
		for b := range 2 {
			tx.Write(w.bad, zdata.Blk(b), content(w.n, change{file: nfiles, blk: b}), zgen.Blk0)
		}
	}, initial())
	return w
}

func (w *writer) path() string   { return filepath.Join(w.dir, "Data.fs") }
func (w *writer) logDir() string { return filepath.Join(w.dir, "log") }

// change is of one block; it may become a hole.
type change struct {
	file, blk int
	hole      bool
}

func initial() (list []change) {
	for f := range nfiles {
		for b := range 6 {
			list = append(list, change{file: f, blk: b})
		}
	}
	return list
}

// random is a few blocks; now and then a file grows, or every block changes, which makes the base move.
func (w *writer) random() (list []change) {
	seen := map[[2]int]bool{}
	add := func(c change) {
		if !seen[[2]int{c.file, c.blk}] {
			seen[[2]int{c.file, c.blk}] = true
			list = append(list, c)
		}
	}
	if w.n%2 == 0 {
		for f := range nfiles {
			for b := range w.end[f] {
				add(change{file: f, blk: b})
			}
		}
	}
	for range 1 + w.rnd.IntN(4) {
		f := w.rnd.IntN(nfiles)
		b := w.rnd.IntN(w.end[f])
		add(change{f, b, b < w.end[f]-1 && w.rnd.IntN(20) == 0})
	}
	if f := w.rnd.IntN(nfiles); w.rnd.IntN(6) == 0 && w.end[f] < nblocks {
		add(change{file: f, blk: w.end[f]})
	}
	return list
}

// commit makes one commit of the changes, and tells of it.
func (w *writer) commit(before func(*zgen.Tx), list []change) zodb.Tid {
	w.n++
	w.made.Add(1)
	tx := w.db.Begin()
	if before != nil {
		before(tx)
	}
	var line bytes.Buffer
	for _, c := range list {
		f, blk := w.oids[c.file], zdata.Blk(c.blk)
		n := w.n
		if c.hole {
			n = 0
			tx.Punch(f, blk)
		} else {
			kind := zgen.Blk0
			if c.blk%2 == 1 {
				kind = zgen.Blk1
			}
			tx.Write(f, blk, content(w.n, c), kind)
		}
		w.end[c.file] = max(w.end[c.file], c.blk+1)
		fmt.Fprintf(&line, " %d:%d:%d", c.file, c.blk, n)
	}
	tid, err := tx.Commit()
	if err == nil {
		_, err = fmt.Fprintf(w.log, "%s%s\n", tid, line.Bytes())
	}
	if err != nil {
		w.t.Error(err)
	}
	return tid
}

func content(n uint64, c change) []byte {
	b := make([]byte, 0, blksize)
	for i := range uint64(blksize / 8) {
		b = binary.LittleEndian.AppendUint64(b, n<<40|uint64(c.file)<<36|uint64(c.blk)<<20|i)
	}
	return b
}

func (w *writer) run() {
	defer close(w.done)
	for tick := time.NewTicker(pace); ; {
		select {
		case <-w.stop:
			tick.Stop()
			return
		case <-tick.C:
			w.commit(nil, w.random())
		}
	}
}

// finish ends the commits.
func (w *writer) finish() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}
