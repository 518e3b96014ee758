package zcore

import (
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
	c.noteAnswer(err)
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

// noteAnswer notes how a load ended. Bad and missing data are answers too.
func (c *Core) noteAnswer(err error) {
	switch zodb.KindOf(err) {
	case zodb.KindAnswer:
		if c.outage.Load() != 0 && c.outage.Swap(0) != 0 {
			c.vitals.noteOutage(nil)
		}
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

// reachable reports whether the database answers, as far as was seen lately.
func (c *Core) reachable() bool {
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
		c.noteAnswer(err)
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

// waitView waits until the current view has reached tid.
func (c *Core) waitView(ctx context.Context, tid zodb.Tid) error {
	return c.waitMove(ctx, func() (bool, chan struct{}) { return c.view >= tid, c.viewMove })
}

// waitHead waits until tid is announced.
func (c *Core) waitHead(ctx context.Context, tid zodb.Tid) error {
	return c.waitMove(ctx, func() (bool, chan struct{}) { return c.head >= tid, c.headMove })
}

// waitMove waits until there says so; there is called with mu held and also returns what to wait for.
func (c *Core) waitMove(ctx context.Context, there func() (bool, chan struct{})) error {
	for {
		c.mu.Lock()
		ok, moved := there()
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return c.interrupted()
		case <-c.ctx.Done():
			return ErrNotConn
		}
	}
}

// interrupted is the error of a wait whose context ended: of the caller's, or with the core.
func (c *Core) interrupted() error {
	if c.ctx.Err() != nil {
		return ErrNotConn
	}
	return ErrInterrupted
}
