package p9srv

import (
	"math"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore/tree"
)

// Bits of the flags of Tlopen: those of open(2) on Linux.
const (
	openMode  = 3
	readOnly  = 0
	writeOnly = 1
	openTrunc = 01000
)

func openWrites(flags uint32) bool { return flags&openMode != 0 || flags&openTrunc != 0 }

func admitOpenLocked(_ *session, r *request) error {
	switch f := r.file; {
	case f.state != walked:
		return linux.EBUSY
	case f.node.Kind() == tree.Dir && openWrites(r.msg.flags):
		return linux.EISDIR
	}
	r.file.state = opening
	return nil
}

// open answers Tlopen.
func (r *request) open() error {
	f := r.file
	if f.node.Kind() != tree.Dir {
		h, err := f.node.Open(r.ctx, tree.Caller{Domain: r.s.conn.domain.Load(), Padded: true}, openWrites(r.msg.flags))
		if err != nil {
			return err
		}
		f.handle = h
	}
	r.reply = r.frame(tLopen + 1).qid(f.node.qid()).u32(0)
	return nil
}

func settleOpenLocked(_ *session, r *request, ok bool) {
	switch f := r.file; {
	case f.state != opening: // a Tclunk came after it
	case ok:
		f.state, f.mode = opened, r.msg.flags&openMode
	default:
		f.state = walked
	}
}

// admitReadLocked cuts count to what a reply can carry.
func admitReadLocked(s *session, r *request) error {
	m, f := &r.msg, r.file
	m.count = min(m.count, s.msize-ioHeader)
	switch {
	case f.node.Kind() == tree.Dir:
		return linux.EISDIR
	case f.state != opened:
		return linux.EBADF
	case m.offset > math.MaxInt64-uint64(m.count):
		return linux.EINVAL
	case f.mode == writeOnly:
		return linux.EBADF
	}
	return nil
}

func admitReaddirLocked(s *session, r *request) error {
	m, f := &r.msg, r.file
	m.count = min(m.count, s.msize-ioHeader, maxCount)
	switch {
	case f.node.Kind() != tree.Dir:
		return linux.ENOTDIR
	case f.state != opened:
		return linux.EBADF
	}
	return nil
}

func admitWriteLocked(_ *session, r *request) error {
	switch f := r.file; {
	case !f.stream():
		return linux.EROFS
	case f.state != opened || f.mode == readOnly:
		return linux.EBADF
	}
	return nil
}

// write answers Twrite.
func (r *request) write() error {
	n, err := r.file.handle.Write(r.ctx, r.msg.data, int64(r.msg.offset))
	if err != nil {
		return err
	}
	r.reply = r.frame(tWrite + 1).u32(uint32(n))
	return nil
}

// getattr answers Tgetattr with what Linux calls P9_STATS_BASIC, whatever was asked for.
func (r *request) getattr() error {
	a, err := r.file.node.Attr(r.ctx)
	if err != nil {
		return err
	}
	mode := p9.ModeRegular
	if a.Dir {
		mode = p9.ModeDirectory
	}
	if r.file.node.Kind() == tree.Link {
		mode = p9.ModeSymlink
	}
	sec, nsec := uint64(a.Mtime.Unix()), uint64(a.Mtime.Nanosecond())
	const basic = 1<<11 - 1
	r.reply = r.longFrame(tGetattr+1, 160).u64(basic).qid(r.file.node.qid()).attr(&p9.Attr{
		Mode: mode | p9.FileMode(a.Perm), UID: p9.UID(r.s.srv.uid), GID: p9.GID(r.s.srv.gid),
		NLink: p9.NLink(a.Nlink), Size: uint64(a.Size), BlockSize: uint64(a.Blksize), Blocks: uint64(a.Size+511) / 512,
		ATimeSeconds: sec, ATimeNanoSeconds: nsec, MTimeSeconds: sec, MTimeNanoSeconds: nsec, CTimeSeconds: sec, CTimeNanoSeconds: nsec,
	})
	return nil
}

// readlink answers Treadlink.
func (r *request) readlink() error {
	l, ok := r.file.node.Node.(tree.Linker)
	if !ok {
		return linux.EINVAL
	}
	target, err := l.Readlink(r.ctx)
	if err != nil {
		return err
	}
	r.reply = r.longFrame(tReadlink+1, headerLen+2+len(target)).str(target)
	return nil
}

// setattrLocked answers Tsetattr. A shell's ">" truncates what it opens: that changes nothing of a watch file. Times
// come with it.
func setattrLocked(_ *session, r *request) error {
	m := &r.msg
	if !r.file.stream() || m.flags&(setMode|setUID|setGID) != 0 || m.flags&setSize != 0 && m.offset != 0 {
		return linux.EROFS
	}
	r.reply = r.frame(tSetattr + 1)
	return nil
}

func fsyncLocked(_ *session, r *request) error {
	if r.file.state != opened {
		return linux.EBADF
	}
	r.reply = r.frame(tFsync + 1)
	return nil
}

// statfsLocked answers Tstatfs, for all alike: nothing is allocated, and nothing is free.
func statfsLocked(_ *session, r *request) error {
	r.reply = r.longFrame(tStatfs+1, 67).statfs(&p9.FSStat{Type: 0x01021997 /* V9FS_MAGIC */, BlockSize: 4096, NameLength: maxName})
	return nil
}

// admitClunkLocked ends what waits in requests for the fid: nobody is left to read or write. They are answered
// first, so that none of them gets to what the client has under the same number next.
func admitClunkLocked(s *session, r *request) error {
	f := r.file
	if f.state == moving {
		return linux.EBUSY
	}
	f.state = gone
	if f.users > 0 {
		f.clunk, r.later = r, true
		for _, other := range s.tags {
			if other.file == f {
				other.cancel()
			}
		}
	}
	return nil
}

// clunk answers Tclunk.
func (r *request) clunk() error {
	r.file.drop()
	r.reply = r.frame(tClunk + 1)
	return nil
}

// remove answers Tremove, which is a Tclunk that fails.
func (r *request) remove() error {
	r.file.drop()
	return linux.EROFS
}

func settleClunkLocked(s *session, r *request, _ bool) { s.dropFidLocked(r.msg.fid) }
