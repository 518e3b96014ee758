package zcore

import (
	"container/heap"
	"context"
	"fmt"
	"time"

	"wcfs/zcore/zodb"
)

// outageLasts is how long the database counts as unreachable after it failed to answer once.
const outageLasts = 2 * time.Second

// ioError turns a failed load into the error that clients get, and logs what is the database's fault.
func (c *Core) ioError(ctx context.Context, err error, what string, oid zodb.Oid, at zodb.Tid) error {
	switch {
	case c.ctx.Err() != nil:
		return ErrNotConn
	case ctx.Err() != nil:
		return ErrInterrupted
	}
	c.noteFailure(err)
	msg := "object cannot be read"
	if !isAnswer(err) {
		msg = "database failed to answer"
	}
	c.log.Error(msg, "op", what, "oid", oid, "at", at, "cause", err)
	c.vitals.noteLoad(fmt.Errorf("%s %s@%s: %w", what, oid, at, err))
	if isAnswer(err) {
		err = answered{err}
	} else {
		err = fmt.Errorf("%w: %w", ErrIO, err)
	}
	return fmt.Errorf("%s %s@%s: %w", what, oid, at, err)
}

// answered is an ErrIO that does not blame the database.
type answered struct{ error }

func (e answered) Unwrap() error        { return e.error }
func (e answered) Is(target error) bool { return target == ErrIO }

// noteAnswer notes that the database has answered a load. Bad and missing data are answers too, what is in memory is not.
func (c *Core) noteAnswer() {
	if c.outage.Load() != 0 && c.outage.Swap(0) != 0 {
		c.vitals.noteOutage(nil)
	}
}

// noteFailure notes what a failed load says of the database.
func (c *Core) noteFailure(err error) {
	switch zodb.KindOf(err) {
	case zodb.KindOutage:
		c.outage.Store(time.Now().UnixNano())
		c.vitals.noteOutage(err)
	case zodb.KindOtherDatabase:
		c.fail(err)
	}
}

// isAnswer tells whether an error is about one object only. One of unknown kind never counts as an outage.
func isAnswer(err error) bool {
	k := zodb.KindOf(err)
	return k == zodb.KindAnswer || k == zodb.Unknown
}

// reachable reports whether the database answers, as far as its driver knows and was seen lately: a load may take long to fail.
func (c *Core) reachable() bool {
	if d, ok := c.stor.(zodb.Connector); ok {
		if conn, ok := d.Connectivity(); ok && !conn.Connected {
			return false
		}
	}
	return time.Since(time.Unix(0, c.outage.Load())) > outageLasts
}

// unknownTries is how often in all a load is tried whose errors are of no known kind.
const unknownTries = 5

// retry runs load again and again, with growing pauses, in an outage. It returns once the database has
// answered, be it with an error, or is another one. Errors of unknown kind are final after a few tries.
func (c *Core) retry(ctx context.Context, what string, load func() error) error {
	pause := 10 * time.Millisecond
	logged := false
	for unknown := 0; ; {
		err := load()
		if ctx.Err() != nil {
			return err
		}
		c.noteFailure(err)
		switch zodb.KindOf(err) {
		case zodb.KindOutage:
			if !logged {
				logged = true
				c.log.Error("database failed to answer; trying again", "op", what, "cause", err)
			}
		case zodb.Unknown:
			if unknown++; unknown == unknownTries {
				c.log.Error("taken for an answer: an error that the storage driver gave no kind", "op", what, "cause", err)
				return err
			}
		default:
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waits are those who wait for a tid to be reached, the first to go on in front. A move costs nothing for the others.
type waits []*waiter

type waiter struct {
	tid   zodb.Tid
	index int           // in waits; -1 when it is not there any more
	there chan struct{} // closed when tid is reached
}

func (w waits) Len() int           { return len(w) }
func (w waits) Less(i, j int) bool { return w[i].tid < w[j].tid }
func (w waits) Swap(i, j int)      { w[i], w[j] = w[j], w[i]; w[i].index, w[j].index = i, j }
func (w *waits) Push(x any)        { x.(*waiter).index = len(*w); *w = append(*w, x.(*waiter)) }
func (w *waits) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = nil
	*w, x.index = (*w)[:last], -1
	return x
}

// reached lets go on who waits for tid or less.
func (w *waits) reached(tid zodb.Tid) {
	for len(*w) > 0 && (*w)[0].tid <= tid {
		close(heap.Pop(w).(*waiter).there)
	}
}

// waitView waits until the current view has reached tid.
func (c *Core) waitView(ctx context.Context, tid zodb.Tid) error {
	return c.waitFor(ctx, &c.view, &c.viewWaits, tid)
}

// waitHead waits until tid is announced.
func (c *Core) waitHead(ctx context.Context, tid zodb.Tid) error {
	return c.waitFor(ctx, &c.head, &c.headWaits, tid)
}

// waitFor waits until now, guarded by mu, has reached tid.
func (c *Core) waitFor(ctx context.Context, now *zodb.Tid, ws *waits, tid zodb.Tid) error {
	c.mu.Lock()
	if *now >= tid {
		c.mu.Unlock()
		return nil
	}
	w := &waiter{tid: tid, there: make(chan struct{})}
	heap.Push(ws, w)
	c.mu.Unlock()
	select {
	case <-w.there:
		return nil
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.index >= 0 {
		heap.Remove(ws, w.index)
	}
	return c.interrupted()
}

// interrupted is the error of a wait whose context ended: of the caller's, or with the core.
func (c *Core) interrupted() error {
	if c.ctx.Err() != nil {
		return ErrNotConn
	}
	return ErrInterrupted
}
