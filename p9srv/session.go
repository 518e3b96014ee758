package p9srv

import (
	"context"
	"sync"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore"
)

const (
	libMsize  = 4096      // msize as the library sees it: no data goes through it
	rootFid   = noFid - 1 // fid of the root inside the library, where all walks start
	stayFid   = noFid - 2 // see session.stay
	bootTag   = noTag - 1 // tags that no slot has
	stayTag   = noTag - 2
	slotShift = 2          // the library looks at the lower two bits of the flags of Tlopen
	maxCount  = 64<<10 - 1 // most bytes of entries in one Rreaddir

	// lastGrace is how long after its last answer a goroutine of the library may take to get going.
	lastGrace = 20 * time.Millisecond
)

// fidState is how far a fid is; the library never sees a request that does not fit.
type fidState int

const (
	walked  fidState = iota // may be opened or walked from
	opening                 // a Tlopen is in flight
	opened
	moving // a Twalk that replaces its file is in flight
	gone   // a Tclunk is in flight
)

// session is a connection from one Tversion to the next.
type session struct {
	srv    *Server
	conn   *conn
	msize  uint32
	ctx    context.Context // done when the session ends
	cancel context.CancelFunc
	in     *inbox // what the library reads
	dirs   listings

	// The library counts its goroutines in a WaitGroup and adds to it from goroutines that it has just started,
	// also while it waits on it as it ends, which panics. So the first goroutine, the one that would wait, stays
	// inside Attach, where it went first, until all others have gone.
	stay    chan struct{} // closed to let it go
	stayed  chan struct{} // closed when it is there
	boot    chan struct{} // a token for each reply to what startSession sends; then not used
	drained chan struct{} // closed when the session is dead and the library has answered all
	done    chan struct{} // closed when the library has returned

	mu    sync.Mutex
	dead  bool                // no replies any more; guarded by mu
	last  bool                // nothing is asked any more; guarded by mu
	asked int                 // requests that the library has not answered; guarded by mu
	tags  map[uint16]*request // in flight; guarded by mu
	slots []*request          // by slot; guarded by mu
	free  []uint16            // slots not in use, all below len(slots); guarded by mu
	fids  map[uint32]*file    // nil while a walk to it is in flight; guarded by mu
}

// startSession makes the library ready for requests.
func (c *conn) startSession(msize uint32) (*session, error) {
	s := &session{
		srv: c.srv, conn: c, msize: msize, in: newInbox(),
		stay: make(chan struct{}), stayed: make(chan struct{}), boot: make(chan struct{}, 1),
		drained: make(chan struct{}), done: make(chan struct{}),
		tags: make(map[uint16]*request), fids: make(map[uint32]*file),
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	go s.runLibrary()
	attach := func(tag uint16, fid uint32) frame {
		return newFrame(tAttach, tag).u32(fid).u32(noFid).str("").str("").u32(noFid).done(0)
	}
	s.in.put(attach(stayTag, stayFid))
	<-s.stayed
	s.in.put(newFrame(tVersion, bootTag).u32(libMsize).str(version9P).done(0))
	<-s.boot
	s.in.put(attach(bootTag, rootFid))
	<-s.boot
	return s, nil
}

// runLibrary handles requests until the inbox is closed, and returns when all files are.
func (s *session) runLibrary() {
	defer close(s.done)
	defer func() {
		if p := recover(); p != nil { // the wait of above: a goroutine started later than lastGrace
			s.srv.log.warn("9p: library failed at the end of a session", "cause", p)
			for _, f := range s.fids { // nobody else is there any more
				if f != nil {
					f.Close()
				}
			}
		}
	}()
	_ = p9.NewServer(s).Handle(s.in, &outbox{s: s}) // returns nil always
}

// Attach implements p9.Attacher; the first call stays until the session has ended.
func (s *session) Attach() (p9.File, error) {
	select {
	case <-s.stayed:
		return &rootFile{s: s}, nil
	default:
	}
	close(s.stayed)
	<-s.stay
	return nil, linux.EIO
}

// end cancels all that is in flight and returns when every file of the session is closed.
func (s *session) end() {
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	s.cancel()
	unread := s.in.end()
	s.mu.Lock()
	s.last = true
	s.asked -= unread
	if s.asked == 0 {
		close(s.drained)
	}
	s.mu.Unlock()
	<-s.drained
	time.Sleep(lastGrace)
	close(s.stay)
	<-s.done
	s.mu.Lock()
	var left []*request // what was dropped, and flushes of it
	for _, r := range s.tags {
		left = append(left, r)
	}
	n := len(s.fids)
	s.tags, s.slots, s.fids = nil, nil, nil
	s.mu.Unlock()
	for i, r := range left {
		s.srv.reqs.add(-1, i)
		r.finish()
	}
	for i := range n {
		s.srv.fids.add(-1, i)
	}
}

// ask gives r to the library; a Tclunk when nothing else is in flight for its fid: the library looks a fid up when
// it gets to a request, and after Rclunk that could be another file.
func (s *session) ask(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.libType == tClunk && s.inUse(r.file, r) {
		r.file.clunk = r
		return
	}
	s.askLocked(r)
}

// askLocked gives r to the library. mu must be held.
func (s *session) askLocked(r *request) {
	s.asked++
	s.in.put(r.forward())
}

// answered tells that the library has answered a request.
func (s *session) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked--; s.last && s.asked == 0 {
		close(s.drained)
	}
}

