package neo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// Follow implements zodb.Storage.
func (s *Storage) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	s.mu.Lock()
	again := s.following
	s.following = true
	s.mu.Unlock()
	if again {
		return fmt.Errorf("%s: it is followed already", s.place.normal)
	}
	f := &follower{s: s, done: after, fn: fn}
	err := f.run(ctx)
	switch {
	case f.fnErr != nil:
		return f.fnErr
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%s: following: %w", s.place.normal, kind(err))
}

// follower is what one call of Follow knows. One goroutine uses it, but for the questions it asks.
type follower struct {
	s     *Storage
	fn    func(zodb.Commit) error
	done  zodb.Tid // up to here all is reported
	fnErr error    // what fn returned
}

func (f *follower) run(ctx context.Context) error {
	var x *session
	for {
		next, err := f.s.session(ctx, x)
		if err != nil {
			return err
		}
		x = next
		if err := f.through(ctx, x); err != nil {
			if f.fnErr != nil || ctx.Err() != nil || zodb.KindOf(err) == zodb.KindOtherDatabase {
				return err
			}
			if x.c.cause() == nil {
				// The cluster did not answer what must be known. Another session begins where this one ends.
				x.c.die(fmt.Errorf("following: %w", err))
			}
		}
	}
}

// through reports what one session brings, until it is lost.
func (f *follower) through(ctx context.Context, x *session) error {
	x.mu.Lock()
	n := news{missing: x.from}
	exact := x.from == x.base
	x.mu.Unlock()
	if f.done > n.missing {
		// The tid to begin after may have come from Head, ahead of what this session began with.
		head, err := x.current(ctx)
		if err != nil {
			return err
		}
		if f.done > head {
			return fmt.Errorf("%w: its last transaction is %s, and it is followed from %s", ErrOtherDatabase, head, f.done)
		}
	}
	for {
		if err := f.catchUp(ctx, x, n, exact); err != nil {
			return err
		}
		var err error
		if n, err = f.drain(ctx, x); err != nil || n.missing == 0 {
			return err
		}
		exact = true
	}
}

// drain reports the commits that the master tells of. It returns when there are more that have to be asked for, or
// the session is lost.
func (f *follower) drain(ctx context.Context, x *session) (news, error) {
	for {
		n := x.take()
		if len(n.commits) == 0 && n.missing == 0 {
			select {
			case <-x.wake:
				continue
			case <-ctx.Done():
				return n, ctx.Err()
			case <-x.c.done:
			}
			// What was queued before the end is in order; what is queued from now on, the next session asks for.
			if n = x.take(); len(n.commits) == 0 {
				return news{}, nil
			}
		}
		if err := f.queued(ctx, x, n.commits); err != nil {
			return n, err
		}
		if n.missing != 0 {
			return n, nil
		}
	}
}

// together is how many commits are asked about at once.
const together = 32

// queued reports commits that the master told of.
func (f *follower) queued(ctx context.Context, x *session, commits []zodb.Commit) error {
	for len(commits) > 0 {
		part := commits[:min(len(commits), together)]
		commits = commits[len(part):]
		if x.c.gen == packed {
			err := f.complete(ctx, part)
			if unknowable(err) {
				err = f.unknown(part[len(part)-1].Tid, err)
			}
			if err != nil {
				return err
			}
		}
		for _, cm := range part {
			if err := f.report(cm); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete adds the objects that commits deleted: protocol 5 does not name them.
func (f *follower) complete(ctx context.Context, commits []zodb.Commit) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range commits {
		cm := &commits[i]
		if cm.Tid <= f.done {
			continue
		}
		g.Go(func() error {
			oids, err := f.objectsOf(ctx, cm.Tid)
			if err != nil {
				return err
			}
			var more []zodb.Oid
			for _, oid := range oids {
				if _, named := slices.BinarySearch(cm.Oids, oid); named {
					continue
				}
				wrote, err := f.wrote(ctx, oid, cm.Tid)
				if err != nil {
					return err
				}
				if wrote {
					more = append(more, oid)
				}
			}
			cm.Oids = append(cm.Oids, more...)
			return nil
		})
	}
	return g.Wait()
}

// objectsOf asks which objects a transaction is about: those it only checked are among them. The storage may
// not have made the end of the transaction its own yet, which the master tells it when it tells us.
func (f *follower) objectsOf(ctx context.Context, tid zodb.Tid) ([]zodb.Oid, error) {
	for end := time.Now().Add(f.s.opt.Timeout); ; sleep(ctx, 5*time.Millisecond) {
		m, err := f.s.ask(ctx, uint64(tid), &askTransaction{tid}, func(m message) error {
			if got := m.(*answerTransaction).tid; got != tid {
				return badAnswer("transaction %s for %s", got, tid)
			}
			return nil
		})
		if codeIs(err, codeTIDNotFound) && ctx.Err() == nil && time.Now().Before(end) {
			continue
		}
		if err != nil {
			return nil, err
		}
		oids := m.(*answerTransaction).oids
		slices.Sort(oids)
		return slices.Compact(oids), nil
	}
}

// wrote tells whether a transaction that names an object made a revision of it, or only checked it. A revision that is
// not there may have been packed away; then there is none before it either.
func (f *follower) wrote(ctx context.Context, oid zodb.Oid, tid zodb.Tid) (bool, error) {
	for _, q := range []struct {
		req   *askObject
		found bool
	}{
		{&askObject{oid: oid, at: tid, before: none}, true},
		{&askObject{oid: oid, at: none, before: tid}, false},
	} {
		_, err := f.s.ask(ctx, uint64(oid), q.req, nil)
		if err == nil {
			return q.found, nil
		}
		if !codeIs(err, codeOIDNotFound, codeOIDDoesNotExist) {
			return false, err
		}
	}
	return true, nil
}

// report passes a commit on that was not before.
func (f *follower) report(cm zodb.Commit) error {
	if cm.Tid <= f.done {
		return nil
	}
	f.s.tell(cm.Tid)
	if err := f.fn(cm); err != nil {
		f.fnErr = err
		return err
	}
	f.done = cm.Tid
	return nil
}

// catchUp reports the commits in (done, n.missing]. If exact, the cluster was at n.missing, be it a transaction or not.
func (f *follower) catchUp(ctx context.Context, x *session, n news, exact bool) error {
	if f.done >= n.missing {
		return nil
	}
	g := &gap{f: f, x: x, from: f.done, to: n.missing}
	err := g.list(ctx, n.recent)
	if err == nil {
		err = g.report(ctx)
	}
	if unknowable(err) {
		return f.unknown(n.missing, err)
	}
	if err == nil && exact {
		err = f.report(zodb.Commit{Tid: n.missing}) // unless it was a transaction
	}
	return err
}

// unknowable tells whether err says that what is asked for will not be answered.
func unknowable(err error) bool {
	return err != nil && (errors.Is(err, errUnknown) || zodb.KindOf(kind(err)) == zodb.KindAnswer)
}

// unknown reports that it is not known what was committed up to tid.
func (f *follower) unknown(tid zodb.Tid, why error) error {
	if tid <= f.done {
		return nil
	}
	f.s.opt.Log.Warn("what was committed cannot be found out, all is compared", "url", f.s.place.normal,
		"after", f.done, "to", tid, "cause", why)
	// A gap from 0 would say that it is none; no commit has tid 1.
	return f.report(zodb.Commit{Tid: tid, Gap: max(f.done, 1)})
}
