package demostorage

import (
	"context"
	"fmt"
	"sync"

	"wcfs/zcore/zodb"
)

// Follow implements zodb.Storage. The base's commits up to the head it is looked at come first, in
// their places among those of the changes; after that only the changes are followed.
func (s *Storage) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	base, wait, err := s.baseCommits(ctx, after, func(err error) { cancel(fmt.Errorf("demo base: %w", err)) })
	if err == nil {
		err = s.follow(ctx, after, base, fn)
	}
	if cause := context.Cause(ctx); zodb.KindOf(cause) == zodb.KindOtherDatabase {
		err = cause
	}
	cancel(nil)
	wait()
	return err
}

// follow is Follow, given the base's commits.
func (s *Storage) follow(ctx context.Context, after zodb.Tid, base []zodb.Commit, fn func(zodb.Commit) error) error {
	pass := func(before zodb.Tid) error {
		for len(base) > 0 && base[0].Tid < before {
			c := base[0]
			base = base[1:]
			if err := fn(c); err != nil {
				return err
			}
		}
		return nil
	}
	// The base's commits after the changes' present head need not wait for a commit.
	head, err := s.changes.Head(ctx)
	if err != nil {
		return err
	}
	if head <= after {
		if err := pass(zodb.TidMax); err != nil {
			return err
		}
	}
	// A storage may refuse to be followed from beyond its end, which the base's head can be.
	return s.changes.Follow(ctx, min(after, s.changesHead), func(c zodb.Commit) error {
		if c.Tid > s.changesHead && c.Tid <= s.baseHead {
			return zodb.OtherDatabase(fmt.Errorf("%s: following: commit %s of the changes is older than the base, which ends at %s: "+
				"is the clock of their writer slow?", s.url, c.Tid, s.baseHead))
		}
		if c.Tid <= after {
			return nil
		}
		if err := pass(c.Tid); err != nil {
			return err
		}
		if len(base) > 0 && base[0].Tid == c.Tid { // one tid, two transactions: all their objects
			c.Oids = union(c.Oids, base[0].Oids)
			base = base[1:]
		}
		if err := fn(c); err != nil {
			return err
		}
		if c.Tid >= head {
			return pass(zodb.TidMax)
		}
		return nil
	})
}

// baseCommits returns the base's commits after a tid, up to the head it is looked at. After that the base goes on being
// followed, to learn when it is another database: failed is called then. wait returns once ctx is done and that has ended.
func (s *Storage) baseCommits(ctx context.Context, after zodb.Tid, failed func(error)) (list []zodb.Commit, wait func(), err error) {
	var wg sync.WaitGroup
	read := make(chan struct{})
	ended := make(chan error, 1)
	all := after >= s.baseHead
	if all {
		close(read)
	}
	wg.Go(func() {
		err := s.base.Follow(ctx, min(after, s.baseHead), func(c zodb.Commit) error {
			if !all && c.Tid <= s.baseHead {
				list = append(list, c)
			}
			if !all && c.Tid >= s.baseHead {
				all = true
				close(read)
			}
			return nil
		})
		if zodb.KindOf(err) == zodb.KindOtherDatabase {
			failed(err)
		}
		ended <- err
	})
	select {
	case <-read:
		return list, wg.Wait, nil
	case err := <-ended:
		return nil, wg.Wait, err
	}
}

func union(a, b []zodb.Oid) []zodb.Oid {
	seen := make(map[zodb.Oid]bool, len(a)+len(b))
	var all []zodb.Oid
	for _, oid := range append(append([]zodb.Oid{}, a...), b...) {
		if !seen[oid] {
			seen[oid] = true
			all = append(all, oid)
		}
	}
	return all
}
