package relstorage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

// followBatch is how many transactions are read at a time.
const followBatch = 1000

// follower is the state of Follow; it belongs to the goroutine that runs it.
type follower struct {
	s     *Storage
	fn    func(zodb.Commit) error
	last  zodb.Tid // newest reported, or where following began
	audit audit
	fnErr error // what fn returned
}

// Follow implements zodb.Storage.
func (s *Storage) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	if !s.following.CompareAndSwap(false, true) {
		return errors.New("relstorage: Follow was called twice")
	}
	fctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	f := &follower{s: s, fn: fn, last: after, audit: newAudit(after)}
	f.audit.sure = after == zodb.Tid(s.head.Load()) // then Head has told it
	for wait := backoff(0); ; wait = wait.next() {
		began := time.Now()
		err := f.session(fctx)
		switch {
		case f.fnErr != nil:
			return f.fnErr
		case ctx.Err() != nil:
			return ctx.Err()
		case s.ctx.Err() != nil:
			return ErrClosed
		case s.kind(err) != zodb.KindOutage:
			return fmt.Errorf("%s: follow: %w", s.url, s.mark(err))
		}
		s.outage(err)
		if time.Since(began) > time.Second {
			wait = 0
		}
		wait.sleep(fctx)
	}
}

// session follows over one connection until something fails.
func (f *follower) session(ctx context.Context) error {
	ses, err := f.s.db.session(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	f.audit.resume()
	for {
		began := time.Now()
		if err := f.poll(ctx, ses); err != nil {
			return err
		}
		f.s.outage(nil)
		sleep(ctx, f.s.opt.Poll-time.Since(began))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// poll reports what is new.
func (f *follower) poll(ctx context.Context, ses session) error {
	if err := f.audit.look(ctx, ses); err != nil {
		return err
	}
	upto, err := f.s.settle(ctx, ses, f.last)
	if err == nil && f.last < upto {
		err = f.audit.beforeMore(ctx, ses, f.last)
	}
	for err == nil && f.last < upto {
		var txns []transaction
		txns, err = ses.transactions(ctx, f.last, upto, followBatch)
		if err == nil && len(txns) == 0 {
			return nil // packed away meanwhile, every one
		}
		if err == nil {
			err = f.report(txns)
		}
	}
	return err
}

// report hands transactions on. Rows of a packed one may be gone: which objects changed up to the last
// packed one is not known then. (From the very beginning there is no gap to tell of: what is gone was
// never seen by anybody.)
func (f *follower) report(txns []transaction) error {
	if i := lastPacked(txns); i >= 0 && f.last > 0 {
		if err := f.emit(zodb.Commit{Tid: txns[i].tid, Gap: f.last}); err != nil {
			return err
		}
		txns = txns[i+1:]
	}
	for _, t := range txns {
		slices.Sort(t.oids)
		if err := f.emit(zodb.Commit{Tid: t.tid, Oids: slices.Compact(t.oids)}); err != nil {
			return err
		}
	}
	return nil
}

func lastPacked(txns []transaction) int {
	for i := len(txns) - 1; i >= 0; i-- {
		if txns[i].packed {
			return i
		}
	}
	return -1
}

func (f *follower) emit(c zodb.Commit) error {
	f.s.advance(c.Tid)
	if err := f.fn(c); err != nil {
		f.fnErr = err
		return err
	}
	f.last = c.Tid
	f.audit.add(c)
	return nil
}
