// Package zcore is the core of the server: it follows a database, keeps the current view and the
// announced head, serves blocks at any revision, and isolates clients from each other by pins.
//
// STUB: signatures only, being written.
package zcore

import (
	"context"
	"log/slog"
	"time"

	"wcfs/zcore/zodb"
)

// Options of a Core; the zero value of each field means its default.
type Options struct {
	PinTimeout time.Duration // a pin must be acknowledged within this; default 30 s
	Grace      time.Duration // see "fault retry": quiet time after the last answered READ of a block before it is invalidated; default 5 ms
	Retention  time.Duration // how long commits are remembered; default 1 minute
	Log        *slog.Logger  // default slog.Default()
}

// Core is one open database being served. Make it with New, start following with Run.
type Core struct{}

// New reads the head of stor. It does not own stor: the caller closes it after Run has returned.
func New(ctx context.Context, stor zodb.Storage, opts Options) (*Core, error) { panic("stub") }

// Run follows the database until ctx is done (nil) or following fails for good: then the core is in
// EIO mode, everything answers ErrNotConn, and Run returns the cause.
func (c *Core) Run(ctx context.Context) error { panic("stub") }

// SetPageCache tells the core of the page cache behind the FUSE front; before Run.
func (c *Core) SetPageCache(pc PageCache) { panic("stub") }

// URL returns the database URL verbatim.
func (c *Core) URL() string { panic("stub") }

// PinTimeout returns the option.
func (c *Core) PinTimeout() time.Duration { panic("stub") }

// Head returns the announced head.
func (c *Core) Head() zodb.Tid { panic("stub") }

// Failed is closed when the core enters EIO mode.
func (c *Core) Failed() <-chan struct{} { panic("stub") }

// Err returns why the core is in EIO mode, or nil.
func (c *Core) Err() error { panic("stub") }

// Host is the domain of the FUSE mount.
func (c *Core) Host() *Domain { panic("stub") }

// Stats are the counters of .wcfs/stats that the core owns.
type Stats struct {
	BigFile, ZHeadLink, WatchLink, Watch, PinnedBlk, Pin, PinKill int64
}

// Stats never blocks.
func (c *Core) Stats() Stats { panic("stub") }

// FileAttr are the attributes of a bigfile.
type FileAttr struct {
	Size    int64
	Blksize int64
	Mtime   time.Time
}

// HeadFile is a bigfile under head/. Once looked up it is known until the server ends.
type HeadFile struct{}

// Lookup finds the bigfile oid at head. ErrInvalid when it is none, ErrIO when the database fails.
func (c *Core) Lookup(ctx context.Context, oid zodb.Oid) (*HeadFile, error) { panic("stub") }

// HeadFiles lists the oids known.
func (c *Core) HeadFiles() []zodb.Oid { panic("stub") }

// Attr waits neither for pins nor for page cache work.
func (f *HeadFile) Attr(ctx context.Context) (FileAttr, error) { panic("stub") }

// Read reads [off, off+size) for a client in dom; it may wait for pins of dom's watches.
func (f *HeadFile) Read(ctx context.Context, dom *Domain, size int, off int64) (Data, error) {
	panic("stub")
}

// RevFile is a bigfile as of a fixed revision. It holds no state but a few words.
type RevFile struct{}

// LookupRev finds the bigfile oid as of rev <= head. Errors as Lookup; ErrNotExist when rev > head.
func (c *Core) LookupRev(ctx context.Context, rev zodb.Tid, oid zodb.Oid) (*RevFile, error) {
	panic("stub")
}

// Attr never waits.
func (f *RevFile) Attr() FileAttr { panic("stub") }

// Read never waits for pins.
func (f *RevFile) Read(ctx context.Context, size int, off int64) (Data, error) { panic("stub") }

// Link is one open of head/watch.
type Link struct{}

// OpenLink opens a watch link for a client in dom; proc is the process to kill if it does not
// acknowledge, nil where there is none.
func (c *Core) OpenLink(dom *Domain, proc Process) (*Link, error) { panic("stub") }

// Read returns at least one byte and at most size of the lines for the client; it blocks until there
// are some. At the end of the link: 0 bytes.
func (l *Link) Read(ctx context.Context, size int) ([]byte, error) { panic("stub") }

// Write takes bytes from the client; lines may come in pieces.
func (l *Link) Write(ctx context.Context, p []byte) (int, error) { panic("stub") }

// Close ends the link: the client closed its last descriptor.
func (l *Link) Close() { panic("stub") }

// ZheadStream is one open of .wcfs/debug/zhead.
type ZheadStream struct{}

// OpenZhead starts a stream of the tids announced from now on.
func (c *Core) OpenZhead() *ZheadStream { panic("stub") }

// Read is as Link.Read.
func (z *ZheadStream) Read(ctx context.Context, size int) ([]byte, error) { panic("stub") }

// Close ends the stream.
func (z *ZheadStream) Close() { panic("stub") }
