package p9srv

import (
	"context"
	"io"
	"sync/atomic"

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

// step goes to a name in a directory.
func (r *nodeRef) step(ctx context.Context, name string) (*nodeRef, error) {
	if r.Kind() != tree.Dir {
		return nil, tree.ErrNotDir
	}
	n, err := r.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	return newNodeRef(n), nil
}

// qid never has a version for what changes: newer kernels do not cache version 0.
func (r *nodeRef) qid() p9.QID {
	q := p9.QID{Path: r.ID()}
	switch r.Kind() {
	case tree.Dir:
		q.Type = p9.TypeDir
	case tree.Link:
		q.Type = p9.TypeSymlink
	case tree.Static, tree.RevFile, tree.BaseFile:
		q.Version = 1
	}
	return q
}

// fidState is how far a fid is; a request that does not fit is refused.
type fidState int

const (
	walked  fidState = iota // may be opened or walked from
	opening                 // a Tlopen is in flight
	opened
	moving // a Twalk that replaces its file is in flight
	gone   // a Tclunk is in flight
)

// file is what a fid stands for.
type file struct {
	s      *session
	node   *nodeRef     // immutable
	refs   atomic.Int32 // of the fid, and of the requests that use it
	handle tree.Handle  // set by Tlopen, before the state is opened
	state  fidState     // guarded by s.mu
	mode   uint32       // readOnly, writeOnly or other, once opened; guarded by s.mu
	users  int          // requests in flight for it, but Tclunk; guarded by s.mu
	clunk  *request     // a Tclunk that waits for them; guarded by s.mu

	// listing is what Treaddir goes through, as of offset 0; guarded by s.dirs.mu.
	listing []tree.Entry
}

// newFile takes over the reference of the node.
func newFile(s *session, n *nodeRef) *file {
	f := &file{s: s, node: n}
	f.refs.Store(1)
	return f
}

// hold keeps the file open for a request; drop ends that.
func (f *file) hold() { f.refs.Add(1) }

func (f *file) drop() {
	if f.refs.Add(-1) > 0 {
		return
	}
	if f.handle != nil {
		f.handle.Close()
	}
	f.s.dirs.forget(f)
	f.node.drop()
}

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
