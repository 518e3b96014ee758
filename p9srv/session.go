package p9srv

import (
	"context"
	"sync"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
)

// session is a connection from one Tversion to the next: the fids, and the requests in flight.
type session struct {
	srv    *Server
	conn   *conn
	msize  uint32
	ctx    context.Context // done when the session ends
	cancel context.CancelFunc
	dirs   listings

	// running counts the requests that are not over. The goroutine that reads messages adds to it, and waits for
	// it in end.
	running sync.WaitGroup

	mu   sync.Mutex
	dead bool                // no replies any more; guarded by mu
	tags map[uint16]*request // in flight; guarded by mu
	fids map[uint32]*file    // nil while a walk to it is in flight; guarded by mu
}

func (c *conn) newSession(msize uint32) *session {
	s := &session{srv: c.srv, conn: c, msize: msize, tags: make(map[uint16]*request), fids: make(map[uint32]*file)}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// end cancels all that is in flight and returns when every file of the session is closed.
func (s *session) end() {
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	s.mu.Lock()
	fids := s.fids
	s.fids = nil
	s.mu.Unlock()
	had := len(fids)
	for _, f := range fids {
		had--
		s.srv.fids.add(-1, had)
		f.drop()
	}
}

// inFlight tells whether a tag is in use.
func (s *session) inFlight(tag uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[tag] != nil
}

// admit checks r against limits and its fid and puts it in flight, unless the answer is known now. It
// reports whether others were in flight.
func (s *session) admit(r *request) (busy bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, n := s.srv.opts.MaxReqs, len(s.tags)
	if r.op.frees {
		limit += spareRequests
	}
	if n >= limit || !r.op.frees && !s.srv.reqs.room(n) {
		return false, ErrTooManyRequests
	}
	if r.msg.typ != tAttach {
		if r.file = s.fids[r.msg.fid]; r.file == nil || r.file.state == gone {
			return false, linux.EBADF
		}
	}
	if r.op.admit != nil {
		if err := r.op.admit(s, r); err != nil {
			return false, err
		}
	}
	if r.op.do == nil {
		return false, nil
	}
	r.ctx, r.cancel = context.WithCancel(s.ctx)
	s.enterLocked(r)
	s.running.Add(1)
	return n > 0, nil
}

// enterLocked makes r be in flight under its tag.
func (s *session) enterLocked(r *request) {
	s.srv.reqs.add(1, len(s.tags))
	s.tags[r.msg.tag] = r
	if r.file != nil && !r.op.frees {
		r.file.users++
		r.file.hold()
	}
}

// leaveLocked ends the flight of r, and of the flushes that wait for it. It returns these in order of arrival, and
// the Tclunk that waited for r, or nil.
func (s *session) leaveLocked(r *request) (flushes []*request, clunk *request) {
	delete(s.tags, r.msg.tag)
	s.srv.reqs.add(-1, len(s.tags)) // now: when the client has the reply it may send the next
	if f := r.file; f != nil && !r.op.frees {
		if f.users--; f.users == 0 {
			clunk, f.clunk = f.clunk, nil
		}
	}
	for _, f := range r.flushes {
		flushes = append(flushes, f)
		more, _ := s.leaveLocked(f)
		flushes = append(flushes, more...)
	}
	return flushes, clunk
}

// answer writes the reply of r and those of the flushes waiting for it, and ends them. It returns the Tclunk that
// waited for r, or nil.
func (s *session) answer(r *request, ok bool) (clunk *request) {
	defer s.running.Done()
	reply := append(r.pieces[:0], zcore.Piece{})
	if ok {
		reply = append(reply, r.data.Pieces...)
		reply[0].Mem = r.reply.done(r.data.Size())
	} else {
		reply[0].Mem = r.reply.done(0)
	}
	s.conn.wmu.Lock()
	s.mu.Lock()
	if r.op.settle != nil {
		r.op.settle(s, r, ok)
	}
	flushes, clunk := s.leaveLocked(r)
	dead := s.dead
	s.mu.Unlock()
	if !dead {
		for _, f := range flushes {
			reply = append(reply, zcore.Piece{Mem: f.frame(tFlush + 1).done(0)})
		}
		s.conn.writeLocked(reply)
	}
	s.conn.wmu.Unlock()
	r.finish()
	return clunk
}

// flush makes the request oldtag end at once; Rflush follows its reply.
func (s *session) flush(r *request) error {
	s.mu.Lock()
	target := s.tags[r.msg.oldtag]
	if target == nil {
		s.mu.Unlock()
		s.conn.write(r.frame(tFlush + 1))
		return nil
	}
	if len(s.tags) >= s.srv.opts.MaxReqs+spareRequests {
		s.mu.Unlock()
		return ErrTooManyRequests
	}
	s.enterLocked(r)
	target.flushes = append(target.flushes, r)
	s.mu.Unlock()
	if target.cancel != nil { // a flush of a flush ends nothing
		target.cancel()
	}
	return nil
}

// reserveFidLocked makes fid be taken, for a walk to fill.
func (s *session) reserveFidLocked(fid uint32) error {
	if _, used := s.fids[fid]; used || fid == noFid {
		return linux.EBADF
	}
	if len(s.fids) >= s.srv.opts.MaxFids || !s.srv.fids.room(len(s.fids)) {
		return ErrTooManyFids
	}
	s.srv.fids.add(1, len(s.fids))
	s.fids[fid] = nil
	return nil
}

// dropFidLocked forgets fid.
func (s *session) dropFidLocked(fid uint32) {
	delete(s.fids, fid)
	s.srv.fids.add(-1, len(s.fids))
}
