package filestorage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// notify starts to watch the directory of the data file (a pack replaces the file, so watching the file would
// not do). The channel gets a value after a change; unwatch ends it. Without notifications the tick alone must
// do.
func (s *Storage) notify() (poke <-chan struct{}, unwatch func()) {
	ch := make(chan struct{}, 1)
	w, err := fsnotify.NewWatcher()
	if err != nil {
		s.opt.Log.Warn("no file notifications, commits are seen by the tick only", "reason", err)
		return ch, func() {}
	}
	names := map[string]bool{s.path: true}
	if real, err := filepath.EvalSymlinks(s.path); err == nil {
		names[real] = true
	}
	for name := range names {
		if err := w.Add(filepath.Dir(name)); err != nil {
			s.opt.Log.Warn("no file notifications, commits are seen by the tick only", "file", name, "reason", err)
		}
	}
	go func() {
		for {
			select {
			case ev, ok := <-w.Events:
				if !ok {
					return
				}
				if !names[ev.Name] {
					continue
				}
			case _, ok := <-w.Errors: // the queue overflowed: anything may have happened
				if !ok {
					return
				}
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch, func() { w.Close() }
}

// watch keeps the storage up to date until ctx is done or following has failed for opt.Grace.
func (s *Storage) watch(ctx context.Context, poke <-chan struct{}) {
	tick := time.NewTicker(s.opt.Tick)
	defer tick.Stop()
	var failing time.Time // since when all attempts failed, zero: the last one did not
	for {
		err := s.advance(ctx)
		switch {
		case err == nil || errors.Is(err, errGrowing):
			failing = time.Time{}
		case ctx.Err() != nil:
			return
		case zodb.KindOf(err) != zodb.KindOtherDatabase && failing.IsZero():
			failing = time.Now()
		case zodb.KindOf(err) == zodb.KindOtherDatabase || time.Since(failing) > s.opt.Grace:
			s.mu.Lock()
			s.failed = fmt.Errorf("%s: follow: %w", s.url, err)
			s.broadcast()
			s.mu.Unlock()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-poke:
		case <-tick.C:
		}
	}
}

// advance reads what was appended, and goes over to another file if one was put in place.
func (s *Storage) advance(ctx context.Context) error {
	f := s.cur // only this goroutine changes it
	err := s.tail(ctx, f)
	st, serr := os.Stat(s.path)
	switch {
	case errors.Is(serr, fs.ErrNotExist): // a pack renames twice; or somebody moved the file away for now
		return err
	case serr != nil:
		return serr
	case os.SameFile(st, f.stat):
		return err
	}
	if err != nil && zodb.KindOf(err) == zodb.KindOtherDatabase {
		return err
	}
	s.tail(ctx, f) // its last commits; where this fails, the new file has them
	next, err := openData(ctx, s.path, s.opt)
	if err != nil {
		return fmt.Errorf("the file was replaced: %w", err)
	}
	if err := s.goesOn(ctx, f, next); err != nil {
		next.release()
		return fmt.Errorf("the file was replaced: %w", err)
	}
	next.acquire() // for f.next
	s.mu.Lock()
	f.next, s.cur = next, next
	s.head = max(s.head, next.last) // a pack may drop the last transaction
	s.broadcast()
	s.mu.Unlock()
	f.release()
	s.opt.Log.Info("the file was replaced, as by a pack", "file", s.path)
	return nil
}

// tail reads the complete transactions at the end of f.
func (s *Storage) tail(ctx context.Context, f *dataFile) error {
	sc := newScanner(f.f)
	for ctx.Err() == nil {
		t, err := sc.txn(f.end) // only this goroutine changes end
		if bad := f.check(true); bad != nil {
			return bad
		}
		if err == errIncomplete {
			s.lookCut()
			return nil
		}
		if err != nil {
			return err
		}
		if t.Tid > f.last && t.Tid <= s.phantom {
			return zodb.OtherDatabase(fmt.Errorf("transaction %s comes after %s, which was the last for a Python process that began "+
				"in between: did its clock go back? restart wcfs", t.Tid, s.phantom))
		}
		s.mu.Lock()
		if err = f.apply(t); err == nil {
			s.head = max(s.head, f.last)
			s.broadcast()
		}
		s.mu.Unlock()
		if err == nil {
			err = f.takeMark(&t.TxnHeader)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// lookCut takes note of what a Python process has cut off, and has head reach its tid. The watcher calls it, or Open.
func (s *Storage) lookCut() {
	lock, err := os.Stat(s.path + ".lock")
	if err != nil {
		lock = nil
	}
	f := s.cur
	tid := s.cut.tid(func(n int) (fs.File, error) { return os.Open(fmt.Sprintf("%s.tr%d", s.path, n)) }, lock, f.last, f.end)
	if tid <= s.phantom {
		return
	}
	s.mu.Lock()
	s.phantom, s.head = tid, max(s.head, tid)
	s.broadcast()
	s.mu.Unlock()
	s.opt.Log.Warn("the last transaction is none: its writer was killed in the middle of it", "file", s.path, "told", tid, "last", f.last)
}

// cursor is how far Follow is.
type cursor struct {
	f    *dataFile // owns a reference
	pos  int64     // of the next transaction to report, 0: to be found by last
	last zodb.Tid  // everything up to here was reported, or not wanted
	sc   *scanner
}

// Follow implements zodb.Storage. Transactions that were packed since the last one reported are
// reported as a gap, since a pack may have dropped transactions among them.
func (s *Storage) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	if s.followed.Swap(true) {
		return fmt.Errorf("%s: follow: it was called before", s.url)
	}
	v, err := s.view(0)
	if err != nil {
		return fmt.Errorf("%s: follow: %w", s.url, err)
	}
	c := &cursor{f: v.f, last: after, sc: newScanner(v.f.f)}
	defer func() { c.f.release() }()
	for {
		if err := s.check(ctx); err != nil {
			return err
		}
		s.mu.RLock()
		end, next, changed, failed, phantom := c.f.end, c.f.next, s.changed, s.failed, s.phantom
		s.mu.RUnlock()
		if err := s.report(ctx, c, end, fn); err != nil {
			return err
		}
		if phantom > c.last && next == nil {
			c.last = phantom
			if err := fn(zodb.Commit{Tid: phantom}); err != nil {
				return err
			}
		}
		switch {
		case next != nil:
			next.acquire()
			c.f.release()
			c.f, c.pos, c.sc = next, 0, newScanner(next.f)
			continue
		case failed != nil:
			return failed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// report reports what is before end in the cursor's file.
func (s *Storage) report(ctx context.Context, c *cursor, end int64, fn func(zodb.Commit) error) error {
	var err error
	if c.pos == 0 && c.last < c.f.high { // transactions are not in the order of their tids
		c.pos = c.f.start
		if since := c.last; since < c.f.opened {
			c.last = c.f.opened
			if err := fn(zodb.Commit{Tid: c.last, Gap: max(since, 1)}); err != nil {
				return err
			}
		}
	}
	if c.pos == 0 {
		c.pos, err = c.f.locate(ctx, c.last, end)
		if bad := c.f.check(false); bad != nil {
			err = bad
		}
		if err != nil {
			return fmt.Errorf("%s: follow: %w", s.url, err)
		}
	}
	var gap zodb.Commit // not reported yet if its Tid is not 0
	for c.pos < end {
		if err := s.check(ctx); err != nil {
			return err
		}
		t, err := c.sc.txn(c.pos)
		if bad := c.f.check(false); bad != nil {
			err = bad
		}
		if err == errIncomplete {
			err = damage(c.pos, "a transaction that was there is cut off")
		}
		if err != nil {
			return fmt.Errorf("%s: follow: %w", s.url, err)
		}
		c.pos = t.end
		if t.Tid <= c.last {
			continue
		}
		since := c.last
		c.last = t.Tid
		if t.Status == fsformat.Packed {
			if gap.Tid == 0 {
				gap.Gap = max(since, 1)
			}
			gap.Tid = t.Tid
			continue
		}
		if gap.Tid != 0 {
			if err := fn(gap); err != nil {
				return err
			}
			gap.Tid = 0
		}
		com := t.commit()
		if since < c.f.high {
			com = zodb.Commit{Tid: t.Tid, Gap: max(since, 1)}
		}
		if err := fn(com); err != nil {
			return err
		}
	}
	if gap.Tid != 0 {
		return fn(gap)
	}
	return nil
}

// check says whether Follow must end.
func (s *Storage) check(ctx context.Context) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return fmt.Errorf("%s: follow: %w", s.url, ErrClosed)
	}
	return ctx.Err()
}

func (t *txn) commit() zodb.Commit {
	oids := make([]zodb.Oid, len(t.recs))
	for i, r := range t.recs {
		oids[i] = r.oid
	}
	slices.Sort(oids)
	return zodb.Commit{Tid: t.Tid, Oids: slices.Compact(oids)}
}

// quiet is for how long a file put in place must not have been written to before it counts as all there. A copy that is
// still being written may be cut anywhere.
const quiet = 700 * time.Millisecond

// errGrowing says that a file that was put in place does not go on where the old one ended, and is being written.
var errGrowing = errors.New("it is being written")

// goesOn says whether next goes on where f ended. While next is being written, one that does not may yet come to do so;
// afterwards that is final.
func (s *Storage) goesOn(ctx context.Context, f, next *dataFile) error {
	err := sameDatabase(ctx, f, next)
	if err == nil && s.phantom > f.last {
		err = s.passesPhantom(ctx, f, next)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	st, serr := next.f.Stat()
	if serr != nil {
		return readError(0, serr)
	}
	if age := time.Since(st.ModTime()); next.last < f.last && age >= 0 && age < quiet {
		return errGrowing
	}
	return zodb.OtherDatabase(fmt.Errorf("%s: %w", s.path, err))
}

// passesPhantom checks that next has nothing at or before what counted as the last transaction.
func (s *Storage) passesPhantom(ctx context.Context, f, next *dataFile) error {
	pos, err := next.locate(ctx, f.last, next.end)
	if err != nil || pos >= next.end {
		return err
	}
	h, err := newScanner(next.f).header(pos)
	if err == nil && h.Tid <= s.phantom {
		err = fmt.Errorf("transaction %s comes after %s, which was the last one", h.Tid, s.phantom)
	}
	return err
}

// sameDatabase says whether next goes on where f ended: a pack keeps the current revision of every
// object that is still in use. Otherwise the file is another database, or a backup from before.
func sameDatabase(ctx context.Context, f, next *dataFile) error {
	oids := []zodb.Oid{0}
	for _, e := range f.index.Sample(64) {
		oids = append(oids, e.Oid)
	}
	if t, err := f.before(f.end); err == nil {
		recs, _ := newScanner(f.f).records(t) // what can't be read is not compared
		for _, r := range recs {
			oids = append(oids, r.oid)
		}
	}
	kept := 0
	for _, oid := range oids {
		was, _, _, err := view{f, oid, f.index.Get(oid), f.end}.find(ctx, zodb.TidMax)
		if err != nil {
			continue
		}
		is, _, _, err := view{next, oid, next.index.Get(oid), next.end}.find(ctx, f.last)
		switch {
		case zodb.IsAbsent(err): // garbage, or packed together with later changes
			continue
		case err != nil:
			return err
		case is.Tid != was.Tid:
			return fmt.Errorf("it is not this database gone on: object %s was last changed at %s, and there at %s; "+
				"restart the server if it was restored from a backup", oid, was.Tid, is.Tid)
		}
		kept++
	}
	if kept == 0 && f.last != 0 {
		return errors.New("it is another database: it has none of the objects; restart the server if that is meant")
	}
	return nil
}
