package probe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// toyFUSE is a file system with one file, "f". Page p of it begins with the byte value(p).
type toyFUSE struct {
	fs.Inode
	dir string
	srv *fuse.Server

	openFlags uint32                          // fixed
	onRead    func(context.Context, readCall) // called before a READ is answered; fixed
	onWrite   func()                          // called before a WRITE is answered; fixed

	mu    sync.Mutex
	size  int64               // guarded by mu
	mtime time.Time           // guarded by mu
	value func(pg int64) byte // guarded by mu
	short int                 // guarded by mu; READs are answered with this many bytes at most, 0: all
	calls []readCall          // guarded by mu
	end   int64               // guarded by mu; where the data ends, when that is before size; 0: at size
	file  *toyFile            // set by mount
}

type readCall struct {
	off  int64
	size int
	n    int // how many READs came before
}

// pages are those a READ asks for.
func (c readCall) has(pg int64) bool { return c.off <= pg*page && pg*page < c.off+int64(c.size) }

type toyFile struct {
	fs.Inode
	t *toyFUSE
}

var (
	_ fs.NodeOnAdder   = (*toyFUSE)(nil)
	_ fs.NodeOpener    = (*toyFile)(nil)
	_ fs.NodeReader    = (*toyFile)(nil)
	_ fs.NodeWriter    = (*toyFile)(nil)
	_ fs.NodeGetattrer = (*toyFile)(nil)
	_ fs.NodeFlusher   = (*toyFile)(nil)
)

// start mounts the file system until the probe ends and opens its file, which the kernel then knows.
func (t *toyFUSE) start(e *Env) (*os.File, error) {
	if err := t.mount(e, nil); err != nil {
		return nil, err
	}
	return t.open(unix.O_RDONLY)
}

// mount mounts the file system in e.Dir/m until the probe ends. That aborts the connection, whatever hangs
// in it: this process, which is the server, could not end with a request pending.
func (t *toyFUSE) mount(e *Env, options func(*fuse.MountOptions)) error {
	t.dir = filepath.Join(e.Dir, "m")
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return err
	}
	if t.value == nil {
		t.value = func(pg int64) byte { return byte(pg + 1) }
	}
	t.mtime = time.Unix(1e9, 0)
	var zero time.Duration
	o := fs.Options{AttrTimeout: &zero, EntryTimeout: &zero, NegativeTimeout: &zero}
	o.DirectMount, o.ExplicitDataCacheControl, o.FsName, o.Name = true, true, "probe", "probe"
	o.MaxWrite = 1 << 20
	o.MaxBackground = 64
	if options != nil {
		options(&o.MountOptions)
	}
	var err error
	if t.srv, err = fs.Mount(t.dir, t, &o); err != nil {
		return err
	}
	e.cleanup(func() { endMount(t.dir) })
	return nil
}

func (t *toyFUSE) path() string { return filepath.Join(t.dir, "f") }

func (t *toyFUSE) open(flags int) (*os.File, error) { return os.OpenFile(t.path(), flags, 0) }

func (t *toyFUSE) OnAdd(ctx context.Context) {
	t.file = &toyFile{t: t}
	t.AddChild("f", t.NewPersistentInode(ctx, t.file, fs.StableAttr{Mode: syscall.S_IFREG, Ino: 2}), false)
}

// set changes what the server says, in one step.
func (t *toyFUSE) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// grow changes the size, and has the kernel learn of it.
func (t *toyFUSE) grow(size int64) error {
	t.set(func() { t.size, t.mtime = size, t.mtime.Add(time.Hour) })
	if st, err := os.Stat(t.path()); err != nil || st.Size() != size {
		return fmt.Errorf("stat after growth: %v, %w", st, err)
	}
	return nil
}

// reads lists the READs so far.
func (t *toyFUSE) reads() []readCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]readCall(nil), t.calls...)
}

// content is what the file holds there.
func (t *toyFUSE) content(off int64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if (off+int64(i))%page == 0 {
			b[i] = t.value((off + int64(i)) / page)
		}
	}
	return b
}

func (f *toyFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, f.t.openFlags, 0
}

func (f *toyFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	out.Mode, out.Size, out.Ino = syscall.S_IFREG|0o644, uint64(f.t.size), 2
	out.SetTimes(nil, &f.t.mtime, &f.t.mtime)
	return 0
}

func (f *toyFile) Read(ctx context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	t := f.t
	t.mu.Lock()
	call := readCall{off, len(dest), len(t.calls)}
	t.calls = append(t.calls, call)
	// what is answered is settled now: a READ that is held tells the past
	n := min(int64(len(dest)), max(0, t.size-off))
	b := t.content(off, int(n))
	if t.short > 0 {
		b = b[:min(len(b), t.short)]
	}
	if t.end > 0 {
		b = b[:min(int64(len(b)), max(0, t.end-off))]
	}
	t.mu.Unlock()
	if t.onRead != nil {
		t.onRead(ctx, call)
		if ctx.Err() != nil {
			return nil, syscall.EINTR
		}
	}
	return fuse.ReadResultData(b), 0
}

func (f *toyFile) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	if f.t.onWrite != nil {
		f.t.onWrite()
	}
	return uint32(len(data)), 0
}

func (f *toyFile) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }
