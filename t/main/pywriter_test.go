package main_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/zodb"
)

const (
	pyCommits = 200
	pyBlocks  = 4
	pyBlksize = 64 << 10
	pageSize  = 4096
)

// A Python process commits 200 times in a row while 8 readers look at head. Block data is the number of
// its commit, over and over, so each read tells which revision it is of. It must be one between head
// before the read and head after it, and one only in a block (through the page cache, of which a block is
// many pages: in a page).
func TestPythonWriter(t *testing.T) {
	for _, env := range []string{py.Py5, py.Py6} {
		t.Run(env, func(t *testing.T) { testPythonWriter(t, env) })
	}
}

func testPythonWriter(t *testing.T, env string) {
	path, mnt := filepath.Join(t.TempDir(), "Data.fs"), t.TempDir()
	cmd := py.Command(t, env, "../main/commit.py", path, strconv.Itoa(pyCommits), strconv.Itoa(pyBlocks), strconv.Itoa(pyBlksize))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the writer did not start")
	}
	oid := lines.Text()

	p := serve(t, mnt, "serve", "--debug", "--mount", mnt, "file://"+path)
	h := followHead(t, mnt)
	file := filepath.Join(mnt, "head/bigfile", oid)
	var done atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := readUntil(&done, &reads, h, mnt, file, i); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	fmt.Fprintln(in)
	if !lines.Scan() || lines.Text() != "end" {
		t.Fatal("the writer did not end well")
	}
	served.Eventually(t, "the last commit", func() bool { return h.count() == pyCommits+1 })
	done.Store(true)
	wg.Wait()
	t.Logf("%d reads", reads.Load())
	if reads.Load() < 8 {
		t.Error("hardly any read was made")
	}

	// every revision is still there
	h.mu.Lock()
	tids := h.tids
	h.mu.Unlock()
	for n, tid := range tids {
		p := make([]byte, pyBlksize)
		if err := readBlock(filepath.Join(mnt, "@"+tid.String(), "bigfile", oid), n%pyBlocks, p, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := only(p); err != nil || got != n+1 {
			t.Fatalf("@%s is of commit %d, want %d: %v", tid, got, n+1, err)
		}
	}
	p.End()
}

// heads is what zhead says: which transaction is the n-th commit.
type heads struct {
	mu   sync.Mutex
	tids []zodb.Tid // guard: mu; [n-1] is the n-th commit
}

// followHead knows the first commit from head/at and the others from zhead.
func followHead(t *testing.T, mnt string) *heads {
	t.Helper()
	z, err := os.Open(filepath.Join(mnt, ".wcfs/debug/zhead"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	first, err := zodb.ParseTid(read(t, filepath.Join(mnt, "head/at")))
	if err != nil {
		t.Fatal(err)
	}
	h := &heads{tids: []zodb.Tid{first}}
	go func() {
		for scan := bufio.NewScanner(z); scan.Scan(); {
			tid, err := zodb.ParseTid(scan.Text())
			if err != nil {
				return // count stays behind, which the test notices
			}
			h.mu.Lock()
			h.tids = append(h.tids, tid)
			h.mu.Unlock()
		}
	}()
	return h
}

func (h *heads) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tids)
}

// number tells which commit tid is; it waits until zhead has told.
func (h *heads) number(tid zodb.Tid) (int, error) {
	for deadline := time.Now().Add(served.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		for i := len(h.tids) - 1; i >= 0; i-- {
			if h.tids[i] == tid {
				h.mu.Unlock()
				return i + 1, nil
			}
		}
		h.mu.Unlock()
	}
	return 0, fmt.Errorf("zhead does not name %s", tid)
}

// readUntil reads and checks until done. Even readers go past the page cache.
func readUntil(done *atomic.Bool, reads *atomic.Int64, h *heads, mnt, file string, i int) error {
	direct := 0
	unit := pageSize // what is of one revision
	if i%2 == 0 {
		direct, unit = syscall.O_DIRECT, pyBlksize
	}
	at, err := os.Open(filepath.Join(mnt, "head/at"))
	if err != nil {
		return err
	}
	defer at.Close()
	p := aligned(pyBlksize)
	for n := 0; !done.Load(); n++ {
		before, err := headAt(at)
		if err != nil {
			return err
		}
		if err := readBlock(file, (n+i)%pyBlocks, p, direct); err != nil {
			return err
		}
		reads.Add(1)
		low, err := h.number(before)
		if err != nil {
			return err
		}
		for off := 0; off < len(p); off += unit {
			got, err := only(p[off : off+unit])
			if err != nil {
				return fmt.Errorf("at %d: %w", off, err)
			}
			if got < low {
				return fmt.Errorf("at %d: stale: data of commit %d, head was %d before the read", off, got, low)
			}
			// what is in head is announced in a moment, if it is not yet
			deadline := time.Now().Add(served.Patience)
			for high := 0; high < got; time.Sleep(100 * time.Microsecond) {
				after, err := headAt(at)
				if err != nil {
					return err
				}
				if high, err = h.number(after); err != nil {
					return err
				}
				if high < got && time.Now().After(deadline) {
					return fmt.Errorf("at %d: data of commit %d, head is %d", off, got, high)
				}
			}
		}
	}
	return nil
}

func headAt(f *os.File) (zodb.Tid, error) {
	var text [16]byte
	if n, err := f.ReadAt(text[:], 0); n != 16 {
		return 0, fmt.Errorf("head/at: %d bytes: %w", n, err)
	}
	return zodb.ParseTid(string(text[:]))
}

func readBlock(file string, blk int, p []byte, flags int) error {
	f, err := os.OpenFile(file, os.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(p, int64(blk)*pyBlksize); err != nil && err != io.EOF {
		return fmt.Errorf("block %d: %w", blk, err)
	}
	return nil
}

// only returns the one number that p is filled with.
func only(p []byte) (int, error) {
	first := binary.LittleEndian.Uint64(p)
	for i := 8; i < len(p); i += 8 {
		if n := binary.LittleEndian.Uint64(p[i:]); n != first {
			return 0, fmt.Errorf("a mix: %d, and %d at %d", first, n, i)
		}
	}
	return int(first), nil
}

// aligned is memory that O_DIRECT takes.
func aligned(n int) []byte {
	p := make([]byte, n+pageSize)
	skip := (pageSize - int(uintptr(unsafe.Pointer(&p[0]))%pageSize)) % pageSize
	return p[skip : skip+n]
}

func TestOnly(t *testing.T) {
	if _, err := only(append(make([]byte, 64), 1, 0, 0, 0, 0, 0, 0, 0)); err == nil || !strings.Contains(err.Error(), "mix") {
		t.Errorf("a mix is not noticed: %v", err)
	}
}
