package fusesrv

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// file is an open file or directory.
type file struct {
	in     *inode
	kind   tree.Kind
	handle tree.Handle // nil for a directory
	dir    *dirHandle  // nil for a file
}

func (f *file) close() {
	if f.handle != nil {
		f.handle.Close()
	}
}

// files is the table of open files. Lock order: mu is a leaf.
type files struct {
	now  atomic.Int64 // open files and directories
	ever atomic.Bool  // there was one

	mu   sync.RWMutex
	byFh map[uint64]*file // guard: mu
	last uint64           // guard: mu
	idle time.Time        // guard: mu; since when nothing is open
}

func newFiles() *files { return &files{byFh: make(map[uint64]*file)} }

func (t *files) add(f *file) (fh uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.byFh[t.last] = f
	t.now.Add(1)
	t.ever.Store(true)
	return t.last
}

func (t *files) get(fh uint64) *file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byFh[fh]
}

func (t *files) take(fh uint64) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.byFh[fh]
	if f == nil {
		return nil
	}
	delete(t.byFh, fh)
	if t.now.Add(-1) == 0 {
		t.idle = time.Now()
	}
	return f
}

// idleSince tells since when nothing is open; false when something is or nothing ever was.
func (t *files) idleSince() (time.Time, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.idle, len(t.byFh) == 0 && t.last > 0
}

func (t *files) drain() {
	t.mu.Lock()
	rest := t.byFh
	t.byFh = make(map[uint64]*file)
	t.now.Store(0)
	t.idle = time.Now()
	t.mu.Unlock()
	for _, f := range rest {
		f.close()
	}
}

// openFlags tells the kernel how to treat an open file.
func openFlags(k tree.Kind) uint32 {
	switch k {
	case tree.Volatile, tree.Padded: // who looks at head/at again and again waits at each close too
		return fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	case tree.Stream:
		// Only with both may a write go on while a read waits on the same descriptor.
		return fuse.FOPEN_DIRECT_IO | fuse.FOPEN_STREAM
	default:
		return fuse.FOPEN_KEEP_CACHE
	}
}

func (fs *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	ino := fs.inodes.get(in.NodeId)
	r, st := fs.beginAt(ino, cancel, &in.InHeader, onAnySoon)
	if !st.Ok() {
		return st
	}
	defer r.finish()
	if ino == nil {
		return fuse.Status(syscall.ESTALE)
	}
	who := tree.Caller{Domain: fs.domain}
	kind := ino.node.Kind()
	write := in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if kind == tree.Stream && write {
		var err error
		if who.Process, err = fs.watcher(r, ino, in.Caller.Pid); err != nil {
			return r.status(err)
		}
	}
	h, err := ino.node.Open(r, who, write)
	if err == nil && fs.gate.closed() && !r.always {
		h.Close()
		err = tree.ErrNotConn
	}
	if err != nil {
		if who.Process != nil {
			who.Process.Close()
		}
		return r.status(err)
	}
	h = fs.qemu.bound(h, kind, in.Caller.Pid)
	out.Fh = fs.files.add(&file{in: ino, kind: kind, handle: h})
	out.OpenFlags = openFlags(kind)
	fs.inodes.use(ino, +1)
	return fuse.OK
}

// watcher names the process that opens a stream, if it is one that can be written to: a watch link.
func (fs *fileSystem) watcher(r *request, ino *inode, thread uint32) (zcore.Process, error) {
	attr, err := ino.node.Attr(r)
	if err != nil || attr.Perm&0o222 == 0 {
		return nil, err
	}
	p, err := openProcess(thread)
	if err != nil {
		fs.log.Warn("open of a watch link refused: its process cannot be seen from here, so others could not be protected from it", "thread", thread, "err", err)
		return nil, fmt.Errorf("open watch link: %w", tree.ErrPermission)
	}
	if err := p.Signal(syscall.Signal(0)); err != nil { // a server that is not root, a process of another user
		fs.log.Warn("open of a watch link refused: this server may not end that process, so others could not be protected from it", "pid", p.pid, "err", err)
		p.Close()
		return nil, fmt.Errorf("open watch link: %w", tree.ErrPermission)
	}
	return p, nil
}

