package zeo

import (
	"context"
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
)

// Follow implements zodb.Storage.
func (s *Storage) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	s.mu.Lock()
	again := s.following
	s.following = true
	s.mu.Unlock()
	if again {
		return fmt.Errorf("%s: it is followed already", s.url)
	}
	f := &follower{s: s, done: after, seen: s.settled(after), fn: fn}
	err := f.run(ctx)
	switch {
	case f.fnErr != nil:
		return f.fnErr
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%s: following: %w", s.url, err)
}

// follower is what one call of Follow knows. One goroutine uses it.
type follower struct {
	s     *Storage
	fn    func(zodb.Commit) error
	done  zodb.Tid // up to here all is reported
	seen  zodb.Tid // the last transaction up to done; less than done if that is a phantom
	fnErr error    // what fn returned
	gap   *gap     // after done, being found out about; nil for none
}

func (f *follower) run(ctx context.Context) error {
	var c *conn
	for {
		next, err := f.s.connection(ctx, c)
		if err != nil {
			return err
		}
		c = next
		if err := f.through(ctx, c); err != nil {
			return err
		}
	}
}

// through reports what one connection brings, until it is lost: then it returns nil.
func (f *follower) through(ctx context.Context, c *conn) error {
	to := c.base
	if f.done > f.seen {
		there, err := anyIn(ctx, c, f.seen+1, f.done)
		if err == nil && there {
			err = f.backwards()
		}
		if err != nil {
			return ifLost(err)
		}
	} else if f.done > to {
		// The tid to begin after may have come from Head, ahead of what this connection was told.
		head, err := f.head(ctx, c)
		if err != nil {
			return ifLost(err)
		}
		if f.done > head {
			return fmt.Errorf("%w: its last transaction is %s, and it is followed from %s", ErrOtherDatabase, head, f.done)
		}
	}
	for {
		if err := f.catchUp(ctx, c, to); err != nil {
			return ifLost(err)
		}
		missing, err := f.drain(ctx, c)
		if err != nil || missing == 0 {
			return ifLost(err)
		}
		to = missing
	}
}

// ifLost makes nothing of the loss of a connection: the next one closes the gap.
func ifLost(err error) error {
	var lost *lostError
	if errors.As(err, &lost) {
		return nil
	}
	return err
}

// catchUp reports the commits in (done, to].
func (f *follower) catchUp(ctx context.Context, c *conn, to zodb.Tid) error {
	for f.done < to {
		if f.gap == nil {
			f.gap = &gap{from: f.done, to: to}
		}
		commits, err := f.gap.commits(ctx, c)
		if err != nil {
			return err
		}
		if f.gap.phantom {
			err = f.tell(zodb.Commit{Tid: f.gap.to})
		} else {
			err = f.report(commits)
		}
		f.gap = nil
		if err != nil {
			return err
		}
	}
	return nil
}

// drain reports the commits that the server tells of. When some were not queued it returns up to
// which one they have to be asked for; 0 when the connection is lost.
func (f *follower) drain(ctx context.Context, c *conn) (missing zodb.Tid, err error) {
	for {
		commits, missing := c.take()
		if len(commits) == 0 && missing == 0 {
			select {
			case <-c.wake:
				continue
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-c.done:
			}
			// What was queued before the end is in order; what is queued from now on, the next
			// connection asks for.
			if commits, _ = c.take(); len(commits) == 0 {
				return 0, nil
			}
		}
		for i := range commits {
			if err := f.queued(ctx, c, commits[i:i+1]); err != nil {
				return 0, err
			}
		}
		if missing != 0 {
			return missing, nil
		}
	}
}

// queued reports one commit that the server told of.
func (f *follower) queued(ctx context.Context, c *conn, commit []zodb.Commit) error {
	switch tid := commit[0].Tid; {
	case tid <= f.seen:
		return nil
	case tid <= f.done:
		return f.backwards()
	}
	if err := fill(ctx, c, commit); err != nil && !isServerError(err) {
		return err
	}
	return f.report(commit)
}

// backwards is what following ends with when something was committed behind what is reported.
func (f *follower) backwards() error {
	return fmt.Errorf("%w: there are transactions after %s and before %s, where it had none; did its clock go back?",
		ErrOtherDatabase, f.seen, f.done)
}

// report passes commits on that were not before.
func (f *follower) report(commits []zodb.Commit) error {
	for _, cm := range commits {
		if cm.Tid <= f.done {
			continue
		}
		f.s.know(cm.Tid)
		f.seen = f.s.settled(cm.Tid)
		if err := f.tell(cm); err != nil {
			return err
		}
	}
	return nil
}

// tell passes one on.
func (f *follower) tell(cm zodb.Commit) error {
	if err := f.fn(cm); err != nil {
		f.fnErr = err
		return err
	}
	f.done = cm.Tid
	return nil
}

// head asks for the server's last transaction.
func (f *follower) head(ctx context.Context, c *conn) (zodb.Tid, error) {
	v, err := c.call(ctx, "lastTransaction")
	if err != nil {
		return 0, err
	}
	tid, ok := asTid(v)
	if !ok {
		return 0, badReply("lastTransaction", v)
	}
	return tid, nil
}
