package p9srv

import (
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
)

const (
	// quick is how long a read may take for the next one to be tried by the goroutine that reads messages.
	quick = 200 * time.Microsecond
	// turnTick is how often it is looked whether that goroutine is held up; it is for two ticks at most.
	turnTick = time.Millisecond
)

// errReplaced is what a goroutine that read messages returns when another has begun to.
var errReplaced = errors.New("another goroutine reads the messages")

// turn lets the goroutine that reads messages do Treads itself, which saves two switches between
// goroutines for each. When one takes long, a timer's goroutine goes on reading in its place, so
// that nothing else of the connection waits: flushes, other requests, its end.
type turn struct {
	n       atomic.Uint64 // odd while the reader does a Tread; who makes it even has the turn afterwards
	ticking atomic.Bool   // the timer is set
	seen    uint64        // n at the last tick; of the timer's goroutine while ticking
	timer   *time.Timer   // set when the connection begins
	ended   chan struct{} // closed when reading has ended in another goroutine than that of conn.serve
	fast    atomic.Bool   // the last Tread was quick
}

func (c *conn) initTurn() {
	c.turn.ended = make(chan struct{})
	c.turn.timer = time.AfterFunc(time.Hour, c.tick)
	c.turn.timer.Stop()
}

// readOn reads messages until the connection ends or errReplaced.
func (c *conn) readOn() error {
	for {
		if err := c.next(); err != nil {
			return err
		}
	}
}

// tick takes the turn of a reader that is held up. The timer runs while there are Treads.
func (c *conn) tick() {
	t := &c.turn
	n := t.n.Load()
	switch {
	case n != t.seen:
		t.seen = n
		t.timer.Reset(turnTick)
	case n%2 == 0:
		t.ticking.Store(false)
		if t.n.Load() != n {
			c.startTicking() // one began meanwhile
		}
	case !t.n.CompareAndSwap(n, n+1): // it was ready just now
		t.timer.Reset(turnTick)
	default:
		t.ticking.Store(false)
		if err := c.readOn(); !errors.Is(err, errReplaced) {
			c.endOfMessages(err) // here: the goroutine of conn.serve may be one that is held up
			close(t.ended)
		}
	}
}

func (c *conn) startTicking() {
	if c.turn.ticking.CompareAndSwap(false, true) {
		c.turn.timer.Reset(turnTick)
	}
}

// direct does a Tread without the library, which would only carry it from goroutine to goroutine.
func (s *session) direct(r *request) error {
	s.mu.Lock()
	s.asked++
	r.busy = s.asked > 1
	s.mu.Unlock()
	r.file.hold()
	c := s.conn
	if r.busy || r.file.stream() || !c.turn.fast.Load() || c.br.Buffered() > 0 {
		go s.doRead(r)
		return nil
	}
	n := c.turn.n.Add(1)
	c.startTicking()
	s.doRead(r)
	if !c.turn.n.CompareAndSwap(n, n+1) {
		return errReplaced
	}
	return nil
}

// doRead reads and answers.
func (s *session) doRead(r *request) {
	defer s.answered()
	defer r.file.drop()
	began := time.Now()
	if err := r.readSafely(); err != nil {
		s.answer(r, []zcore.Piece{{Mem: errorFrame(r.msg.tag, errnoOf(err))}})
	} else {
		s.answer(r, r.encode(nil, true))
	}
	s.conn.turn.fast.Store(time.Since(began) < quick)
}

// readSafely makes a panic an error, as the library does for other requests: one read that fails badly
// must not end the others.
func (r *request) readSafely() (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.s.srv.log.warn("9p: a read failed badly", "cause", p, "stack", string(debug.Stack()))
			err = linux.EFAULT
		}
	}()
	return r.read()
}
