package fusesrv_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/fusesrv"
	"wcfs/t/wait"
	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// world is a served database in memory.
type world struct {
	stor *memstorage.Store
	db   *zgen.DB
	core *zcore.Core
	dir  string
}

// serve fills a database and mounts it until the test ends.
func serve(t *testing.T, fill func(*memstorage.Store) (*zgen.DB, error)) *world {
	t.Helper()
	w := &world{stor: memstorage.New(), dir: t.TempDir()}
	var err error
	if w.db, err = fill(w.stor); err != nil {
		t.Fatal(err)
	}
	if w.core, err = zcore.New(t.Context(), w.stor, zcore.Options{PinTimeout: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	fs := tree.New(w.core, tree.Options{Debug: true})
	srv, err := fusesrv.Mount(t.Context(), fs.Root(), w.dir, fusesrv.Options{
		URL: w.core.URL(), Domain: w.core.Host(), Attach: w.core.SetPageCache, Access: fusesrv.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.core.Run(ctx) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
		defer cancel()
		if err := errors.Join(srv.Close(ctx), srv.Wait(ctx)); err != nil {
			t.Error(err)
			unix.Unmount(w.dir, unix.MNT_DETACH)
		}
		stop()
		<-ended
	})
	return w
}

// TestSuite runs the tree's suite over a mount of the real core.
func TestSuite(t *testing.T) {
	w := serve(t, func(stor *memstorage.Store) (*zgen.DB, error) { return fixture.Make(stor) })
	treetest.Run(t, &treetest.Env{
		FS:       treetest.Path{Dir: w.dir},
		Manifest: fixture.Manifest(w.db, w.core.URL(), "1.5", true),
	})
}

const blksize = 64 << 10

func block(seed byte) []byte { return bytes.Repeat([]byte{seed, seed ^ 0xff}, blksize/2) }

// TestCommit looks at the kernel's page cache around a commit of the real core.
func TestCommit(t *testing.T) {
	var file zodb.Oid
	var db *zgen.DB
	change := func(seed byte, blks ...zdata.Blk) zodb.Tid {
		tx := db.Begin()
		if file == 0 {
			file = tx.NewFile(blksize)
		}
		for _, b := range blks {
			tx.Write(file, b, block(seed), zgen.Blk0)
		}
		tid, err := tx.Commit()
		if err != nil {
			t.Fatal(err)
		}
		return tid
	}
	var t0 zodb.Tid
	w := serve(t, func(stor *memstorage.Store) (*zgen.DB, error) {
		db = zgen.New(stor, zgen.Options{})
		t0 = change(1, 0, 1, 2, 3, 4, 5)
		return db, nil
	})
	head := filepath.Join(w.dir, "head/bigfile", file.String())
	zhead := open(t, filepath.Join(w.dir, ".wcfs/debug/zhead"))
	f := open(t, head)
	if err := unix.Fadvise(f, 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	pread(t, f, 2*blksize, 4096) // of which the whole block is uploaded
	pread(t, f, 3*blksize, blksize)
	until(t, "both blocks are in", func() bool { return fusesrv.Cached(t, head, 6, blksize) == "..##.." })

	t1 := change(2, 2, 4, 6)
	line := make([]byte, 100)
	n, err := unix.Read(zhead, line)
	if err != nil || string(line[:n]) != t1.String()+"\n" {
		t.Fatalf("zhead: %q, %v", line[:max(n, 0)], err)
	}
	if fi, err := os.Stat(head); err != nil || fi.Size() != 7*blksize {
		t.Errorf("right after the commit: %+v, %v", fi, err)
	}
	if got := fusesrv.Cached(t, head, 7, blksize); got != "...#..." {
		t.Errorf("head: cached %q", got)
	}
	loads := w.stor.Loads()
	old := filepath.Join(w.dir, "@"+t0.String(), "bigfile", file.String())
	if got := fusesrv.Cached(t, old, 6, blksize); got != "..#..." {
		t.Errorf("old revision: cached %q", got)
	}
	o := open(t, old)
	if got := pread(t, o, 2*blksize, blksize); !bytes.Equal(got, block(1)) {
		t.Error("old revision: wrong bytes")
	}
	if n := w.stor.Loads() - loads; n > 8 { // of the look-up, not of blocks
		t.Errorf("old revision: %d loads", n)
	}
	if got := pread(t, f, 2*blksize, blksize); !bytes.Equal(got, block(2)) {
		t.Error("head: wrong bytes")
	}
}

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(path, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func pread(t *testing.T, fd int, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	got, err := unix.Pread(fd, p, off)
	if err != nil {
		t.Fatal(err)
	}
	return p[:got]
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(wait.Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// TestGrowthSeenByOpen: a mapping past the old end works once somebody has opened the file anew.
func TestGrowthSeenByOpen(t *testing.T) {
	var file zodb.Oid
	var db *zgen.DB
	w := serve(t, func(stor *memstorage.Store) (*zgen.DB, error) {
		db = zgen.New(stor, zgen.Options{})
		tx := db.Begin()
		file = tx.NewFile(blksize)
		tx.Write(file, 0, block(1), zgen.Blk0)
		_, err := tx.Commit()
		return db, err
	})
	head := filepath.Join(w.dir, "head/bigfile", file.String())
	f := open(t, head)
	mem, err := unix.Mmap(f, 0, 2*blksize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	tx := db.Begin()
	tx.Write(file, 1, block(2), zgen.Blk0)
	tid, err := tx.Commit()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the commit is announced", func() bool { return w.core.Head() == tid })
	open(t, head)
	got := make([]byte, 1)
	local := []unix.Iovec{{Base: &got[0], Len: 1}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&mem[blksize])), Len: 1}}
	if _, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0); err != nil || got[0] != 2 {
		t.Errorf("past the old end: %v, %v", got, err)
	}
}
