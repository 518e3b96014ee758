// Package zeo is a read-only ZODB storage that is served by a ZEO server, version 5 or 6.
//
// It owns one connection at a time to one server, the protocol spoken over it in both encodings
// (pickles, Z5; msgpack, M5), making the connection anew when it is lost, and the order of commits.
// It does not own a cache, and writes nothing: it registers as a read-only client.
//
// The parts: url.go says where the server is; wire*.go encode calls and decode what the server
// sends, which is not trusted; conn.go is one connection, window.go how much is asked for ahead on it;
// link.go keeps one alive; last.go doubts what a server tells as its last transaction; follow.go and
// gap.go turn invalidations into commits without a gap; list.go enumerates.
//
// Invariants:
//   - One goroutine reads a connection and handles what it reads in order. What it has read up to
//     some point is what the server knew at that point, so conn.head is never ahead of a reply.
//   - LoadAt(at) asks for the revision before at+1, which later commits do not change: a reply may
//     overtake an invalidation or be overtaken by it without being wrong. The end of validity is the
//     server's own, and never before a commit that the server told of earlier on the connection.
//   - No call but those of the handshake is sent on a connection before the server has been found to
//     serve the database that was served before: not behind it, and with its last transaction there.
//     That one is Storage.known, which a phantom (last.go) never is.
//   - A commit is queued by the reader, and reported by Follow from its own goroutine.
//
// Locks: Storage.mu and conn.mu are leaves: nothing is called, sent or waited for under them.
//
// The protocol was learned from the Python package ZEO, 5.4.1 and 6.2: ZEO.asyncio and
// ZEO.StorageServer.
package zeo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Options are limits and habits of a Storage; the zero value of each field means its default.
type Options struct {
	// Timeout bounds how long one operation waits for the server, reconnects included. Default zodb.DefaultTimeout.
	Timeout time.Duration

	// Window is the number of loads on the wire at once, fewer where they are large; more wait for their
	// turn. Default 32.
	Window int

	// MaxFrame is the size in bytes of the largest message taken from the server. Default 1 GiB.
	// Memory is taken as the bytes come, not when their number is told.
	MaxFrame int

	// MaxQueue is the number of changed objects that are remembered for a Follow that lags behind;
	// beyond it the server is asked again. Default 1<<20.
	MaxQueue int

	// MinBackoff and MaxBackoff bound the pause between attempts to connect. Default 10 ms and 1 s.
	MinBackoff, MaxBackoff time.Duration

	// Log gets one line when a connection is lost and one when it is back. Default slog.Default().
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Timeout, zodb.DefaultTimeout)
	def(&o.MinBackoff, 10*time.Millisecond)
	def(&o.MaxBackoff, time.Second)
	if o.Window <= 0 {
		o.Window = 32
	}
	if o.MaxFrame <= 0 {
		o.MaxFrame = 1 << 30
	}
	if o.MaxQueue <= 0 {
		o.MaxQueue = 1 << 20
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// silence is how long a server that owes an answer may send nothing before the connection is given
// up. Half the timeout, so that a load can be asked for again on a new connection.
func (o Options) silence() time.Duration { return o.Timeout / 2 }

var (
	// ErrClosed is what operations on a closed Storage fail with.
	ErrClosed = zodb.Outage(errors.New("storage is closed"))

	// ErrTimeout is what an operation fails with that the server did not answer in time.
	ErrTimeout = zodb.Outage(errors.New("no answer from the ZEO server"))

	// ErrOtherDatabase is what everything fails with once the server has been found to serve
	// something else than before.
	ErrOtherDatabase = zodb.OtherDatabase(errors.New("the ZEO server no longer serves the same database"))
)

var (
	_ zodb.Storage      = (*Storage)(nil)
	_ zodb.Lister       = (*Storage)(nil)
	_ zodb.SerialLoader = (*Storage)(nil)
	_ zodb.Connector    = (*Storage)(nil)
)

// LoadAt implements zodb.Storage.
func (s *Storage) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	at = min(at, zodb.TidMax)
	rec, err := s.loadBefore(ctx, oid, at)
	if isPOSKeyError(err) {
		rec, err = s.explainAbsence(ctx, oid, at)
	}
	if err == nil {
		rec.Data, err = record.Decompress(rec.Data)
		err = zodb.Answer(err)
	}
	if err != nil {
		return zodb.Record{}, &zodb.LoadError{URL: s.url, Oid: oid, At: at, Err: err}
	}
	return rec, nil
}

// loadBefore asks for the revision of oid current as of at.
func (s *Storage) loadBefore(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	v, err := s.call(ctx, "loadBefore", idBytes(oid), idBytes(at+1))
	if err != nil {
		return zodb.Record{}, err
	}
	if v == nil {
		return zodb.Record{}, zodb.ErrNoData
	}
	rec := zodb.Record{Until: zodb.TidMax}
	t, ok := v.([]any)
	if !ok || len(t) != 3 {
		return rec, badReply("loadBefore", v)
	}
	if rec.Data, ok = t[0].([]byte); !ok {
		return rec, badReply("loadBefore", v)
	}
	if rec.Serial, ok = asTid(t[1]); !ok || rec.Serial > at {
		return rec, badReply("loadBefore", t[1])
	}
	if t[2] != nil {
		if rec.Until, ok = asTid(t[2]); !ok || rec.Until <= at {
			return rec, badReply("loadBefore", t[2])
		}
	}
	return rec, nil
}

// explainAbsence finds out why the server has no data of oid as of at: it answers the same to an
// object that never existed and to one that is deleted. A commit that came after the load may have
// created the object, so a history that begins after at is followed by another load.
func (s *Storage) explainAbsence(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	hist, err := s.history(ctx, oid, 1)
	switch {
	case isPOSKeyError(err):
		return zodb.Record{}, zodb.ErrNoObject
	case err != nil:
		return zodb.Record{}, err
	case len(hist) > 0 && hist[0].tid <= at:
		return zodb.Record{}, zodb.ErrDeleted
	}
	rec, err := s.loadBefore(ctx, oid, at)
	if isPOSKeyError(err) {
		err = zodb.ErrDeleted
	}
	return rec, err
}

// history returns up to n newest revisions of oid, newest first.
func (s *Storage) history(ctx context.Context, oid zodb.Oid, n int) ([]revision, error) {
	v, err := s.call(ctx, "history", idBytes(oid), n)
	if err != nil {
		return nil, err
	}
	return asHistory(v, n)
}

// serialDepth is how many revisions back a serial is looked for without loading the data.
const serialDepth = 16

// SerialAt implements zodb.SerialLoader. Histories go over the wire without data; they do not tell a
// deletion from an undo, which is then found out by a load.
func (s *Storage) SerialAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial, until zodb.Tid, err error) {
	at = min(at, zodb.TidMax)
	if hist, err := s.history(ctx, oid, serialDepth); err == nil {
		until := zodb.TidMax
		for _, r := range hist {
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

// Head implements zodb.Storage. It asks the server, so that it is not behind a commit that another
// client has seen finished.
func (s *Storage) Head(ctx context.Context) (zodb.Tid, error) {
	v, err := s.call(ctx, "lastTransaction")
	if err != nil {
		return 0, fmt.Errorf("%s: head: %w", s.url, err)
	}
	head, ok := asTid(v)
	if !ok {
		return 0, fmt.Errorf("%s: head: %w", s.url, badReply("lastTransaction", v))
	}
	return s.know(head), nil
}
