// Package relstorage reads ZODB databases that the Python package RelStorage keeps in PostgreSQL or
// in SQLite files, with the history-preserving schema.
//
// It owns the connections it makes (a bounded pool and one for Follow), nothing in the database: it only reads.
// It does not own a cache. The driver relies on these facts of RelStorage 4 as installed:
//
//   - "transaction"(tid, packed, ...) has a row for every commit, object_state(zoid, tid, state, ...)
//     a row for every revision of every object; primary keys tid and (zoid, tid), an index on
//     object_state(tid). A state that is NULL says that the object's creation was undone.
//   - Rows are written once. Only a pack removes some, oldest first, and marks "transaction" rows as
//     packed in the same SQL transaction.
//
// # No commit is skipped
//
// A reader that asks "what is newer than the newest tid I know" loses a commit whose tid is lower
// than one that became visible earlier. RelStorage's ordinary commits cannot do that: they choose
// their tid under one advisory lock that is held until they are visible. But its import
// (copyTransactionsFrom, so zodbconvert) takes another lock and brings tids along, and other tools
// may take none. So a tid becomes head here only when it is settled (settle.go):
//
//  1. read the newest visible tid T;
//  2. then list the SQL transactions that hold a lock which every writer of "transaction" rows has:
//     RowExclusiveLock on that table (an INSERT takes it and keeps it to the end of its
//     transaction), or one of RelStorage's commit locks;
//  3. wait until none of those is left; later ones saw T or came after it and choose a greater tid;
//  4. read (last, T] in a new snapshot: whatever may still have appeared below T has.
//
// A transaction with a tid below T that was not visible in 1 was either in the list of 2 or had ended
// before it; in both cases the snapshot of 4 shows it if it committed.
//
// A pack too changes "transaction" rows, in batches of a quarter of a minute, and must not hold head
// back. So while RelStorage's pack lock is held, a lock on that table alone does not count: what adds
// tids has one of the commit locks besides.
//
// A standby does not know its primary's locks. There a transaction becomes visible when its commit record is
// replayed; since a primary releases locks only after the commit record is written, the order of RelStorage's
// ordinary commits is the same, and lag is nothing but an older head. SQLite has one writer at a time. If the
// order breaks all the same (a second import into a primary that also takes commits, seen from a standby), the
// driver notices by looking back once a second (audit.go): following then fails for good rather than leave a
// commit out.
//
// # Servers that are behind
//
// A name may lead to different servers over time. A load as of at is sent only over a connection
// whose server has shown a head not below at, or waits for it: a replica that is behind never answers
// for a moment it does not know yet.
//
// Lock order: there is one mutex, Storage.mu, a leaf: nothing is called under it.
package relstorage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
)