func (fs *fileSystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { fs.release(in.Fh) }

func (fs *fileSystem) release(fh uint64) {
	f := fs.files.take(fh)
	if f == nil {
		return
	}
	f.close()
	fs.inodes.use(f.in, -1)
}

// Flush does nothing, but must be there: else close(2) would not notice that the server is gone.
func (fs *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	if fs.gate.closed() {
		return fuse.Status(enotconn)
	}
	return fuse.OK
}

func (fs *fileSystem) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	if fs.gate.closed() {
		return fuse.Status(enotconn)
	}
	return fuse.OK
}

func (fs *fileSystem) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fs.Fsync(c, in)
}

// readPolicy says how a READ takes an interrupt.
func readPolicy(k tree.Kind) policy {
	switch k {
	case tree.Stream, tree.Padded:
		return onAny
	case tree.HeadFile, tree.RevFile, tree.BaseFile:
		return onKill
	default:
		return onAnySoon
	}
}

func (fs *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f := fs.files.get(in.Fh)
	if f == nil || f.handle == nil {
		return nil, fuse.EBADF
	}
	r, st := fs.beginAt(f.in, cancel, &in.InHeader, readPolicy(f.kind))
	if !st.Ok() {
		return nil, st
	}
	defer r.finish()
	data, err := f.handle.Read(r, int(in.Size), int64(in.Offset))
	var rep *reply
	if err == nil {
		rep, err = newReply(data, buf)
		if err != nil {
			fs.log.Error("read failed", "inode", f.in.id, "off", in.Offset, "err", err)
			if data.Failed != nil {
				data.Failed()
			}
		}
	}
	if st := r.status(err); !st.Ok() {
		if data.Done != nil {
			data.Done()
		}
		return nil, st
	}
	if rep.size == 0 {
		rep.Done() // go-fuse does not call it for an empty reply
	}
	return rep, fuse.OK
}

func (fs *fileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	f := fs.files.get(in.Fh)
	if f == nil || f.handle == nil {
		return 0, fuse.EBADF
	}
	r, st := fs.begin(cancel, &in.InHeader, onAny)
	if !st.Ok() {
		return 0, st
	}
	defer r.finish()
	n, err := f.handle.Write(r, p, int64(in.Offset))
	if n > 0 && !fs.gate.closed() {
		return uint32(n), fuse.OK // a short write: the caller meets the error when it goes on
	}
	return 0, r.status(err)
}

// maxVecs is how many pieces one reply may have: writev takes 1024, the headers two of them.
const maxVecs = 1000

// reply is the answer to a READ: pieces of memory that are written without being joined.
type reply struct {
	vecs [][]byte
	size int
	done func()
}

var _ fuse.ReadResult = (*reply)(nil)

// newReply takes data; pieces of files are read into buf, which is as long as the READ asks.
func newReply(data zcore.Data, buf []byte) (*reply, error) {
	rep := &reply{done: data.Done}
	if n := data.Size(); n > len(buf) {
		return nil, fmt.Errorf("%w: %d bytes answered where %d were asked for", tree.ErrIO, n, len(buf))
	}
	for _, p := range data.Pieces {
		vec := p.Mem
		if p.File != nil {
			vec, buf = buf[:p.Len:p.Len], buf[p.Len:]
			if n, err := p.File.ReadAt(vec, p.Off); n < len(vec) {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return nil, fmt.Errorf("%w: %w", tree.ErrIO, err)
			}
			if err := p.Check(); err != nil {
				return nil, fmt.Errorf("%w: %w", tree.ErrIO, err)
			}
		}
		if len(vec) > 0 {
			rep.vecs = append(rep.vecs, vec)
			rep.size += len(vec)
		}
	}
	if len(rep.vecs) > maxVecs {
		rep.join()
	}
	return rep, nil
}

func (r *reply) join() {
	all := make([]byte, 0, r.size)
	for _, v := range r.vecs {
		all = append(all, v...)
	}
	r.vecs = [][]byte{all}
}

func (r *reply) Size() int { return r.size }

// Slices is found by go-fuse, which then writes the reply by writev without a copy.
func (r *reply) Slices() ([][]byte, fuse.Status) { return r.vecs, fuse.OK }

func (r *reply) Bytes(buf []byte) ([]byte, fuse.Status) {
	buf = buf[:0]
	for _, v := range r.vecs {
		buf = append(buf, v...)
	}
	return buf, fuse.OK
}

func (r *reply) Done() {
	if r.done != nil {
		r.done()
		r.done = nil
	}
}
