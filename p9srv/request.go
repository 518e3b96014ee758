package p9srv

import (
	"context"
	"strings"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// request is one message in flight.
type request struct {
	s       *session
	msg     message
	libType msgType // what the library sees it as
	slot    uint16
	ctx     context.Context
	cancel  context.CancelFunc
	file    *file      // of its fid; nil for walks, attaches and flushes
	moves   *file      // of a walk that replaces the file of its fid; else nil
	from    *nodeRef   // where a walk starts; given back in finish
	flushes []*request // that wait for it, in order of arrival; guarded by s.mu

	// Results: written by the goroutine that handles it, read when the library has answered.
	newFile *file
	qids    []p9.QID
	data    tree.Data
	taken   int64    // bytes of the budget
	lent    [][]byte // by the server's buffers

	busy bool // of a Tread: others were in flight when it came
	// Memory for the reply of a Tread.
	head   [headerLen + 4]byte
	pieces [3]zcore.Piece
}

// finish gives back what the request holds. It is called once, when the reply is written or dropped.
func (r *request) finish() {
	r.cancel()
	if r.data.Done != nil {
		r.data.Done()
	}
	for _, b := range r.lent {
		r.s.srv.buffers.put(b)
	}
	if r.taken > 0 {
		r.s.conn.bytes.put(r.taken, r.file.pins())
	}
	if r.from != nil {
		r.from.drop()
	}
}

// forward is the message as the library gets it.
func (r *request) forward() frame {
	f := newFrame(r.libType, r.slot)
	m := &r.msg
	switch r.libType {
	case tWalk:
		f = f.u32(rootFid).u32(m.newfid).u16(1).str(slotName(r.slot))
	case tLopen:
		f = f.u32(m.fid).u32(m.flags&openMode | uint32(r.slot)<<slotShift)
	case tGetattr:
		f = f.u32(m.fid).u64(uint64(r.slot))
	case tWrite:
		f = f.u32(m.fid).u64(uint64(r.slot)).u32(0)
	case tReaddir:
		f = f.u32(m.fid).u64(uint64(r.slot)).u32(m.count)
	case tClunk, tStatfs:
		f = f.u32(m.fid)
	}
	return f.done(0)
}

// encode makes the reply of what the library answered.
func (r *request) encode(lib frame, ok bool) []zcore.Piece {
	tag := r.msg.tag
	var f frame
	switch {
	case ok && r.msg.typ == tRead:
		f = append(frame(r.head[:4]), byte(tRead+1), byte(tag), byte(tag>>8)).u32(uint32(r.data.Size())).done(r.data.Size())
		return append(append(r.pieces[:0], zcore.Piece{Mem: f}), r.data.Pieces...)
	case ok && r.msg.typ == tWalk:
		f = newFrame(tWalk+1, tag).u16(uint16(len(r.qids)))
		for _, q := range r.qids {
			f = f.qid(q)
		}
		f = f.done(0)
	case ok && r.msg.typ == tAttach:
		f = newFrame(tAttach+1, tag).qid(r.newFile.node.qid()).done(0)
	case r.msg.typ == tRemove: // a clunk that fails
		f = errorFrame(tag, linux.EROFS)
	default:
		f = append(f, lib...)
		f[5], f[6] = byte(tag), byte(tag>>8)
	}
	return []zcore.Piece{{Mem: f}}
}

func (f frame) qid(q p9.QID) frame { return f.u8(uint8(q.Type)).u32(q.Version).u64(q.Path) }

func errorFrame(tag uint16, errno linux.Errno) frame {
	return newFrame(rLerror, tag).u32(uint32(errno)).done(0)
}

// walk goes from the start of the walk by all names, or fails: a walk of some of the names helps no
// client, and would hide why it ended.
func (r *request) walk() (*nodeRef, error) {
	at := r.from
	if r.msg.typ == tAttach {
		at = newNodeRef(r.s.srv.opts.Tree.Root())
	} else {
		at.share()
	}
	for _, name := range r.msg.names {
		if at.Kind() != tree.Dir {
			at.drop()
			return nil, tree.ErrNotDir
		}
		n, err := at.Lookup(r.ctx, name)
		at.drop()
		if err != nil {
			return nil, err
		}
		at = newNodeRef(n)
		r.qids = append(r.qids, at.qid())
	}
	if r.msg.typ == tAttach && at.Kind() != tree.Dir {
		at.drop()
		return nil, tree.ErrNotDir
	}
	return at, nil
}

// attachNames turns an aname into the names to walk: the root, head or @<tid>.
func attachNames(aname string) ([]string, error) {
	name := strings.Trim(aname, "/")
	if name == "" {
		return nil, nil
	}
	if name != "head" && !isSnapshot(name) {
		return nil, tree.ErrNotExist
	}
	return []string{name}, nil
}

// isSnapshot tells names of the form @<tid>.
func isSnapshot(name string) bool {
	return len(name) == 17 && name[0] == '@' && strings.Trim(name[1:], "0123456789abcdef") == ""
}
