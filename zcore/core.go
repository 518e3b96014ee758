// Package zcore is the core of the server: it follows a database, keeps the current view and the
// announced head, serves blocks at any revision, and isolates clients from each other by pins.
//
// It owns the order of events: commits (commit.go), reads (read.go, read_*.go), watches (watch.go,
// watch_*.go), what the kernel's page cache holds (pagecache_*.go), and what happens to clients that do
// not follow the protocol (watch_fault.go). It knows no FUSE and no 9P type: fronts give it a PageCache and
// Processes.
//
// The order of events, for a batch of commits up to tid t:
//
//	publish -> delta -> view = t -> keep and invalidate changed blocks -> announce t
//
// A file that cannot be followed over a commit fails alone (filefail.go), before that is announced.
//
// Before a changed block is dropped from head, pagecache_keep.go decides where its old bytes will come from.
// Copying them into the @rev file happens later, in the background.
//
// A read (1) takes the current view, (2) looks up the block and marks it tracked, (3) loads it, (4) sends pins
// to every older watch and waits for the acks, (5) replies. New content enters a page only by a reply or upload
// made after every older watch of its domain acknowledged its pin; a page with old content is gone before
// anybody can be told that head is t.
//
// Locks, in this order: Link.mu, HeadFile.mu, watch.mu, Core.mu, then history's; vitals.mu is a leaf. None is held
// over I/O, a callback, a channel send or a wait. The one exception is HeadFile's per-block cache lock, which
// is held over calls to the kernel: handlers never take it.
package zcore

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// Options of a Core; the zero value of each field means its default.
type Options struct {
	PinTimeout time.Duration // a pin must be acknowledged within this; default DefaultPinTimeout
	Grace      time.Duration // quiet time after the last answered READ of a block before it is invalidated; default 5 ms
	Retention  time.Duration // how long commits are remembered, and how far before the start watches may begin; default DefaultRetention
	NodeBytes  int           // bound of the cache of BTree nodes; default 64 MiB
	BlockBytes int           // bound of the cache of recently used blocks; default 64 MiB
	ListBytes  int           // bound of what watches keep of the list of commits; default DefaultListBytes
	PinWindow  int           // pins of a link sent and not acknowledged; default DefaultPinWindow
	MaxLinks   int           // watch links of a process, or of a guest; default DefaultMaxLinks
	MaxWaiting int           // watch requests under way of a process, or of a guest; default DefaultMaxWaiting
	MaxBases   int           // files under bases read by a guest, or through the mount; default DefaultMaxBases
	Slow       time.Duration // a read that waits longer for a client is logged; 0: none is
	Log        *slog.Logger  // default slog.Default()

	// FileChangeEndsAll has EIO mode follow when a bigfile that was looked up is deleted, or its block size, table or
	// state is replaced. Else that file fails alone.
	FileChangeEndsAll bool

	// Step, for tests, is called between the steps of commits, reads and watches.
	Step func(Step)
}

// Core is one open database being served. Make it with New, start following with Run.
type Core struct {
	stor zodb.Storage
	opts Options
	log  *slog.Logger
	tail *history.Tail
	host *Domain
	pc   PageCache // set before Run; nil without a FUSE front

	zeros       []byte        // what holes are answered from
	buffers     sync.Pool     // of *[]byte, a block long
	pageSize    int64         // of the page cache, bytes
	smallRead   int           // READs up to this size are random access, bytes
	prefetching chan struct{} // bounds loads ahead of readers
	uploadIdle  chan struct{} // bounds uploads that are in no hurry
	keeping     chan struct{} // bounds old blocks on their way to @rev
	keepStore   chan struct{} // bounds those being stored
	keepStuck   atomic.Bool   // a commit has waited for that in vain, and nothing was kept since

	ctx    context.Context // ends with EIO mode or after Run
	cancel context.CancelCauseFunc
	failed chan struct{} // closed in EIO mode

	mu        sync.Mutex
	view      zodb.Tid                  // mu; new reads of head are served as of this
	head      zodb.Tid                  // mu; announced
	viewWaits waits                     // mu
	headWaits waits                     // mu
	files     map[zodb.Oid]*HeadFile    // mu
	failing   []*HeadFile               // mu; failed, and not forgotten yet
	lost      map[zodb.Oid]*HeadFile    // mu; the last that failed and was forgotten, until it is found again
	revs      map[revKey]*keptRev       // mu; attributes kept for pins
	base      headBase                  // mu
	zheads    map[*ZheadStream]struct{} // mu
	owners    map[any]*owner            // mu; of links, by process id or domain
	stalls    stalls                    // has its own mutex, a leaf
	killing   map[int]int               // mu; faulty links by process, while it is being killed
	failure   error                     // mu
	queue     []zodb.Commit             // mu; followed, not yet published
	queued    chan struct{}             // cap 1; told when queue grew

	received []time.Time        // mu; when the commits came that are not announced
	links    map[*Link]struct{} // mu; open
	failedAt time.Time          // mu; when failure was
	vitals   vitals

	outage atomic.Int64 // when the database last failed to answer, Unix ns; 0 once it answered again

	nLink, nWatch, nPinned, nPin, nKill, nRefused atomic.Int64

	meter  meter
	linkID atomic.Int64 // of the last link
}

