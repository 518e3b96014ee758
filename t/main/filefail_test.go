package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/p9srv"
	"wcfs/t/served"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// readByte reads a byte of a mapping, or tells that it is SIGBUS.
func readByte(p []byte) (err error) {
	var b [1]byte
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	copy(b[:], p)
	runtime.KeepAlive(&b)
	return nil
}

// A bigfile that is deleted, or becomes another one, fails alone, over both fronts: what is open gives EIO,
// mappings SIGBUS, watches a line on their link; a look-up finds what is there now, and others go on.
func TestFileFailsAlone(t *testing.T) {
	for name, change := range map[string]struct {
		tx    func(*zgen.Tx, zodb.Oid)
		again bool
	}{
		"deleted":    {func(tx *zgen.Tx, oid zodb.Oid) { tx.DeleteFile(oid) }, false},
		"block size": {func(tx *zgen.Tx, oid zodb.Oid) { tx.GrowBlksize(oid, 1<<20) }, true},
		"table":      {func(tx *zgen.Tx, oid zodb.Oid) { tx.ResetFile(oid, 1<<20) }, true},
		"class":      {func(tx *zgen.Tx, oid zodb.Oid) { tx.Object(oid, "x") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			path, mnt, sock := filepath.Join(t.TempDir(), "Data.fs"), t.TempDir(), filepath.Join(t.TempDir(), "s")
			w, err := fswriter.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			db, err := fixture.Make(w)
			if err != nil {
				t.Fatal(err)
			}
			oid, other, at := db.Files(db.Head())[0], db.Files(db.Head())[1], db.Head()
			p := serve(t, mnt, "serve", "--mount", mnt, "--9p", "unix:"+sock, "file://"+path)
			x := openBoth(t, mnt, sock, oid)
			watch := x.watch(t, mnt, oid, at)

			tx := db.Begin()
			change.tx(tx, oid)
			tid, err := tx.Commit()
			if err != nil {
				t.Fatal(err)
			}
			served.Eventually(t, "head", func() bool {
				text, err := os.ReadFile(filepath.Join(mnt, "head/at"))
				return err == nil && string(text) == tid.String()
			})
			x.failed(t)
			line := make([]byte, 400)
			n, err := watch.Read(line)
			if err != nil || !strings.HasPrefix(string(line[:n]), fmt.Sprintf("0 error: watch f<%s> @%s ended: ", oid, at)) {
				t.Errorf("the link says %q, %v", line[:n], err)
			}
			x.lookedUp(t, mnt, sock, oid, change.again)
			if text, err := os.ReadFile(filepath.Join(mnt, ".wcfs/blksize", oid.String())); change.again && (err != nil || string(text) != "1048576") {
				t.Errorf(".wcfs/blksize: %q, %v", text, err)
			}
			for _, name := range []string{"head/bigfile/" + other.String(), "@" + at.String() + "/bigfile/" + oid.String()} {
				if _, err := os.ReadFile(filepath.Join(mnt, name)); err != nil {
					t.Error(err)
				}
				mustRun(t, "cat", "unix:"+sock, name)
			}
			if log := p.Log.String(); strings.Contains(log, "EIO mode") || !strings.Contains(log, oid.String()) {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

// open is a bigfile as clients have it open.
type open struct {
	f    *os.File
	ino  uint64
	mem  []byte
	nine *p9srv.File
	path uint64 // of the qid
}

func inoOf(t *testing.T, st os.FileInfo) uint64 {
	t.Helper()
	return st.Sys().(*syscall.Stat_t).Ino
}

func openBoth(t *testing.T, mnt, sock string, oid zodb.Oid) *open {
	t.Helper()
	name := filepath.Join("head/bigfile", oid.String())
	x := &open{}
	var err error
	if x.f, err = os.Open(filepath.Join(mnt, name)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.f.Close() })
	st, err := x.f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	x.ino = inoOf(t, st)
	if x.mem, err = unix.Mmap(int(x.f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(x.mem) })
	if _, err := os.ReadFile(filepath.Join(mnt, ".wcfs/blksize", oid.String())); err != nil {
		t.Fatal(err)
	}
	c, err := p9srv.NewClient(t.Context(), "unix:"+sock, "", p9srv.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if x.nine, err = c.Open(name, false); err != nil {
		t.Fatal(err)
	}
	info, err := x.nine.Stat()
	if err != nil {
		t.Fatal(err)
	}
	x.path = info.Ino
	p := make([]byte, 10)
	_, err1 := x.f.ReadAt(p, 0)
	_, err2 := x.nine.ReadAt(p, 0)
	if err := errors.Join(err1, err2, readByte(x.mem)); err != nil {
		t.Fatal(err)
	}
	return x
}

// watch opens a watch link and has the file watched.
func (x *open) watch(t *testing.T, mnt string, oid zodb.Oid, at zodb.Tid) *os.File {
	t.Helper()
	watch, err := os.OpenFile(filepath.Join(mnt, "head/watch"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watch.Close() })
	fmt.Fprintf(watch, "1 watch %s @%s\n", oid, at)
	line := make([]byte, 100)
	if n, err := watch.Read(line); err != nil || string(line[:n]) != "1 ok\n" {
		t.Fatalf("watch: %q, %v", line[:n], err)
	}
	return watch
}

// failed sees that nothing can be had of the file any more.
func (x *open) failed(t *testing.T) {
	t.Helper()
	p := make([]byte, 10)
	if _, err := x.f.ReadAt(p, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v, want EIO", err)
	}
	if _, err := x.f.Stat(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fstat: %v, want EIO", err)
	}
	if err := readByte(x.mem); err == nil {
		t.Error("the mapping can be read")
	}
	if _, err := x.nine.ReadAt(p, 0); p9srv.ErrnoOf(err) != syscall.EIO {
		t.Errorf("read over 9P: %v, want EIO", err)
	}
}

// lookedUp sees that a look-up finds another file, or none.
func (x *open) lookedUp(t *testing.T, mnt, sock string, oid zodb.Oid, again bool) {
	t.Helper()
	name := "head/bigfile/" + oid.String()
	st, err := os.Stat(filepath.Join(mnt, name))
	c, err9 := p9srv.NewClient(t.Context(), "unix:"+sock, "", p9srv.DialOptions{})
	if err9 != nil {
		t.Fatal(err9)
	}
	defer c.Close()
	info, err9 := c.Stat(name)
	if !again {
		if !errors.Is(err, syscall.ENOENT) || p9srv.ErrnoOf(err9) != syscall.ENOENT {
			t.Errorf("look-up: %v, over 9P %v; want ENOENT", err, err9)
		}
		return
	}
	if err := errors.Join(err, err9); err != nil {
		t.Fatal(err)
	}
	if inoOf(t, st) == x.ino || info.Ino == x.path {
		t.Error("the file looked up is the old one")
	}
	f, err := os.ReadFile(filepath.Join(mnt, name))
	if err != nil || int64(len(f)) != st.Size() || info.Size != st.Size() {
		t.Errorf("looked up: %d bytes of %d, over 9P %d, %v", len(f), st.Size(), info.Size, err)
	}
}
