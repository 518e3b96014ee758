package p9srv

import (
	"io"
	"strconv"
	"sync/atomic"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore/tree"
)

// nodeRef is one reference of a tree node, shared by the fids cloned from each other.
type nodeRef struct {
	tree.Node
	refs atomic.Int32
}

func newNodeRef(n tree.Node) *nodeRef {
	r := &nodeRef{Node: n}
	r.refs.Store(1)
	return r
}

func (r *nodeRef) share() *nodeRef {
	r.refs.Add(1)
	return r
}

func (r *nodeRef) drop() {
	if r.refs.Add(-1) == 0 {
		r.Release()
	}
}

// slotName is the name that stands for a request's walk.
func slotName(slot uint16) string { return strconv.Itoa(int(slot)) }

// qid never has a version for what changes: newer kernels do not cache version 0.
func (r *nodeRef) qid() p9.QID {
	q := p9.QID{Path: r.ID()}
	switch r.Kind() {
	case tree.Dir:
		q.Type = p9.TypeDir
	case tree.Static, tree.RevFile, tree.BaseFile:
		q.Version = 1
	}
	return q
}

// file is what a fid stands for. The library calls its methods; it finds the request by the slot that
// the guard put into the message.
type file struct {
	templatefs.NoopFile
	s      *session
	node   *nodeRef     // immutable
	reads  atomic.Int32 // that the library does not know of
	handle tree.Handle  // set by Open, before the fid is open for the guard
	state  fidState     // guarded by s.mu
	clunk  *request     // a Tclunk that waits for other requests, see session.ask; guarded by s.mu
	mode   uint32       // readOnly, writeOnly or other, once opened; guarded by s.mu

	// listing is what Readdir goes through, as of offset 0; guarded by s.dirs.mu.
	listing []tree.Entry
}

var _ p9.File = (*file)(nil)

// pins reports whether reads may wait for acknowledgements of pins.
func (f *file) pins() bool {
	k := f.node.Kind()
	return k == tree.HeadFile || k == tree.BaseFile
}

// stream reports whether reads wait for messages.
func (f *file) stream() bool {
	k := f.node.Kind()
	return k == tree.Stream || k == tree.Padded
}

// big reports whether it is the data of a bigfile.
func (f *file) big() bool { return f.pins() || f.node.Kind() == tree.RevFile }

// Close is called by the library when the last request that it knows and the fid are gone.
func (f *file) Close() error {
	f.drop()
	return nil
}

// hold keeps the file open for a read; drop ends that.
func (f *file) hold() { f.reads.Add(1) }

func (f *file) drop() {
	if f.reads.Add(-1) >= 0 {
		return
	}
	if f.handle != nil {
		f.handle.Close()
	}
	f.s.dirs.forget(f)
	f.node.drop()
}

// StatFS is the same for all: nothing is allocated, and nothing is free.
func (f *file) StatFS() (p9.FSStat, error) {
	return p9.FSStat{Type: 0x01021997 /* V9FS_MAGIC */, BlockSize: 4096, NameLength: maxName}, nil
}

// GetAttr answers Tgetattr.
func (f *file) GetAttr(mask p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	req, err := f.s.requestAt(slotOfMask(mask))
	if err != nil {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, err
	}
	a, err := f.node.Attr(req.ctx)
	if err != nil {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, errnoOf(err)
	}
	return f.node.qid(), basicAttrs(), f.s.attr(a), nil
}

// basicAttrs are what Linux calls P9_STATS_BASIC.
func basicAttrs() p9.AttrMask {
	m := p9.AttrMaskAll
	m.BTime, m.Gen, m.DataVersion = false, false, false
	return m
}

