// Package zodb is a read-only client of ZODB object databases.
//
// It owns the types every other package speaks (Tid, Oid, Record, Commit), the Storage interface
// that the drivers below it implement, and the kinds of errors (kind.go) they answer with. It does not own a
// cache, decode objects (see record, btree) or choose a driver: main passes the drivers in.
//
// A driver provides the methods of Storage and, if it can, SerialLoader, BatchLoader, Extender and Lister.
// Nothing is needed for what was committed before it was opened but that LoadAt and SerialAt answer at any tid
// up to Head that is not packed away, transaction or not: the core finds out by them what changed in the last
// minute before it started.
//
// Invariants a Storage keeps:
//
//   - LoadAt of (oid, at) with at <= Head gives the same bytes and serial for ever, or an error.
//
//   - A commit is visible in Head and LoadAt only when it is wholly there.
//
//   - Follow reports commits in order, none skipped, none twice; by the time it reports tid t,
//     LoadAt(_, t) sees it.
//
//   - Head is what Python clients of the database take for its last transaction, also where that is none (a commit
//     that was killed in the middle): they are at that tid, and must not wait for ever.
//
//   - What was there when the storage was opened, and what was reported since, stays: where a transaction is missing that
//     nothing but another database or another past explains, loads and Follow fail with OtherDatabase. A load is checked
//     after it was read, before it is given out; Follow notices within a second, also when nobody loads.
//
// # Errors have a kind
//
// What an error takes with it follows from its kind (KindOf), and only the driver in which it arises can
// tell that. So every error of a Storage method carries one:
//
//   - Answer: ErrNoObject, ErrNoData, ErrDeleted and *DataError are answers as they are. All else that the
//     database says about a request is marked with Answer: an exception that a server raised for it, a reply that
//     is not what was asked for, a disk sector that cannot be read (EIO). Trying again cannot mend it: that object
//     at that tid fails, everything else goes on.
//   - Outage: nobody answered in the driver's own time limit: a connection refused, lost or silent, a server that
//     starts or says that what it stands on is away, a file that is locked, no descriptors or memory left. The
//     caller asks again, for as long as it takes, and the clocks of clients stand still meanwhile.
//   - OtherDatabase: final for all loads and for Follow.
//
// A driver marks where it first sees the foreign error (of a network, a server, a file), not where it returns.
// Wrapping with %w keeps a mark; the outermost one counts. Errors of a caller's done context need not be
// marked. If in doubt: did somebody who has the database say this about this request? Then it is an answer. A
// driver's own test makes every failure it knows of happen and compares the kinds (storagetest.WantKind).
package zodb

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"
)

// Defaults of what the drivers of database servers have in common.
const (
	DefaultTimeout = 30 * time.Second      // how long an operation waits for a server
	DefaultPoll    = 20 * time.Millisecond // how often a server that does not tell of commits is asked
)

// Tid is the id of a transaction, and so a moment in the life of a database. Printed as 16 hex digits.
type Tid uint64

// Oid is the id of an object. Printed as 16 hex digits.
type Oid uint64

// TidMax is later than every transaction; as Record.Until it means "no later revision is known".
const TidMax Tid = 1<<63 - 1

func (t Tid) String() string { return fmt.Sprintf("%016x", uint64(t)) }
func (o Oid) String() string { return fmt.Sprintf("%016x", uint64(o)) }

// ParseTid parses exactly 16 lower-case hex digits.
func ParseTid(s string) (Tid, error) {
	u, err := parseHex16(s)
	return Tid(u), err
}

// ParseOid parses exactly 16 lower-case hex digits.
func ParseOid(s string) (Oid, error) {
	u, err := parseHex16(s)
	return Oid(u), err
}

func parseHex16(s string) (uint64, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("%q is not 16 hex digits", s)
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return 0, fmt.Errorf("%q is not 16 lower-case hex digits", s)
		}
	}
	return strconv.ParseUint(s, 16, 64)
}

// Time returns the moment that t encodes: the high 32 bits are minutes since 1900 in mixed radix
// ((((y-1900)*12+mon-1)*31+day-1)*24+h)*60+min, the low 32 bits are seconds in units of 60/2^32.
// Source: persistent.TimeStamp of the Python package persistent.
func (t Tid) Time() time.Time {
	m := uint64(t) >> 32
	minute, m := m%60, m/60
	hour, m := m%24, m/24
	day, m := m%31+1, m/31
	month, year := m%12+1, m/12+1900
	// 60/2^32 s in nanoseconds, without overflow: lo * 60e9 < 2^68 does not fit, so split.
	lo := uint64(t) & 0xffffffff
	sec := lo * 60 >> 32
	nsec := (lo * 60 & 0xffffffff) * 1e9 >> 32
	return time.Date(int(year), time.Month(month), int(day), int(hour), int(minute), int(sec), int(nsec), time.UTC)
}

