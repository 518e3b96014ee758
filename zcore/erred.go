package zcore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// A page fault whose READ ends in an error sends the READ once more, and holds mmap_lock of its process then. If that
// second READ waited for a pin, the process could not re-map and would be killed for it. So a READ that ends in an error
// first waits for its pins, as far as they can be sent, and READs of the same block that come soon after it wait
// for no pin at all: where one would be needed they end in an error too, while the pin is on its way.
//
// A READ of a process that is being killed is interrupted, and ends at once. Others who waited for the same page send theirs
// under mmap_lock then. The database is well, and clients acknowledge in milliseconds, so those READs do wait, but for
// a part of the pin timeout only.

const (
	erredLasts = time.Second // how long after an error READs of its block wait for no pin
	maxErred   = 4096        // blocks remembered per domain
)

// errPinsPending is the end of a READ that must not wait.
var errPinsPending = fmt.Errorf("a read of this block has just failed, and a client is still being told of its change: %w", ErrIO)

// erredKey names a block of head, or of a base.
type erredKey struct {
	base zodb.Tid // 0: head
	oid  zodb.Oid
	blk  Blk
}

// erredReads remembers which blocks had READs that ended in an error.
type erredReads struct {
	mu  sync.Mutex
	m   map[erredKey]erred // mu; the last such READ of the block
	all time.Time          // mu; as if every block had one then: there were too many
}

type erred struct {
	when        time.Time
	interrupted bool // it would have ended well
}

// note notes that a READ of the parts of a file ends with err.
func (e *erredReads) note(base zodb.Tid, oid zodb.Oid, parts []part, err error) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.m)+len(parts) > maxErred {
		for key, x := range e.m {
			if now.Sub(x.when) >= erredLasts {
				delete(e.m, key)
			}
		}
	}
	if len(e.m)+len(parts) > maxErred {
		e.all = now
		clear(e.m)
		return
	}
	if e.m == nil {
		e.m = map[erredKey]erred{}
	}
	for _, p := range parts {
		key := erredKey{base, oid, p.blk}
		x := erred{now, errors.Is(err, ErrInterrupted)}
		if old, ok := e.m[key]; ok && x.interrupted && !old.interrupted && now.Sub(old.when) < erredLasts {
			x.interrupted = false
		}
		e.m[key] = x
	}
}

// patience tells how long a READ of a block may wait for pins, given the pin timeout: less than for ever, as its first
// result says, where it may be the repetition of one that ended in an error lately.
func (e *erredReads) patience(base zodb.Tid, oid zodb.Oid, blk Blk, pinTimeout time.Duration) (bounded bool, d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all.IsZero() && len(e.m) == 0 {
		return false, 0
	}
	key := erredKey{base, oid, blk}
	x, ok := e.m[key]
	lately := time.Since(x.when) < erredLasts
	if ok && !lately {
		delete(e.m, key)
	}
	switch {
	case lately && !x.interrupted || time.Since(e.all) < erredLasts:
		return true, 0
	case lately:
		return true, pinTimeout / 4
	}
	return false, 0
}

// pinWait is how long a READ may wait for pins.
type pinWait struct {
	bounded bool
	most    time.Duration
}

// least unites what holds for several blocks.
func (w pinWait) least(bounded bool, most time.Duration) pinWait {
	switch {
	case !bounded:
		return w
	case !w.bounded:
		return pinWait{true, most}
	}
	return pinWait{true, min(w.most, most)}
}

// awaitPins waits for the pins of a READ which ends with err, if that is not nil.
func (c *Core) awaitPins(ctx context.Context, msgs []*pinMsg, err error, wait pinWait) error {
	switch {
	case wait.bounded && (wait.most == 0 || err != nil):
		return errors.Join(err, pinsDone(msgs))
	case wait.bounded:
		soon, done := context.WithTimeout(ctx, wait.most)
		defer done()
		if err = c.waitPins(soon, msgs); err != nil && soon.Err() != nil && ctx.Err() == nil {
			return pinsDone(msgs)
		}
		return err
	case err == nil:
		return c.waitPins(ctx, msgs)
	case errors.Is(err, ErrInterrupted):
		return err
	}
	return errors.Join(err, c.settlePins(ctx, msgs))
}

// pinsDone is waitPins without the wait.
func pinsDone(msgs []*pinMsg) error {
	for _, m := range msgs {
		select {
		case <-m.done:
			if m.err != nil {
				return m.err
			}
		default:
			return errPinsPending
		}
	}
	return nil
}

// settlePins waits for pins on behalf of a READ that ends in an error anyway, but not for those that cannot be sent
// because the database does not answer.
func (c *Core) settlePins(ctx context.Context, msgs []*pinMsg) error {
	for _, m := range msgs {
		select {
		case <-m.done:
			if m.err != nil {
				return m.err
			}
		case <-m.stuck:
		case <-c.ctx.Done():
			return ErrNotConn
		case <-ctx.Done():
			return c.interrupted()
		}
	}
	return nil
}
