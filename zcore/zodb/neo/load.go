package neo

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// LoadAt implements zodb.Storage.
func (s *Storage) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rec, err := s.load(ctx, oid, min(at, zodb.TidMax))
	if err != nil {
		return zodb.Record{}, &zodb.LoadError{URL: s.place.normal, Oid: oid, At: at, Err: kind(err)}
	}
	return rec, nil
}

func (s *Storage) load(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	if oid > maxID { // no such oid can be stored, and a storage may end at the question
		return zodb.Record{}, zodb.ErrNoObject
	}
	before := min(at, zodb.TidMax-1) + 1
	m, err := s.ask(ctx, uint64(oid), &askObject{oid: oid, at: none, before: before}, func(m message) error {
		return checkObject(m.(*answerObject), oid, before)
	})
	switch {
	case codeIs(err, codeOIDDoesNotExist):
		return zodb.Record{}, zodb.ErrNoObject
	case codeIs(err, codeOIDNotFound):
		return zodb.Record{}, zodb.ErrNoData
	case err != nil:
		return zodb.Record{}, err
	}
	return asRecord(m.(*answerObject))
}

// errStale is that a storage answers as of earlier than it was asked for: it has not noticed that it has later data.
var errStale = errors.New("the storage is behind")

// checkObject finds out whether an answer is what was asked for, and undamaged.
func checkObject(m *answerObject, oid zodb.Oid, before zodb.Tid) error {
	switch {
	case m.oid != oid:
		return badAnswer("object %s for %s", m.oid, oid)
	case m.serial >= before:
		return badAnswer("revision %s of %s, which is not before %s", m.serial, oid, before)
	case m.next != none && m.next < before:
		return fmt.Errorf("%w: %s of %s, not %s, is current before %s", errStale, m.serial, oid, m.next, before)
	case deleted(m):
		return nil
	case sha1.Sum(m.data) != m.checksum:
		return badAnswer("the checksum of %s@%s does not match its data", oid, m.serial)
	}
	return nil
}

// deleted tells whether a revision is a deletion. The answer for an object without data has a checksum all the
// same.
func deleted(m *answerObject) bool { return len(m.data) == 0 && m.checksum == [20]byte{} }

// asRecord makes a record of what a storage answered.
func asRecord(m *answerObject) (zodb.Record, error) {
	if deleted(m) {
		return zodb.Record{}, zodb.ErrDeleted
	}
	rec := zodb.Record{Data: m.data, Serial: m.serial, Until: zodb.TidMax}
	if m.next != none {
		rec.Until = m.next
	}
	var err error
	switch m.compression {
	case 0, -1:
	case 1:
		rec.Data, err = record.Inflate(m.data)
	default:
		err = fmt.Errorf("compression %d is not known", m.compression)
	}
	if err == nil {
		rec.Data, err = record.Decompress(rec.Data)
	}
	if err != nil {
		return zodb.Record{}, &zodb.DataError{Oid: m.oid, Serial: m.serial, Pos: -1, Err: err}
	}
	return rec, nil
}

// kind gives an error its kind, where it has none yet.
func kind(err error) error {
	var srv *serverError
	var bad *badAnswerError
	switch {
	case err == nil || zodb.KindOf(err) != zodb.Unknown:
		return err
	case errors.As(err, &srv) && !codeIs(err, codeNotReady, codeProtocolError, codeNonReadableCell), errors.As(err, &bad):
		return zodb.Answer(err)
	}
	return zodb.Outage(err)
}

// serialDepth is how many revisions are looked at for the one that is asked for.
const serialDepth = 8

// SerialAt implements zodb.SerialLoader. Histories go over the wire without data; they do not tell a deletion
// from an empty record, and have nothing from before the last pack: those are for a load.
func (s *Storage) SerialAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial, until zodb.Tid, err error) {
	if revs, err := s.history(ctx, oid, 0, serialDepth); err == nil {
		until := zodb.TidMax
		for _, r := range revs {
			if r.tid <= at {
				if r.size == 0 {
					break
				}
				return r.tid, until, nil
			}
			until = r.tid
		}
	}
	rec, err := s.LoadAt(ctx, oid, at)
	return rec.Serial, rec.Until, err
}

// history returns revisions number first to last-1 of an object, counted from the newest.
func (s *Storage) history(ctx context.Context, oid zodb.Oid, first, last uint64) ([]revision, error) {
	if oid > maxID {
		return nil, zodb.ErrNoObject
	}
	m, err := s.ask(ctx, uint64(oid), &askHistory{oid, first, last}, func(m message) error {
		h := m.(*answerHistory)
		if h.oid != oid || uint64(len(h.revs)) > last-first {
			return badAnswer("%d revisions of %s for %d of %s", len(h.revs), h.oid, last-first, oid)
		}
		for i, r := range h.revs {
			if i > 0 && r.tid >= h.revs[i-1].tid {
				return badAnswer("the history of %s is not in order", oid)
			}
		}
		return nil
	})
	if codeIs(err, codeOIDNotFound, codeOIDDoesNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.(*answerHistory).revs, nil
}

// LoadBatch implements zodb.BatchLoader: all storages are asked at once, each for as much as its window allows.
func (s *Storage) LoadBatch(ctx context.Context, oids []zodb.Oid, at zodb.Tid, fn func(i int, rec zodb.Record, err error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // held while fn runs
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(max(len(oids), 1), s.opt.Window*s.storages()))
	for i, oid := range oids {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			rec, err := s.LoadAt(gctx, oid, at)
			mu.Lock()
			defer mu.Unlock()
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			return fn(i, rec, err)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// storages returns of how many storages objects can be asked for at once: 1 if that is not known.
func (s *Storage) storages() int {
	s.mu.Lock()
	x := s.cur
	s.mu.Unlock()
	if x == nil {
		return 1
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for _, node := range x.cl.nodes {
		if node.kind == typeStorage && node.state == nodeRunning {
			n++
		}
	}
	return min(max(n, 1), 64)
}
