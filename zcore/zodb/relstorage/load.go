package relstorage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// LoadAt implements zodb.Storage.
func (s *Storage) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rev, err := s.load(ctx, oid, at, true)
	if err != nil {
		return zodb.Record{}, s.loadError(oid, at, err)
	}
	data, err := record.Decompress(rev.data)
	if err != nil {
		err = &zodb.DataError{Oid: oid, Serial: rev.serial, Pos: -1, Err: err}
		return zodb.Record{}, s.loadError(oid, at, err)
	}
	return zodb.Record{Data: data, Serial: rev.serial, Until: rev.until}, nil
}

// SerialAt implements zodb.SerialLoader.
func (s *Storage) SerialAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial, until zodb.Tid, err error) {
	rev, err := s.load(ctx, oid, at, false)
	if err != nil {
		return 0, 0, s.loadError(oid, at, err)
	}
	return rev.serial, rev.until, nil
}

func (s *Storage) loadError(oid zodb.Oid, at zodb.Tid, err error) error {
	return &zodb.LoadError{URL: s.url, Oid: oid, At: at, Err: err}
}

// load finds a revision that has data.
func (s *Storage) load(ctx context.Context, oid zodb.Oid, at zodb.Tid, data bool) (revision, error) {
	if oid > 1<<63-1 { // a BIGINT cannot hold it
		return revision{}, zodb.ErrNoObject
	}
	at = min(at, zodb.TidMax)
	var rev revision
	err := s.retry(ctx, func(ctx context.Context) (err error) {
		// Nobody was told of anything past head, so a server need not know more than that.
		rev, err = s.db.revision(ctx, oid, at, min(at, zodb.Tid(s.head.Load())), data)
		if err == nil && rev.lost != 0 {
			err = s.withSession(ctx, func(ses session) error { return gone(ctx, ses, rev.lost) })
		}
		return err
	})
	switch {
	case err != nil:
		return revision{}, err
	case !rev.found && rev.exists:
		return revision{}, s.noData(ctx, oid, at)
	case !rev.found:
		return revision{}, zodb.ErrNoObject
	case rev.null:
		return revision{}, zodb.ErrDeleted
	case rev.size > record.MaxSize:
		return revision{}, &zodb.DataError{Oid: oid, Serial: rev.serial, Pos: -1,
			Msg: fmt.Sprintf("record of %d bytes is too long", rev.size)}
	}
	// A tid past head is not settled: a lower one may still appear.
	if rev.until > zodb.Tid(s.head.Load()) {
		rev.until = zodb.TidMax
	}
	return rev, nil
}

// noData tells an object that did not exist yet from a revision that a pack removed.
func (s *Storage) noData(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
	var pack zodb.Tid
	err := s.retry(ctx, func(ctx context.Context) error {
		return s.withSession(ctx, func(ses session) (err error) {
			pack, err = ses.packedAt(ctx, at)
			return err
		})
	})
	if err != nil {
		return err
	}
	if pack == 0 {
		return zodb.ErrNoData
	}
	s.mu.Lock()
	first := pack > s.packed
	s.packed = max(s.packed, pack)
	s.mu.Unlock()
	if first {
		s.opt.Log.Warn("database was packed: revisions before the pack may be gone",
			"url", s.url, "packed", pack.String(), "oid", oid.String(), "at", at.String())
	}
	return fmt.Errorf("%w: the database is packed up to %s", zodb.ErrNoData, pack)
}

func (s *Storage) withSession(ctx context.Context, fn func(session) error) error {
	ses, err := s.db.session(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	return fn(ses)
}

// retry runs op until it succeeds, fails for a reason that trying again cannot mend, ctx is done, the
// storage is closed or Timeout has passed.
func (s *Storage) retry(ctx context.Context, op func(context.Context) error) error {
	rctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var last error
	for wait := backoff(0); ; wait = wait.next() {
		err := op(rctx)
		if err == nil {
			s.outage(nil)
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.ctx.Err() != nil:
			return ErrClosed
		case rctx.Err() != nil:
			if last == nil {
				last = err
			}
			return zodb.Outage(fmt.Errorf("no answer within %s: %w", s.opt.Timeout, last))
		case s.kind(err) != zodb.KindOutage:
			return s.mark(err)
		}
		last = err
		if !errors.Is(err, ErrBehind) {
			s.outage(err)
		}
		wait.sleep(rctx)
	}
}

// kind is that of an error of the database, or its mark.
func (s *Storage) kind(err error) zodb.Kind {
	if k := zodb.KindOf(err); k != zodb.Unknown {
		return k
	}
	return s.db.kind(err)
}

// mark gives an error its kind.
func (s *Storage) mark(err error) error {
	switch s.kind(err) {
	case zodb.KindAnswer:
		return zodb.Answer(err)
	case zodb.KindOtherDatabase:
		if zodb.KindOf(err) == zodb.KindOtherDatabase { // it says more already
			return err
		}
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return zodb.Outage(err)
}

// outageLog is how long the database must be failing before the log says so: a connection that broke
// while another can be made is no news.
const outageLog = 200 * time.Millisecond

// outage notes a failure (err) or a success (nil), and logs the beginning and the end of an outage once.
func (s *Storage) outage(err error) {
	now := time.Now()
	s.mu.Lock()
	switch {
	case err == nil:
		s.failing = time.Time{}
	case s.failing.IsZero():
		s.failing = now
	}
	lost := err != nil && (s.lost || now.Sub(s.failing) > outageLog)
	changed := lost != s.lost
	switch {
	case changed && lost:
		s.losses++
	case changed:
		s.back = now
	}
	s.lost, s.lostErr = lost, err
	s.mu.Unlock()
	switch {
	case changed && lost:
		s.opt.Log.Warn("database does not answer; trying again", "url", s.url, "err", err)
	case changed:
		s.opt.Log.Info("database answers again", "url", s.url)
	}
}

// Connectivity implements zodb.Connector.
func (s *Storage) Connectivity() (c zodb.Connectivity, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return zodb.Connectivity{Since: s.failing, Err: s.lostErr, Lost: s.losses}, true
	}
	return zodb.Connectivity{Connected: true, Since: s.back, Lost: s.losses}, true
}

// backoff is how long to wait before the next attempt: at once, then 10 ms doubling up to 1 s.
type backoff time.Duration

func (b backoff) next() backoff {
	return backoff(min(max(2*time.Duration(b), 10*time.Millisecond), time.Second))
}

func (b backoff) sleep(ctx context.Context) { sleep(ctx, time.Duration(b)) }

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
