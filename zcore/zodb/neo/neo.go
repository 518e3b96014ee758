// Package neo is a read-only ZODB storage that is served by a NEO cluster.
//
// It owns one connection to the primary master and one to each storage it reads from, the two protocols spoken
// over them (6, structs; 5, msgpack), finding another master when the primary is lost, and the order of commits.
// It does not own a cache, and writes nothing.
//
// The parts: url.go says where the masters are, dial.go connects; wire.go and wire*.go encode and decode,
// messages.go says what each message consists of, codes.go which number it has; conn.go is one connection,
// window.go how much is asked for ahead on it; master.go is a session: an identification at the primary master
// and all that hangs on it, backup.go what is different in a cluster that backs up another one, cluster.go what the master tells of the cluster, storages.go who is asked for what;
// elect.go finds the primary master, link.go keeps a session alive; load.go reads; follow.go and gap.go report
// commits; list.go enumerates.
//
// Invariants:
//   - A server gets only messages that encode has made of the types of messages.go: a malformed one ends servers.
//   - One goroutine reads a connection and handles what it reads in order. When the master has answered, all
//     that it changed and announced before is known.
//   - LoadAt(at) asks for the revision before at+1, which later commits do not change. It asks only cells that
//     were readable in the partition table at or after the moment that at was told of.
//   - A session is published once its database has been found to be the one that was served before: not behind
//     it, and with the transaction Storage.known in it.
//   - A storage lets us in when it has our identification from the master, and so after all that the master told
//     it before: its lists have all transactions that were over then. Those of later are announced to us.
//   - A commit is queued by the reader, and reported by Follow from its own goroutine.
//
// Locks: Storage.mu, session.mu and conn.mu. session.mu may be held while conn.mu is taken; else they are leaves:
// nothing is sent or waited for under them.
//
// The protocols were learned from neoppod 1.12.0 and from exchanges with running clusters.
package neo

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"wcfs/zcore/zodb"
)

// Options are limits and habits of a Storage; the zero value of each field means its default.
type Options struct {
	// Timeout bounds how long one operation waits for the cluster, fail-over included. Default zodb.DefaultTimeout.
	Timeout time.Duration

	// Window is the number of objects asked for at once of one storage, fewer where they are large. Default 32.
	Window int

	// MaxMessage is the size in bytes of the largest message taken from a server. Default 1 GiB; protocol 6 has
	// a limit of its own. Memory is taken as the bytes come.
	MaxMessage int

	// MaxQueue is the number of changed objects that are remembered for a Follow that lags behind; beyond it
	// the storages are asked. Default 1<<20.
	MaxQueue int

	// MaxGap is the number of transactions up to which what was missed is found out. Default 100000.
	MaxGap int

	// Poll is how often a cluster that backs up another one is asked for commits. Default zodb.DefaultPoll.
	Poll time.Duration

	// GivenOnly is for masters behind proxies: only those of the URL are tried, not those that the cluster tells of.
	GivenOnly bool

	// MinBackoff and MaxBackoff bound the pause between attempts to connect. Default 10 ms and 1 s.
	MinBackoff, MaxBackoff time.Duration

	// Log gets one line when the master is lost and one when it is back. Default slog.Default().
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Timeout, zodb.DefaultTimeout)
	def(&o.Poll, zodb.DefaultPoll)
	def(&o.MinBackoff, 10*time.Millisecond)
	def(&o.MaxBackoff, time.Second)
	for _, n := range []struct {
		v *int
		d int
	}{{&o.Window, 32}, {&o.MaxMessage, 1 << 30}, {&o.MaxQueue, 1 << 20}, {&o.MaxGap, 100_000}} {
		if *n.v <= 0 {
			*n.v = n.d
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// silence is how long a server that owes an answer may send nothing before the connection is given up. A
// quarter of the timeout, so that two more can be asked.
func (o Options) silence() time.Duration { return o.Timeout / 4 }

// patience is how long a storage may take to answer before another one that has the same is asked.
func (o Options) patience() time.Duration { return o.Timeout / 15 }

var (
	_ zodb.Storage      = (*Storage)(nil)
	_ zodb.Lister       = (*Storage)(nil)
	_ zodb.SerialLoader = (*Storage)(nil)
	_ zodb.BatchLoader  = (*Storage)(nil)
	_ zodb.Connector    = (*Storage)(nil)
)

// Head implements zodb.Storage. It asks the master, so that it is not behind a commit that another client has
// seen finished.
func (s *Storage) Head(ctx context.Context) (zodb.Tid, error) {
	var head zodb.Tid
	err := s.with(ctx, func(ctx context.Context, x *session) (err error) {
		head, err = x.current(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: head: %w", s.place.normal, kind(err))
	}
	return s.tell(head), nil
}