// Options of a Storage; the zero value of each field means its default.
type Options struct {
	// Timeout bounds how long an operation waits for the database, reconnects included, before it
	// fails. Default zodb.DefaultTimeout.
	Timeout time.Duration

	// Poll is how often Follow looks for commits. Default zodb.DefaultPoll.
	Poll time.Duration

	// Conns is how many loads may run at once, each over a connection of its own. Default 8.
	// PostgreSQL sees at most one connection more, for Follow.
	Conns int

	// PasswordFile names a file whose first line is the PostgreSQL password. It is read anew for
	// every connection. Without it, PGPASSFILE, ~/.pgpass and PGPASSWORD count, as everywhere.
	PasswordFile string

	Log *slog.Logger // default slog.Default()
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = zodb.DefaultTimeout
	}
	if o.Poll <= 0 {
		o.Poll = zodb.DefaultPoll
	}
	if o.Conns <= 0 {
		o.Conns = 8
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// Sentinels that callers and tests match.
var (
	ErrClosed     = zodb.Outage(errors.New("storage is closed"))
	ErrOutOfOrder = zodb.OtherDatabase(errors.New("a transaction appeared below one that was already served"))
	ErrReplaced   = zodb.OtherDatabase(errors.New("the database is no longer the one that was served"))
	ErrBehind     = zodb.Outage(errors.New("the database server is behind the revision asked for"))
	ErrPassword   = errors.New("password in a storage URL")
	ErrSchema     = errors.New("not a history-preserving RelStorage database")
)

// Storage is an open RelStorage database.
type Storage struct {
	url  string
	opt  Options
	db   database
	stop context.CancelFunc
	ctx  context.Context // ends with Close

	following atomic.Bool
	head      atomic.Uint64 // greatest settled tid seen; never goes down

	mu      sync.Mutex
	failing time.Time // of the first failure since the last success, zero if none; guarded by mu
	lost    bool      // an outage was logged and is not over; guarded by mu
	lostErr error     // what failed last while it is; guarded by mu
	losses  int64     // outages so far; guarded by mu
	back    time.Time // when the last outage was over, or the database opened; guarded by mu
	packed  zodb.Tid  // newest pack that was logged; guarded by mu
}

var (
	_ zodb.Storage      = (*Storage)(nil)
	_ zodb.SerialLoader = (*Storage)(nil)
	_ zodb.Lister       = (*Storage)(nil)
	_ zodb.Connector    = (*Storage)(nil)
)

// database is PostgreSQL or SQLite. Its methods may be called from many goroutines at once.
type database interface {
	// revision finds the newest revision of oid not newer than at, in one snapshot of a server that
	// knows every transaction up to need; else ErrBehind.
	revision(ctx context.Context, oid zodb.Oid, at, need zodb.Tid, data bool) (revision, error)

	// session takes a connection for use by one goroutine.
	session(ctx context.Context) (session, error)

	// check tells whether this is a database that this package can read, and what to do when not.
	check(ctx context.Context) error

	// kind says of an error whether trying again, maybe over a new connection, may help: an outage.
	kind(err error) zodb.Kind

	close()
}

// session is one connection.
type session interface {
	// newest returns the newest visible tid, 0 when there is none.
	newest(ctx context.Context) (zodb.Tid, error)

	// primary tells a server that commits are made at from one that gets them from another.
	primary(ctx context.Context) (bool, error)

	// writers returns the SQL transactions that may be about to add a tid, each with the number of
	// the process that runs it (0: none), where the server knows them.
	writers(ctx context.Context) (map[string]int64, error)

	// transactions returns the first of (after, upto], at most max, in one snapshot.
	transactions(ctx context.Context, after, upto zodb.Tid, max int) ([]transaction, error)

	// tids returns the tids in (after, upto], ascending, at most max.
	tids(ctx context.Context, after, upto zodb.Tid, max int) ([]zodb.Tid, error)

	// packedAt returns the newest packed transaction if at lies before it, else 0.
	packedAt(ctx context.Context, at zodb.Tid) (zodb.Tid, error)

	// packedAround tells whether there are later transactions than tid, which is not there, and a pack can have
	// removed it: the one before or after it is packed.
	packedAround(ctx context.Context, tid zodb.Tid) (bool, error)

	// oids returns the objects > from with data as of at, ascending, and the greatest looked at, from
	// when there was none. With naming only those whose record has it near the beginning, or is
	// compressed or encrypted.
	oids(ctx context.Context, at zodb.Tid, naming string, from int64, max int) (oids []zodb.Oid, last int64, err error)

	// release gives the connection back; broken ones are dropped.
	release()
}

// revision is what the database says about an object at a tid.
type revision struct {
	found  bool // there is a row; else only exists means something
	exists bool // the object has a row at a later tid
	serial zodb.Tid
	until  zodb.Tid
	null   bool     // creation undone
	size   int64    // of the state as stored
	lost   zodb.Tid // not 0: a transaction that the server has shown and that is not there
	data   []byte   // nil unless asked for
}

// transaction is one commit as the tables tell it.
type transaction struct {
	tid    zodb.Tid
	packed bool // rows of it may be gone
	oids   []zodb.Oid
}

// Schemes are the URL schemes that Open understands.
func Schemes() []string { return []string{"postgresql", "postgres", "sqlite"} }

// Open opens the database that url names and checks that it is one. See docs/storages.md for the
// forms of url. An error says what to do and never contains a password.
func Open(ctx context.Context, url string, opt Options) (*Storage, error) {
	opt = opt.withDefaults()
	s := &Storage{url: url, opt: opt, back: time.Now()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	var err error
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "postgresql", "postgres":
		s.db, err = openPostgres(url, opt)
	case "sqlite":
		s.db, err = openSqlite(url, opt)
	default:
		err = fmt.Errorf("relstorage: unknown scheme %q (known: %s)", scheme, strings.Join(Schemes(), ", "))
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, opt.Timeout)
	defer cancel()
	if err := s.db.check(cctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return s, nil
}

// URL implements zodb.Storage.
func (s *Storage) URL() string { return s.url }

// Close implements zodb.Storage.
func (s *Storage) Close() error {
	s.stop()
	s.db.close()
	return nil
}

// advance raises the known head.
func (s *Storage) advance(t zodb.Tid) {
	for {
		old := s.head.Load()
		if uint64(t) <= old || s.head.CompareAndSwap(old, uint64(t)) {
			return
		}
	}
}
