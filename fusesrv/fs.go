package fusesrv

import (
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

const enotconn = syscall.ENOTCONN

// forGood is the timeout of what does not change: the kernel keeps it until it needs the memory.
const forGood = 24 * time.Hour

// maxName is the length of the longest name, as statfs tells it; the kernel hands on longer ones.
const maxName = 255

// fileSystem answers the kernel's requests.
type fileSystem struct {
	fuse.RawFileSystem // ENOSYS for what is not here

	domain *zcore.Domain
	log    *slog.Logger
	access Access
	dead   func() bool // the kernel will take no more answers

	inodes *inodes
	files  *files
	gate   gate
	qemu   qemuReads
}

var _ fuse.RawFileSystem = (*fileSystem)(nil)

func newFileSystem(root tree.Node, opts Options) *fileSystem {
	return &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		domain:        opts.Domain,
		log:           opts.Log,
		access:        opts.Access,
		inodes:        newInodes(root, opts.MaxIdleRevs),
		files:         newFiles(),
		gate:          gate{shut: make(chan struct{})},
	}
}

// stopAll ends the requests under way and lets none in.
func (fs *fileSystem) stopAll() { fs.gate.close() }

// closeAll closes what the kernel left open and forgets all inodes; nothing is being served any more.
func (fs *fileSystem) closeAll() {
	fs.files.drain()
	fs.inodes.drain()
}

func (fs *fileSystem) String() string { return "wcfs" }

func (fs *fileSystem) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent := fs.inodes.get(h.NodeId)
	r, st := fs.beginAt(parent, cancel, h, onAnySoon)
	if !st.Ok() {
		return st
	}
	defer r.finish()
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	if parent == nil {
		return fuse.Status(syscall.ESTALE)
	}
	node, err := parent.node.Lookup(r, name)
	if err != nil {
		return r.status(err)
	}
	attr, err := node.Attr(r)
	if err != nil {
		node.Release()
		return r.status(err)
	}
	fresh := &inode{node: node, id: node.ID()}
	if node.Kind() == tree.HeadFile {
		fresh.oid, err = zodb.ParseOid(name)
		fresh.isHead = err == nil
	}
	in := fs.inodes.enter(parent, name, fresh, node.Kind() == tree.Dir && attr.Rev != 0)
	out.NodeId = in.id
	out.SetEntryTimeout(forGood)
	if attr.Fleeting {
		out.SetEntryTimeout(0)
	}
	if fresh.isHead {
		if _, err := in.node.Attr(r); err != nil { // failed just now: by DropName it may not have been known yet
			out.SetEntryTimeout(0)
		}
	}
	out.SetAttrTimeout(attrTimeout(node.Kind(), attr))
	fs.fill(&out.Attr, in.node.Kind(), attr)
	return fuse.OK
}

func (fs *fileSystem) Forget(id, n uint64) { fs.inodes.forget(id, n) }

func (fs *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fs.getAttr(cancel, &in.InHeader, out)
}

func (fs *fileSystem) getAttr(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.AttrOut) fuse.Status {
	in := fs.inodes.get(h.NodeId)
	r, st := fs.beginAt(in, cancel, h, onAnySoon)
	if !st.Ok() {
		return st
	}
	defer r.finish()
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	attr, err := in.node.Attr(r)
	if st := r.status(err); !st.Ok() {
		return st
	}
	out.SetTimeout(attrTimeout(in.node.Kind(), attr))
	fs.fill(&out.Attr, in.node.Kind(), attr)
	return fuse.OK
}

// SetAttr lets a stream be opened with O_TRUNC, as a shell's ">" does.
func (fs *fileSystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	ino := fs.inodes.get(in.NodeId)
	if ino == nil {
		return fuse.Status(syscall.ESTALE)
	}
	const other = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
	if k := ino.node.Kind(); k != tree.Stream && k != tree.Padded || in.Valid&other != 0 {
		return fuse.EROFS
	}
	return fs.getAttr(cancel, &in.InHeader, out)
}