func (s *session) attr(a tree.Attr) p9.Attr {
	mode := p9.ModeRegular
	if a.Dir {
		mode = p9.ModeDirectory
	}
	sec, nsec := uint64(a.Mtime.Unix()), uint64(a.Mtime.Nanosecond())
	return p9.Attr{
		Mode: mode | p9.FileMode(a.Perm), UID: p9.UID(s.srv.uid), GID: p9.GID(s.srv.gid),
		NLink: p9.NLink(a.Nlink), Size: uint64(a.Size), BlockSize: uint64(a.Blksize), Blocks: uint64(a.Size+511) / 512,
		ATimeSeconds: sec, ATimeNanoSeconds: nsec, MTimeSeconds: sec, MTimeNanoSeconds: nsec, CTimeSeconds: sec, CTimeNanoSeconds: nsec,
	}
}

// Open answers Tlopen.
func (f *file) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	req, err := f.s.requestAt(uint64(flags >> slotShift))
	if err != nil {
		return p9.QID{}, 0, err
	}
	if f.node.Kind() != tree.Dir {
		h, err := f.node.Open(req.ctx, tree.Caller{Domain: f.s.conn.domain.Load(), Padded: true}, openWrites(req.msg.flags))
		if err != nil {
			return p9.QID{}, 0, errnoOf(err)
		}
		f.handle = h
	}
	return f.node.qid(), 0, nil
}

// Bits of the flags of Tlopen: those of open(2) on Linux.
const (
	openMode  = 3
	readOnly  = 0
	writeOnly = 1
	openTrunc = 01000
)

func openWrites(flags uint32) bool { return flags&openMode != 0 || flags&openTrunc != 0 }

// WriteAt answers Twrite.
func (f *file) WriteAt(_ []byte, slot int64) (int, error) {
	req, err := f.s.requestAt(uint64(slot))
	if err != nil {
		return 0, err
	}
	n, err := f.handle.Write(req.ctx, req.msg.data, int64(req.msg.offset))
	if err != nil {
		return 0, errnoOf(err)
	}
	return n, nil
}

// rootFile is what the library attaches to: every walk starts here, see package doc.
type rootFile struct {
	templatefs.NoopFile
	s *session
}

var _ p9.File = (*rootFile)(nil)

// GetAttr says that it can be walked.
func (r *rootFile) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9.QID{Type: p9.TypeDir}, p9.AttrMask{Mode: true}, p9.Attr{Mode: p9.ModeDirectory}, nil
}

// Close has nothing to close.
func (r *rootFile) Close() error { return nil }

// WalkGetAttr answers Twalk and Tattach: names is the slot of the request, which has the real ones.
func (r *rootFile) WalkGetAttr(names []string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	fail := func(err error) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
		return nil, nil, p9.AttrMask{}, p9.Attr{}, err
	}
	if len(names) != 1 {
		return fail(linux.EINVAL)
	}
	slot, err := strconv.ParseUint(names[0], 10, 32)
	if err != nil {
		return fail(linux.EINVAL)
	}
	req, err := r.s.requestAt(slot)
	if err != nil {
		return fail(err)
	}
	n, err := req.walk()
	if err != nil {
		return fail(errnoOf(err))
	}
	mode := p9.ModeRegular
	if n.Kind() == tree.Dir {
		mode = p9.ModeDirectory
	}
	req.newFile = &file{s: r.s, node: n}
	return []p9.QID{n.qid()}, req.newFile, p9.AttrMask{Mode: true}, p9.Attr{Mode: mode}, nil
}

// slotOfMask undoes what the library makes of the mask of Tgetattr.
func slotOfMask(m p9.AttrMask) uint64 {
	var slot uint64
	for i, bit := range []bool{m.Mode, m.NLink, m.UID, m.GID, m.RDev, m.ATime, m.MTime, m.CTime, m.INo, m.Size, m.Blocks, m.BTime, m.Gen, m.DataVersion} {
		if bit {
			slot |= 1 << i
		}
	}
	return slot
}

// readFile fills p from a range of a file of the database.
func readFile(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF // a data record was cut off
	}
	return err
}
