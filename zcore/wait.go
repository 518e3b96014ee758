package zcore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wcfs/zcore/history"
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
	c.log.Error("database failed to answer", "op", what, "oid", oid, "at", at, "cause", err)
	return fmt.Errorf("%s %s@%s: %w: %w", what, oid, at, ErrIO, err)
}

// noteAnswer notes how a load ended. Bad and missing data are answers too.
func (c *Core) noteAnswer(err error) {
	if isAnswer(err) {
		c.outage.Store(0)
		return
	}
	c.outage.Store(time.Now().UnixNano())
}

func isAnswer(err error) bool {
	var bad *zodb.DataError
	var changed *history.FileChanged
	return err == nil || errors.As(err, &bad) || errors.As(err, &changed) || zodb.IsAbsent(err) || errors.Is(err, ErrInvalid)
}

// reachable reports whether the database answers, as far as was seen lately.
func (c *Core) reachable() bool {
	return time.Since(time.Unix(0, c.outage.Load())) > outageLasts
}

// retry runs load again and again, with growing pauses, while the database fails to answer. Bad data
// is no such failure.
func (c *Core) retry(ctx context.Context, what string, load func() error) error {
	pause := 10 * time.Millisecond
	for logged := false; ; logged = true {
		err := load()
		if ctx.Err() != nil {
			return err
		}
		if c.noteAnswer(err); isAnswer(err) {
			return err
		}
		if !logged {
			c.log.Error("database failed to answer; trying again", "op", what, "cause", err)
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