// New reads the head of stor. It does not own stor: the caller closes it after Run has returned.
func New(ctx context.Context, stor zodb.Storage, opts Options) (*Core, error) {
	head, err := stor.Head(ctx)
	if err != nil {
		return nil, err
	}
	if opts.PinTimeout == 0 {
		opts.PinTimeout = DefaultPinTimeout
	}
	if opts.Grace == 0 {
		opts.Grace = 5 * time.Millisecond
	}
	opts.bounds()
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	var c *Core
	c = &Core{
		stor: stor, opts: opts, log: opts.Log,
		tail: history.New(stor, head, history.Options{
			Retention: opts.Retention, NodeBytes: opts.NodeBytes, BlockBytes: opts.BlockBytes,
			ListBytes: opts.ListBytes,
			Answered:  func() { c.noteAnswer() },
			Retry:     func(ctx context.Context, load func() error) error { return c.retry(ctx, "delta", load) },
		}),
		host:        newDomain("host", true, opts.MaxBases),
		zeros:       make([]byte, 1<<20),
		pageSize:    4096,
		smallRead:   32 << 10,
		prefetching: make(chan struct{}, prefetches),
		uploadIdle:  make(chan struct{}, 1),
		keeping:     make(chan struct{}, keeps),
		keepStore:   make(chan struct{}, keepStore),
		failed:      make(chan struct{}),
		view:        head,
		head:        head,
		files:       map[zodb.Oid]*HeadFile{},
		lost:        map[zodb.Oid]*HeadFile{},
		links:       map[*Link]struct{}{},
		vitals:      vitals{began: time.Now()},
		revs:        map[revKey]*keptRev{},
		zheads:      map[*ZheadStream]struct{}{},
		killing:     map[int]int{},
		stalls:      stalls{accounts: map[string]*stallAccount{}},
		owners:      map[any]*owner{},
		queued:      make(chan struct{}, 1),
	}
	c.base = headBase{tid: head, since: time.Now(), hold: c.tail.Hold(head)}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return c, nil
}

// SetPageCache tells the core of the page cache behind the FUSE front; before Run.
func (c *Core) SetPageCache(pc PageCache) { c.pc = pc }

// URL returns the database URL verbatim.
func (c *Core) URL() string { return c.stor.URL() }

// PinTimeout returns the option.
func (c *Core) PinTimeout() time.Duration { return c.opts.PinTimeout }

// T0 is the head of the database when the server started.
func (c *Core) T0() zodb.Tid { return c.tail.T0() }

// Head returns the announced head.
func (c *Core) Head() zodb.Tid {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}

// Failed is closed when the core enters EIO mode.
func (c *Core) Failed() <-chan struct{} { return c.failed }

// Err returns why the core is in EIO mode, or nil.
func (c *Core) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Host is the domain of the FUSE mount.
func (c *Core) Host() *Domain { return c.host }

// Stats are the counters of .wcfs/stats that the core owns.
type Stats struct {
	BigFile, ZHeadLink, WatchLink, Watch, PinnedBlk, Pin, PinKill int64

	Waiting int64 // watch requests under way
	Refused int64 // links, watch requests and bases that were too many
}

// Stats never waits.
func (c *Core) Stats() Stats {
	c.mu.Lock()
	files, zheads := len(c.files), len(c.zheads)
	waiting := 0
	for _, o := range c.owners {
		waiting += o.waiting
	}
	c.mu.Unlock()
	return Stats{
		Waiting: int64(waiting), Refused: c.nRefused.Load(),
		BigFile: int64(files), ZHeadLink: int64(zheads), WatchLink: c.nLink.Load(), Watch: c.nWatch.Load(),
		PinnedBlk: c.nPinned.Load(), Pin: c.nPin.Load(), PinKill: c.nKill.Load(),
	}
}

// fail enters EIO mode: everything that waits is ended, everything answers ErrNotConn from now on.
func (c *Core) fail(cause error) {
	c.mu.Lock()
	if c.failure != nil {
		c.mu.Unlock()
		return
	}
	c.failure, c.failedAt = cause, time.Now()
	c.mu.Unlock()
	c.log.Error("zwatcher failed", "cause", cause)
	c.log.Error("switching filesystem to EIO mode")
	close(c.failed)
	c.cancel(ErrNotConn)
}

// isFailed reports whether the core is in EIO mode.
func (c *Core) isFailed() bool {
	select {
	case <-c.failed:
		return true
	default:
		return false
	}
}

// HeadFiles lists the oids known, ascending.
func (c *Core) HeadFiles() []zodb.Oid {
	c.mu.Lock()
	defer c.mu.Unlock()
	oids := make([]zodb.Oid, 0, len(c.files))
	for oid := range c.files {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	return oids
}

// file returns a known head file, or nil.
func (c *Core) file(oid zodb.Oid) *HeadFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[oid]
}