// requestAt returns the request in a slot.
func (s *session) requestAt(slot uint64) (*request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot >= uint64(len(s.slots)) || s.slots[slot] == nil {
		return nil, linux.EIO // never: the guard makes all slots there are
	}
	return s.slots[slot], nil
}

// enter gives r a slot and makes it be in flight under its tag. mu must be held.
func (s *session) enter(r *request) {
	if n := len(s.free); n > 0 {
		r.slot, s.free = s.free[n-1], s.free[:n-1]
		s.slots[r.slot] = r
	} else {
		r.slot = uint16(len(s.slots))
		s.slots = append(s.slots, r)
	}
	s.srv.reqs.add(1, len(s.tags))
	s.tags[r.msg.tag] = r
}

// leave ends the flight of r, and of the flushes that wait for it, which it returns in order of
// arrival. mu must be held.
func (s *session) leave(r *request) []*request {
	delete(s.tags, r.msg.tag)
	s.slots[r.slot] = nil
	s.free = append(s.free, r.slot)
	s.srv.reqs.add(-1, len(s.tags)) // now: when the client has the reply it may send the next
	if f := r.file; f != nil && f.clunk != nil && !s.inUse(f, f.clunk) {
		s.askLocked(f.clunk)
		f.clunk = nil
	}
	var flushes []*request
	for _, f := range r.flushes {
		flushes = append(flushes, f)
		flushes = append(flushes, s.leave(f)...)
	}
	return flushes
}

// reply takes a reply of the library to the client. It runs on a goroutine of the library, which holds
// its lock for sending.
func (s *session) reply(f frame) {
	h := parseHeader((*[headerLen]byte)(f))
	switch h.tag {
	case stayTag: // all is over
		return
	case bootTag:
		s.boot <- struct{}{}
		return
	}
	defer s.answered()
	r, err := s.requestAt(uint64(h.tag))
	if err != nil {
		return
	}
	ok := h.typ == r.libType+1
	s.settle(r, ok)
	s.answer(r, r.encode(f, ok))
}

// answer writes the reply of r and those of the flushes waiting for it, and ends them.
func (s *session) answer(r *request, reply []zcore.Piece) {
	s.conn.wmu.Lock()
	s.mu.Lock()
	dead := s.dead
	var flushes []*request
	if !dead {
		flushes = s.leave(r)
	}
	s.mu.Unlock()
	if !dead {
		for _, f := range flushes {
			reply = append(reply, zcore.Piece{Mem: newFrame(tFlush+1, f.msg.tag).done(0)})
		}
		s.conn.writeLocked(reply)
	}
	s.conn.wmu.Unlock()
	if dead {
		return // end finishes it
	}
	r.finish()
	for _, f := range flushes {
		f.finish()
	}
}

// settle does to the fids what r did to them in the library.
func (s *session) settle(r *request, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &r.msg
	switch {
	case s.dead:
	case m.typ == tWalk || m.typ == tAttach:
		switch {
		case ok:
			s.fids[m.newfid] = r.newFile
		case r.moves != nil:
			r.moves.state = walked
		default:
			s.dropFid(m.newfid)
		}
	case m.typ == tLopen && r.file.state != opening: // a Tclunk came after it
	case m.typ == tLopen && ok:
		r.file.state = opened
		r.file.mode = m.flags & openMode
	case m.typ == tLopen:
		r.file.state = walked
	case m.typ == tClunk || m.typ == tRemove:
		s.dropFid(m.fid)
	}
}

// reserveFid makes fid be taken, for a walk to fill. mu must be held.
func (s *session) reserveFid(fid uint32) error {
	if len(s.fids) >= s.srv.opts.MaxFids || !s.srv.fids.room(len(s.fids)) {
		return ErrTooManyFids
	}
	s.srv.fids.add(1, len(s.fids))
	s.fids[fid] = nil
	return nil
}

// dropFid forgets fid. mu must be held.
func (s *session) dropFid(fid uint32) {
	delete(s.fids, fid)
	s.srv.fids.add(-1, len(s.fids))
}
