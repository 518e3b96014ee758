package p9srv

import (
	"errors"
	"sync/atomic"
	"time"
)

const (
	// quick is how long a request may take for the next one to be done by the goroutine that reads messages.
	quick = 200 * time.Microsecond
	// turnTick is how often it is looked whether that goroutine is held up; it is for two ticks at most.
	turnTick = time.Millisecond
)

// errReplaced is what a goroutine that read messages returns when another has begun to.
var errReplaced = errors.New("another goroutine reads the messages")

// turn lets the goroutine that reads messages do requests itself, which saves two switches between
// goroutines for each. When one takes long, a timer's goroutine goes on reading in its place, so
// that nothing else of the connection waits: flushes, other requests, its end.
type turn struct {
	n       atomic.Uint64 // odd while the reader does a request; who makes it even has the turn afterwards
	ticking atomic.Bool   // the timer is set
	seen    uint64        // n at the last tick; of the timer's goroutine while ticking
	timer   *time.Timer   // set when the connection begins
	ended   chan struct{} // closed when reading has ended in another goroutine than that of conn.serve
	fast    atomic.Bool   // the last request was quick
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

// tick takes the turn of a reader that is held up. The timer runs while there are requests.
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

// start does a request: here, when that is likely to be quick and nothing else is there to be done meanwhile.
func (s *session) start(r *request) error {
	c := s.conn
	if r.busy || r.waits() || !c.turn.fast.Load() || c.br.Buffered() > 0 {
		go s.run(r)
		return nil
	}
	n := c.turn.n.Add(1)
	c.startTicking()
	s.run(r)
	if !c.turn.n.CompareAndSwap(n, n+1) {
		return errReplaced
	}
	return nil
}

// waits tells requests that most often wait for something.
func (r *request) waits() bool { return r.msg.typ == tRead && r.file.stream() }