// StatTime is Time to the microsecond, as stat shows it: clients compare it with what Python makes of a tid,
// round(TimeStamp(tid).timeTime(), 6). Python computes in floating point, in seconds since 1900, which is not
// exact; so this is the same arithmetic.
func (t Tid) StatTime() time.Time {
	const from1900 = 2208988800 // seconds to 1970
	minute := (t &^ 0xffffffff).Time().Unix()
	since1900 := float64(minute+from1900) + float64(uint64(t)&0xffffffff)*(60./(1<<32))
	sec, frac := math.Modf(since1900 - from1900)
	return time.Unix(int64(sec), 1000*int64(math.RoundToEven(frac*1e6))).UTC()
}

// TidFromTime returns the first tid that is not before tm.
func TidFromTime(tm time.Time) Tid {
	tm = tm.UTC()
	m := uint64(tm.Year()-1900)*12 + uint64(tm.Month()) - 1
	m = m*31 + uint64(tm.Day()) - 1
	m = (m*24+uint64(tm.Hour()))*60 + uint64(tm.Minute())
	ns := uint64(tm.Second())*1e9 + uint64(tm.Nanosecond())
	lo := (ns/60*(1<<32) + ns%60*(1<<32)/60 + 1e9 - 1) / 1e9
	return Tid(m<<32 + lo)
}

// Record is one revision of one object.
type Record struct {
	Data   []byte // object record: two pickles, decompressed. Shared: never written to.
	Serial Tid    // transaction that wrote it
	Until  Tid    // first tid at which a later revision is known to exist, else TidMax
}

// Commit is one transaction as Follow reports it.
type Commit struct {
	Tid  Tid
	Oids []Oid // every object it changed, created or deleted; in no order, no duplicates

	// Gap, if not 0, says that this is no transaction but a hole in what is known: which objects
	// changed in (Gap, Tid] is unknown (a reconnect after too long). Oids is nil then.
	Gap Tid
}

// Storage is an open database. All methods may be called from many goroutines at once.
type Storage interface {
	// URL returns the database URL exactly as it was given.
	URL() string

	// Head returns the tid of the last transaction, 0 for an empty database.
	Head(ctx context.Context) (Tid, error)

	// LoadAt returns the revision of oid that is current as of at: the one with the largest
	// Serial <= at. Errors match ErrNoObject (never existed), ErrNoData (did not exist yet, or
	// the revision is packed away) or ErrDeleted; of all others KindOf says what they mean.
	LoadAt(ctx context.Context, oid Oid, at Tid) (Record, error)

	// Follow calls fn for every commit with tid > after, in order, until ctx is done (it returns
	// ctx.Err), fn fails (it returns that error) or following fails for good. A lost connection
	// that can be made anew is not a failure. It may be called once per Storage.
	Follow(ctx context.Context, after Tid, fn func(Commit) error) error

	// Close releases everything; loads in flight fail.
	Close() error
}

// Connectivity is what a driver knows of its connection to a database's server.
type Connectivity struct {
	Connected bool
	Since     time.Time // since when that is so
	Err       error     // why there is none, as of the last attempt; nil while connected
	Lost      int64     // how often a connection was lost
}

// Connector is implemented by drivers that may lose their server and find it again by themselves.
type Connector interface {
	// Connectivity never waits. ok is false where there is no server to lose.
	Connectivity() (c Connectivity, ok bool)
}

// SerialLoader is implemented by drivers that know an object's serial without reading its data.
type SerialLoader interface {
	// SerialAt is LoadAt less the data, with the same errors.
	SerialAt(ctx context.Context, oid Oid, at Tid) (serial, until Tid, err error)
}

// BatchLoader is implemented by drivers that load many objects together faster than one by one.
type BatchLoader interface {
	// LoadBatch calls fn once for each of oids, in any order, with what LoadAt returns for oids[i]. The
	// record's Data is good until fn returns. It ends with fn's error, or that of ctx.
	LoadBatch(ctx context.Context, oids []Oid, at Tid, fn func(i int, rec Record, err error) error) error
}

// Extent is a range of a plain file that holds an object's record uncompressed.
type Extent struct {
	File   *os.File // shared; valid until Release
	Off    int64
	Len    int64
	Serial Tid

	// Check is called after the bytes were read and before they are used: an error says that they are not the
	// record, as the file was written over. It costs next to nothing.
	Check func() error
}

// Extender is implemented by drivers that can tell where a record lies in a file, for zero-copy reads.
type Extender interface {
	// ExtentAt returns where the record that LoadAt would return lies, and a function to call when
	// the file is not needed any more. A record that is not stored plainly: ErrNoExtent.
	ExtentAt(ctx context.Context, oid Oid, at Tid) (Extent, func(), error)
}

// Lister is implemented by drivers that can enumerate a database.
type Lister interface {
	// Oids calls fn for every object that has data as of at, in ascending order; also for those of which it
	// cannot be told, since they are damaged: LoadAt says so.
	Oids(ctx context.Context, at Tid, fn func(Oid) error) error
}

// NamingLister is implemented by drivers whose database finds the objects that name a class, without sending the others.
type NamingLister interface {
	// OidsNaming is Oids for the objects whose data may name class.
	OidsNaming(ctx context.Context, at Tid, class string, fn func(Oid) error) error
}
