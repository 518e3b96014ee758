// Package memstorage is a ZODB storage in memory, for tests of what stands on a storage.
//
// It owns every revision of every object committed to it, and can be told to fail, to wait and to
// forget: a hook runs before each load, a gap can be reported in place of commits, and following can
// be made to fail. Commits are visible at once and followed live. Pack is told to nobody, as with real
// databases.
//
// Lock order: mu is a leaf; no hook or callback runs under it.
package memstorage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"wcfs/zcore/zodb"
)

// Store is a storage in memory. All methods may be called from many goroutines at once.
type Store struct {
	mu      sync.Mutex
	objs    map[zodb.Oid][]revision // mu; each ascending by tid
	log     []zodb.Commit           // mu; what Follow reports, ascending by tid, never shrinks
	failure error                   // mu; why following fails
	closed  bool                    // mu
	change  chan struct{}           // mu; closed and made anew when log, failure or closed change
	hook    LoadHook                // mu
	loads   int                     // mu; how many LoadAt and SerialAt began
}

// revision is what one commit wrote to one object.
type revision struct {
	tid  zodb.Tid
	data []byte // nil: deleted
}

// LoadHook runs before each LoadAt and SerialAt; it may wait. If it fails the load fails with its error,
// which the hook gives a kind (zodb.Outage, zodb.Answer, ...).
type LoadHook func(ctx context.Context, oid zodb.Oid, at zodb.Tid) error

var (
	_ zodb.Storage      = (*Store)(nil)
	_ zodb.SerialLoader = (*Store)(nil)
	_ zodb.Lister       = (*Store)(nil)
)

var errClosed = zodb.Outage(errors.New("storage is closed"))

// New makes an empty database.
func New() *Store {
	return &Store{objs: map[zodb.Oid][]revision{}, change: make(chan struct{})}
}

// Commit adds a transaction; data nil deletes the object. tid must be above Head. The data is not
// copied: it must not be changed later.
func (s *Store) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	oids := slices.Sorted(maps.Keys(objs))
	return s.commit(tid, objs, oids, false)
}

// CommitGap adds a transaction that Follow reports as a gap: what changed after the commit before it,
// up to tid, is unknown.
func (s *Store) CommitGap(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	return s.commit(tid, objs, nil, true)
}

func (s *Store) commit(tid zodb.Tid, objs map[zodb.Oid][]byte, oids []zodb.Oid, gap bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := zodb.Commit{Tid: tid, Oids: oids}
	if head := s.headLocked(); tid <= head {
		return fmt.Errorf("commit %s: head is %s already", tid, head)
	} else if gap {
		c.Gap = head
	}
	if tid == 0 || tid > zodb.TidMax {
		return fmt.Errorf("commit %s: not a tid", tid)
	}
	for oid, data := range objs {
		s.objs[oid] = append(s.objs[oid], revision{tid, data})
	}
	s.log = append(s.log, c)
	s.changed()
	return nil
}

// SetLoadHook sets what runs before each load, nil for nothing. Loads under way keep the old one.
func (s *Store) SetLoadHook(hook LoadHook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Pack forgets the revisions that are current neither as of tid nor later.
func (s *Store) Pack(tid zodb.Tid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for oid, revs := range s.objs {
		if i := after(revs, tid); i > 1 {
			s.objs[oid] = slices.Clone(revs[i-1:])
		}
	}
}

// FailFollow makes Follow fail with err, now and after every commit so far is reported.
func (s *Store) FailFollow(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
	s.changed()
}

// Loads returns how many loads have begun.
func (s *Store) Loads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

// changed wakes followers. mu must be held.
func (s *Store) changed() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *Store) head() zodb.Tid {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headLocked()
}

// headLocked is head; mu must be held.
func (s *Store) headLocked() zodb.Tid {
	if len(s.log) == 0 {
		return 0
	}
	return s.log[len(s.log)-1].Tid
}

// URL names the storage in errors.
func (s *Store) URL() string { return "memory://" }

// Head returns the last tid committed.
func (s *Store) Head(ctx context.Context) (zodb.Tid, error) { return s.head(), ctx.Err() }

// LoadAt returns the revision of oid as of at.
func (s *Store) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rec, err := s.load(ctx, oid, at)
	if err != nil {
		return zodb.Record{}, &zodb.LoadError{URL: s.URL(), Oid: oid, At: at, Err: err}
	}
	return rec, nil
}

// SerialAt is LoadAt less the data.
func (s *Store) SerialAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial, until zodb.Tid, err error) {
	rec, err := s.LoadAt(ctx, oid, at)
	return rec.Serial, rec.Until, err
}

func (s *Store) load(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	s.mu.Lock()
	hook := s.hook
	s.loads++
	s.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, oid, at); err != nil {
			return zodb.Record{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return zodb.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return zodb.Record{}, errClosed
	}
	revs := s.objs[oid]
	i := after(revs, at)
	rec := zodb.Record{Until: zodb.TidMax}
	if i < len(revs) {
		rec.Until = revs[i].tid
	}
	switch {
	case len(revs) == 0:
		return rec, zodb.ErrNoObject
	case i == 0:
		return rec, zodb.ErrNoData
	case revs[i-1].data == nil:
		return rec, zodb.ErrDeleted
	}
	rec.Data, rec.Serial = revs[i-1].data, revs[i-1].tid
	return rec, nil
}

// after returns the index of the first revision later than at.
func after(revs []revision, at zodb.Tid) int {
	return sort.Search(len(revs), func(i int) bool { return revs[i].tid > at })
}

// Follow reports commits after the given tid, those there are and then those to come. It may be called
// any number of times.
func (s *Store) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	for {
		s.mu.Lock()
		var todo []zodb.Commit
		for i := len(s.log); i > 0 && s.log[i-1].Tid > after; i-- {
			todo = s.log[i-1:]
		}
		change, failure, closed := s.change, s.failure, s.closed
		s.mu.Unlock()

		for _, c := range todo {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(c); err != nil {
				return err
			}
			after = c.Tid
		}
		switch {
		case len(todo) > 0:
			continue
		case failure != nil:
			return fmt.Errorf("%s: follow: %w", s.URL(), failure)
		case closed:
			return fmt.Errorf("%s: follow: %w", s.URL(), errClosed)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-change:
		}
	}
}

// Oids calls fn for every object with data as of at, in ascending order.
func (s *Store) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	s.mu.Lock()
	var oids []zodb.Oid
	for oid, revs := range s.objs {
		if i := after(revs, at); i > 0 && revs[i-1].data != nil {
			oids = append(oids, oid)
		}
	}
	s.mu.Unlock()
	slices.Sort(oids)
	for _, oid := range oids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(oid); err != nil {
			return err
		}
	}
	return nil
}

// Close makes every later load and Follow fail.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed()
	return nil
}

// Changed returns the objects that the commit tid changed.
func (s *Store) Changed(tid zodb.Tid) []zodb.Oid {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.log {
		if c.Tid == tid {
			return c.Oids
		}
	}
	return nil
}
