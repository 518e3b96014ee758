package fusesrv

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

const page = 4096

// Cached returns which pages of a file are in the page cache, by mincore(2) of a mapping that is never
// touched, as a letter for each block: "#" all of it, "." nothing, "?" some.
func Cached(t *testing.T, path string, blocks, blksize int) string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, blocks*blksize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	vec := make([]byte, blocks*blksize/page)
	if err := mincore(mem, vec); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for ; len(vec) > 0; vec = vec[blksize/page:] {
		in := 0
		for _, v := range vec[:blksize/page] {
			in += int(v & 1)
		}
		switch in {
		case 0:
			b.WriteByte('.')
		case blksize / page:
			b.WriteByte('#')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

func wantCached(t *testing.T, path, want string) {
	t.Helper()
	if got := Cached(t, path, len(want), fakeBlk); got != want {
		t.Errorf("%s: cached %q, want %q", path, got, want)
	}
}

// know has the kernel know a file.
func know(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

// readAt reads without the kernel reading ahead.
func readAt(t *testing.T, path string, off int64, n int) []byte {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, n)
	got, err := unix.Pread(fd, buf, off)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:got]
}

func TestUploadInvalidateRetrieve(t *testing.T) {
	f := mountFake(t, nil)
	one, pc := f.path(fileOne), zcore.PageCache(f.srv)
	know(t, one)
	block := fakeBytes(1, 0, 2*fakeBlk, fakeBlk)
	if err := pc.Upload(1, 2*fakeBlk, block); err != nil {
		t.Fatal(err)
	}
	wantCached(t, one, "..#...")
	if got := readAt(t, one, 2*fakeBlk, fakeBlk); !bytes.Equal(got, block) || f.tree.reads.Load() != 0 {
		t.Errorf("read of an uploaded block: right bytes %v, %d READs", bytes.Equal(got, block), f.tree.reads.Load())
	}
	readAt(t, one, fakeBlk, fakeBlk)
	readAt(t, one, 3*fakeBlk, fakeBlk)
	wantCached(t, one, ".###..")

	buf := make([]byte, 4*fakeBlk)
	n, err := pc.Retrieve(1, fakeBlk, buf)
	if err != nil || n != 3*fakeBlk || !bytes.Equal(buf[:n], fakeBytes(1, 0, fakeBlk, n)) {
		t.Errorf("retrieve: %d bytes, %v", n, err)
	}
	if n, err := pc.Retrieve(1, 0, buf); n != 0 || err != nil {
		t.Errorf("retrieve from a page that is not cached: %d, %v", n, err)
	}
	if err := pc.Invalidate(1, 2*fakeBlk, fakeBlk); err != nil {
		t.Fatal(err)
	}
	wantCached(t, one, ".#.#..")
	if err := pc.Invalidate(1, 0, 0); err != nil {
		t.Fatal(err)
	}
	wantCached(t, one, ".#.#..")
}

func TestCacheSurvives(t *testing.T) {
	f := mountFake(t, nil)
	one := f.path(fileOne)
	readAt(t, one, 0, 2*fakeBlk) // opens and closes
	wantCached(t, one, "##..")
	before := f.tree.reads.Load()
	f.tree.set(func() { f.tree.sizes[1] += fakeBlk })
	if err := f.srv.InvalidateAttr(1); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(one); err != nil || fi.Size() != 65*fakeBlk {
		t.Fatalf("%v, %v", fi, err)
	}
	wantCached(t, one, "##..")
	readAt(t, one, 0, 2*fakeBlk)
	if n := f.tree.reads.Load(); n != before {
		t.Errorf("%d READs of what was cached", n-before)
	}
}

func TestStoreRev(t *testing.T) {
	for _, standalone := range []bool{false, true} {
		testStoreRev(t, standalone)
	}
}

func testStoreRev(t *testing.T, standalone bool) {
	f := mountFake(t, func(_ *fakeTree, o *Options) { o.Standalone = standalone })
	if standalone {
		if err := refusePoll(f.dir); err != nil { // for this test, which is no other process
			t.Fatal(err)
		}
	}
	old := fakeBytes(1, 77, 0, fakeBlk)
	if err := f.srv.StoreRev(5, 1, fakeBlk, old); err != nil {
		t.Fatal(err)
	}
	path := f.path("@0000000000000005/bigfile/0000000000000001")
	wantCached(t, path, ".#..")
	if got := readAt(t, path, fakeBlk, fakeBlk); !bytes.Equal(got, old) || f.tree.reads.Load() != 0 {
		t.Errorf("right bytes %v, %d READs", bytes.Equal(got, old), f.tree.reads.Load())
	}
	pid := f.srv.looker.pid()
	if !standalone {
		if pid != 0 {
			t.Error("a helper where none is needed")
		}
		return
	}
	syscall.Kill(pid, syscall.SIGKILL) // it is replaced
	until(t, "another one works", func() bool {
		return f.srv.StoreRev(6, 1, 0, old) == nil && f.srv.looker.pid() != pid
	})
}

func (l *looker) pid() int {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.child == nil {
		return 0
	}
	return l.child.cmd.Process.Pid
}

func TestUnknownFile(t *testing.T) {
	f := mountFake(t, nil)
	buf := make([]byte, page)
	n, err := f.srv.Retrieve(2, 0, buf)
	err = errors.Join(err, f.srv.Upload(2, 0, buf), f.srv.Invalidate(2, 0, page), f.srv.InvalidateAttr(2))
	if n != 0 || err != nil {
		t.Errorf("file the kernel does not know: %d, %v", n, err)
	}
	// one that it has forgotten a moment ago, before FORGET came here
	know(t, f.path(fileTwo))
	f.srv.fs.inodes.mu.Lock()
	f.srv.fs.inodes.heads[2] = 1 << 50
	f.srv.fs.inodes.mu.Unlock()
	n, err = f.srv.Retrieve(2, 0, buf)
	err = errors.Join(err, f.srv.Upload(2, 0, buf), f.srv.Invalidate(2, 0, page), f.srv.InvalidateAttr(2))
	if n != 0 || err != nil {
		t.Errorf("file the kernel has forgotten: %d, %v", n, err)
	}
}

// A page no longer wanted must be droppable: nothing of ours holds it.
func TestDropByClient(t *testing.T) {
	f := mountFake(t, nil)
	one := f.path(fileOne)
	readAt(t, one, 0, 3*fakeBlk)
	fd, err := unix.Open(one, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Fadvise(fd, fakeBlk, fakeBlk, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	wantCached(t, one, "#.#.")
}

// Invalidation waits for a page under READ, and serving the rest does not.
func TestInvalidateWaitsForRead(t *testing.T) {
	f := mountFake(t, nil)
	b := newBlocker()
	b.reads(f)
	c := start(t, "fault", f.path(fileOne))
	c.expect("mapped")
	c.say("touch")
	<-b.entered
	var over atomic.Bool
	end := make(chan error)
	go func() {
		err := f.srv.Invalidate(1, 0, fakeBlk)
		over.Store(true)
		end <- err
	}()
	know(t, f.path(fileTwo))
	if over.Load() {
		t.Error("invalidated a page under READ")
	}
	close(b.letGo)
	if err := <-end; err != nil {
		t.Error(err)
	}
	c.expect("byte 17")
}

// Data.Done is called once for each READ, whatever becomes of it.
func TestDone(t *testing.T) {
	f := mountFake(t, nil)
	one := f.path(fileOne)
	readAt(t, one, 0, fakeBlk)
	for what, hook := range map[string]func(){
		"error":   func() { f.tree.onRead = failRead },
		"too big": func() { f.tree.pieces = tooMuch },
	} {
		f.tree.set(hook)
		if _, err := os.ReadFile(f.path(fileTwo)); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", what, err)
		}
		f.tree.set(func() { f.tree.onRead, f.tree.pieces = nil, nil })
	}
	// an empty answer: the file shrinks without the kernel being told
	before := f.tree.reads.Load()
	fd := openFile(t, one, unix.O_RDONLY)
	defer unix.Close(fd)
	f.tree.set(func() { f.tree.sizes[1] = fakeBlk })
	if n, err := unix.Pread(fd, make([]byte, page), 8*fakeBlk); n != 0 || err != nil || f.tree.reads.Load() == before {
		t.Errorf("read past the end: %d, %v, %d READs", n, err, f.tree.reads.Load()-before)
	}
	if f.tree.reads.Load() == 0 {
		t.Fatal("nothing was read")
	}
	until(t, "Done was called for each READ", func() bool { return f.tree.dones.Load() >= f.tree.reads.Load() })
	if r, d := f.tree.reads.Load(), f.tree.dones.Load(); r != d {
		t.Errorf("%d READs, %d calls of Done", r, d)
	}
}

func TestPieces(t *testing.T) {
	f := mountFake(t, nil)
	back, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := back.Write(fakeBytes(1, 0, 0, 64*fakeBlk)); err != nil {
		t.Fatal(err)
	}
	for what, cut := range map[string]int{"few": 50_000, "more than writev takes": 64} {
		f.tree.set(func() {
			f.tree.pieces = func(oid zodb.Oid, gen byte, size int, off int64) (list []zcore.Piece) {
				for i := 0; size > 0; i++ {
					n := min(cut, size)
					if i%2 == 0 {
						list = append(list, zcore.Piece{Mem: fakeBytes(oid, gen, off, n)})
					} else {
						list = append(list, zcore.Piece{File: back, Off: off, Len: n}, zcore.Piece{})
					}
					off, size = off+int64(n), size-n
				}
				return list
			}
		})
		if err := f.srv.Invalidate(1, 0, 64*fakeBlk); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.path(fileOne))
		if err != nil || !bytes.Equal(got, fakeBytes(1, 0, 0, 64*fakeBlk)) {
			t.Errorf("%s pieces: wrong bytes, %v", what, err)
		}
	}
	runtime.KeepAlive(back)
}

func TestOpenFlags(t *testing.T) {
	const direct, keep, stream, noflush = 1, 2, 16, 32 // FOPEN_* of <linux/fuse.h>
	for kind, want := range map[tree.Kind]uint32{
		tree.Static: keep, tree.HeadFile: keep, tree.RevFile: keep, tree.BaseFile: keep,
		tree.Volatile: direct | noflush, tree.Padded: direct | noflush, tree.Stream: direct | stream,
	} {
		if got := openFlags(kind); got != want {
			t.Errorf("kind %d: flags %#x, want %#x", kind, got, want)
		}
	}
}
