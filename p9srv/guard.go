package p9srv

import (
	"context"
	"errors"
	"math"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore/tree"
)

// handle does with a message what is to be done: it answers it, or gives it to the library. An error
// means that the connection is to be closed.
func (s *session) handle(m *message, body []byte, bodyErr error) error {
	s.mu.Lock()
	_, busy := s.tags[m.tag]
	s.mu.Unlock()
	if busy {
		return ErrDuplicateTag
	}
	if errno := refusal(m.typ); errno != 0 {
		return s.refuse(m.tag, errno)
	}
	if bodyErr == nil {
		bodyErr = m.parseBody(body)
	}
	if bodyErr == nil && m.tag == noTag {
		bodyErr = linux.EINVAL // for Tversion only
	}
	if bodyErr != nil {
		return s.refuse(m.tag, errnoOf(bodyErr))
	}
	if m.typ == tFlush {
		return s.flush(m)
	}
	if m.typ == tAttach {
		if err := s.prepareAttach(m); err != nil {
			return s.refuse(m.tag, errnoOf(err))
		}
	}
	r, now, err := s.admit(m)
	switch {
	case err != nil:
		if errors.Is(err, ErrTooManyFids) || errors.Is(err, ErrTooManyRequests) {
			s.conn.refused(err)
		}
		return s.refuse(m.tag, errnoOf(err))
	case now != nil:
		s.conn.write(now)
	case m.typ == tRead:
		return s.direct(r)
	default:
		s.ask(r)
	}
	return nil
}

func (s *session) refuse(tag uint16, errno linux.Errno) error {
	s.conn.write(errorFrame(tag, errno))
	return nil
}

// flush makes the request oldtag end at once; Rflush follows its reply.
func (s *session) flush(m *message) error {
	r := &request{s: s, msg: *m, cancel: func() {}}
	s.mu.Lock()
	target := s.tags[m.oldtag]
	if target == nil {
		s.mu.Unlock()
		s.conn.write(newFrame(tFlush+1, m.tag).done(0))
		return nil
	}
	if len(s.tags) >= s.srv.opts.MaxReqs+spareSlots {
		s.mu.Unlock()
		return ErrTooManyRequests
	}
	s.enter(r)
	target.flushes = append(target.flushes, r)
	s.mu.Unlock()
	target.cancel()
	return nil
}

// prepareAttach checks the aname, and lets the first attach of the connection decide its domain.
func (s *session) prepareAttach(m *message) error {
	m.newfid = m.fid
	names, err := attachNames(m.aname)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := checkName(n); err != nil {
			return err
		}
	}
	m.names = names
	if !s.conn.peer.allows(m.aname) {
		s.srv.log.warn("9p: attach refused: --9p-map does not allow it", "peer", s.conn.peer.String(), "aname", m.aname)
		return linux.EACCES
	}
	s.conn.joinDomain(m.uname)
	return nil
}

// admit checks m against fids and limits and puts it in flight. It returns the request for the library, or
// a reply that is known now, or an error to answer.
func (s *session) admit(m *message) (*request, frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, frees := s.srv.opts.MaxReqs, m.typ == tClunk || m.typ == tRemove
	if frees {
		limit += spareSlots
	}
	if n := len(s.tags); n >= limit || !frees && !s.srv.reqs.room(n) {
		return nil, nil, ErrTooManyRequests
	}
	r := &request{s: s, msg: *m, libType: m.typ}
	if m.typ == tAttach {
		r.libType = tWalk
		if _, used := s.fids[m.fid]; used || m.fid >= stayFid {
			return nil, nil, linux.EBADF
		}
		if err := s.reserveFid(m.fid); err != nil {
			return nil, nil, err
		}
	} else {
		f := s.fids[m.fid]
		if f == nil || f.state == gone {
			return nil, nil, linux.EBADF
		}
		if now, err := s.admitFid(r, f); now != nil || err != nil {
			return nil, now, err
		}
	}
	r.ctx, r.cancel = context.WithCancel(s.ctx)
	s.enter(r)
	return r, nil, nil
}

// admitFid is admit for a message about f. mu must be held.
func (s *session) admitFid(r *request, f *file) (frame, error) {
	m := &r.msg
	r.file = f
	switch m.typ {
	case tWalk:
		r.file = nil
		return nil, s.admitWalk(r, f)
	case tLopen:
		switch {
		case f.state != walked:
			return nil, linux.EBUSY
		case f.node.Kind() == tree.Dir && openWrites(m.flags):
			return nil, linux.EISDIR
		}
		f.state = opening
	case tRead, tReaddir:
		return s.admitRead(r, f)
	case tWrite:
		switch {
		case !f.stream():
			return nil, linux.EROFS
		case f.state != opened || f.mode == readOnly:
			return nil, linux.EBADF
		}
	case tFsync:
		if f.state != opened {
			return nil, linux.EBADF
		}
		return newFrame(tFsync+1, m.tag).done(0), nil
	case tSetattr:
		// A shell's ">" truncates what it opens: that changes nothing of a watch file. Times come with it.
		if !f.stream() || m.flags&(setMode|setUID|setGID) != 0 || m.flags&setSize != 0 && m.offset != 0 {
			return nil, linux.EROFS
		}
		return newFrame(tSetattr+1, m.tag).done(0), nil
	case tClunk, tRemove:
		if f.state == moving {
			return nil, linux.EBUSY
		}
		r.libType = tClunk
		f.state = gone
		for _, other := range s.tags { // nobody is left to read or write
			if other.file == f {
				other.cancel()
			}
		}
	}
	return nil, nil
}

// admitWalk reserves the fid a walk leads to. mu must be held.
func (s *session) admitWalk(r *request, f *file) error {
	m := &r.msg
	switch {
	case m.newfid == m.fid:
		if f.state != walked || s.inUse(f, nil) {
			return linux.EBUSY
		}
		f.state, r.moves = moving, f
	case m.newfid >= stayFid:
		return linux.EBADF
	default:
		if _, used := s.fids[m.newfid]; used {
			return linux.EBADF
		}
		if err := s.reserveFid(m.newfid); err != nil {
			return err
		}
	}
	r.from = f.node.share()
	return nil
}

// inUse tells whether a request for f is in flight, other than but. mu must be held.
func (s *session) inUse(f *file, but *request) bool {
	for _, r := range s.tags {
		if r.file == f && r != but {
			return true
		}
	}
	return false
}

// admitRead cuts count to what a reply can carry. mu must be held.
func (s *session) admitRead(r *request, f *file) (frame, error) {
	m := &r.msg
	dir := f.node.Kind() == tree.Dir
	switch {
	case m.typ == tRead && dir:
		return nil, linux.EISDIR
	case m.typ == tReaddir && !dir:
		return nil, linux.ENOTDIR
	case f.state != opened:
		return nil, linux.EBADF
	}
	m.count = min(m.count, s.msize-ioHeader)
	if dir {
		m.count = min(m.count, maxCount)
		return nil, nil
	}
	if m.offset > math.MaxInt64-uint64(m.count) {
		return nil, linux.EINVAL
	}
	if f.mode == writeOnly {
		return nil, linux.EBADF
	}
	return nil, nil
}