func (fs *fileSystem) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	in := fs.inodes.get(h.NodeId)
	r, st := fs.beginAt(in, cancel, h, onAnySoon)
	if !st.Ok() {
		return nil, st
	}
	defer r.finish()
	if in == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	l, ok := in.node.(tree.Linker)
	if !ok {
		return nil, fuse.EINVAL
	}
	target, err := l.Readlink(r)
	return []byte(target), r.status(err)
}

// attrTimeout is how long the kernel may show attr without asking.
func attrTimeout(k tree.Kind, attr tree.Attr) time.Duration {
	if k == tree.Static || attr.Rev != 0 {
		return forGood
	}
	return 0
}

func (fs *fileSystem) fill(out *fuse.Attr, kind tree.Kind, a tree.Attr) {
	out.Ino = a.Ino
	mode, gid := fs.access.bits(kind, a.Perm)
	out.Mode = syscall.S_IFREG | mode
	if a.Dir {
		out.Mode = syscall.S_IFDIR | mode
	}
	if kind == tree.Link {
		out.Mode = syscall.S_IFLNK | mode
	}
	out.Size = uint64(a.Size)
	out.Blocks = (uint64(a.Size) + 511) / 512
	out.Blksize = uint32(a.Blksize)
	out.Nlink = max(a.Nlink, 1)
	out.Uid, out.Gid = fs.access.UID, gid
	sec, nsec := uint64(a.Mtime.Unix()), uint32(a.Mtime.Nanosecond())
	out.Mtime, out.Mtimensec = sec, nsec
	out.Ctime, out.Ctimensec = sec, nsec
	out.Atime, out.Atimensec = sec, nsec
}

func (fs *fileSystem) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if fs.gate.closed() {
		return fuse.Status(enotconn)
	}
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, maxName
	return fuse.OK
}

// dirHandle is an open directory: what it listed when it was opened or rewound.
type dirHandle struct {
	in *inode

	mu   sync.Mutex
	list []fuse.DirEntry // guard: mu
}

func (fs *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if fs.gate.closed() {
		return fuse.Status(enotconn)
	}
	ino := fs.inodes.get(in.NodeId)
	if ino == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.Fh = fs.files.add(&file{in: ino, dir: &dirHandle{in: ino}})
	fs.inodes.use(ino, +1)
	return fuse.OK
}

func (fs *fileSystem) ReleaseDir(in *fuse.ReleaseIn) { fs.release(in.Fh) }

func (fs *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r, st := fs.begin(cancel, &in.InHeader, onAnySoon)
	if !st.Ok() {
		return st
	}
	defer r.finish()
	f := fs.files.get(in.Fh)
	if f == nil || f.dir == nil {
		return fuse.EBADF
	}
	if in.Offset == 0 {
		if err := f.dir.fill(r); err != nil {
			return r.status(err)
		}
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	for i := in.Offset; i < uint64(len(f.dir.list)); i++ {
		if !out.AddDirEntry(f.dir.list[i]) {
			break
		}
	}
	return fuse.OK
}

func (d *dirHandle) fill(r *request) error {
	entries, err := d.in.node.ReadDir(r)
	if err != nil {
		return err
	}
	list := make([]fuse.DirEntry, 0, 2+len(entries))
	list = append(list, fuse.DirEntry{Name: ".", Mode: syscall.S_IFDIR, Ino: d.in.node.ID()}, fuse.DirEntry{Name: "..", Mode: syscall.S_IFDIR})
	for _, e := range entries {
		mode := uint32(syscall.S_IFREG)
		if e.Dir {
			mode = syscall.S_IFDIR
		}
		if e.Link {
			mode = syscall.S_IFLNK
		}
		list = append(list, fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: mode})
	}
	for i := range list {
		list[i].Off = uint64(i) + 1
	}
	d.mu.Lock()
	d.list = list
	d.mu.Unlock()
	return nil
}
