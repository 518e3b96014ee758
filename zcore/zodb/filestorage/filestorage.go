// Package filestorage reads and follows FileStorage databases: file:///path/Data.fs.
//
// It owns the open file, the index in memory (where the last record of each object is) and the
// goroutine that reads what a writer appends. It never writes, takes no lock file, and needs no index
// file: a right one makes opening fast, else the file is scanned. It does not decode objects and has
// no cache: the kernel's page cache is one.
//
// # How a commit becomes visible
//
// A writer appends a transaction with status 'c' and then changes that byte to ' '. The watcher (follow.go)
// wakes up on notifications for the directory and on a slow tick, and looks at the header at the end of what it
// knows: nothing there, less than a header, status 'c', or a transaction longer than the file mean "not yet".
// The next writer truncates the remains of a crashed writer, so a tail is looked at anew each time.
//
// When a pack has put another file in place, the old one, still open, is read to its end (a packer
// renames under the commit lock, so that end is final), then the new one is opened and indexed while the old
// one goes on answering loads, and then they are swapped. Follow walks from file to file in
// the same way and finds its place by tid.
//
// # Invariants
//
//   - Nothing read from a file is given out before check has said that the file is still the same
//     database (identity.go). Once it is not, everything fails with that.
//   - A dataFile's index, end and last tid change together, under mu, one transaction at a time; once
//     it was replaced they change no more.
//   - Records of transactions before end never change. Loads copy (file, position, end) under
//     mu and then read without any lock.
//   - A file is closed when its last user is gone: the storage, loads, extents, Follow, and the file
//     it replaced (so that Follow, however slow, finds every file in between).
//   - Pointers lead strictly backwards, so every walk ends.
//   - No length from the file is believed before it was compared with what encloses it.
//
// Lock order: there is one lock, Storage.mu; nothing is read or called under it.
package filestorage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/urlparam"
)

// Scheme is what URLs of this driver begin with, up to the colon.
const Scheme = "file"

// Options are the knobs of Open. The zero value is right for nearly everybody.
type Options struct {
	// NoIndex makes Open scan the file even if there is an index.
	NoIndex bool

	// Tick is how often to look at the file when no notification comes, as on network file
	// systems. 0: four times a second.
	Tick time.Duration

	// Grace is for how long following must fail all the time until Follow fails. 0: 2 seconds.
	Grace time.Duration

	// Log is told why an index is not used and that a file was replaced. May be nil.
	Log *slog.Logger
}

// Storage is an open FileStorage.
type Storage struct {
	url, path string
	opt       Options

	stop     context.CancelFunc // ends the watcher
	stopped  chan struct{}      // closed when the watcher has ended
	followed atomic.Bool        // Follow was called
	cut      cutOff             // of the watcher
	buffers  batchBuffers

	mu      sync.RWMutex
	cur     *dataFile     // guarded by mu; written by the watcher only
	head    zodb.Tid      // guarded by mu; never decreases
	phantom zodb.Tid      // guarded by mu, written by the watcher; counts as a transaction of no objects, 0: none
	changed chan struct{} // guarded by mu; closed and replaced whenever head, cur, failed or closed change
	failed  error         // guarded by mu; following has failed for good
	closed  bool          // guarded by mu
}

var (
	_ zodb.Storage      = (*Storage)(nil)
	_ zodb.SerialLoader = (*Storage)(nil)
	_ zodb.Extender     = (*Storage)(nil)
	_ zodb.Lister       = (*Storage)(nil)
	_ zodb.BatchLoader  = (*Storage)(nil)
)

// ErrClosed is what everything answers after Close.
var ErrClosed = zodb.Outage(errors.New("database is closed"))

// Open opens the database at url, file:///path/Data.fs, and begins to follow it. The context bounds
// opening only, which takes long when a large file has to be scanned.
func Open(ctx context.Context, url string, opt Options) (*Storage, error) {
	path, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if opt.Tick <= 0 {
		opt.Tick = time.Second / 4
	}
	if opt.Grace <= 0 {
		opt.Grace = 2 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Storage{url: url, path: path, opt: opt, changed: make(chan struct{}), stopped: make(chan struct{})}
	// The watch begins before the file is read, so that no notification is missed in between.
	poke, unwatch := s.notify()
	s.cur, err = openData(ctx, path, opt)
	if err != nil {
		unwatch()
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	s.head = s.cur.last
	s.lookCut()
	wctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.stopped)
		defer unwatch()
		s.watch(wctx, poke)
	}()
	return s, nil
}

// params: Python's FileStorage takes nothing that changes what is read; stop, which would, has no place in a URL.
var params = urlparam.Scheme{
	Name:   "file URL",
	Python: "create read_only quota blobstorage_dir blobstorage_layout blob_dir pack_gc pack_keep_old",
}

// parseURL returns the path in a file URL.
func parseURL(zurl string) (string, error) {
	path, ok := strings.CutPrefix(zurl, Scheme+"://")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", zodb.URLErrorf("%s: not the URL of a FileStorage: write file:///path/Data.fs", zurl)
	}
	// Clients that already exist put paths into URLs as they are; others escape them.
	if _, err := os.Lstat(path); err == nil {
		return filepath.Clean(path), nil
	}
	path, query, _ := strings.Cut(path, "?")
	if _, err := params.Parse(query); err != nil {
		return "", fmt.Errorf("%s: %w", zurl, err)
	}
	if i := strings.IndexByte(path, '#'); i >= 0 {
		return "", zodb.URLErrorf("%s: no such file, and the URL of a FileStorage takes no fragment: remove %q", zurl, path[i:])
	}
	if _, err := os.Lstat(path); err == nil {
		return filepath.Clean(path), nil
	}
	if p, err := url.PathUnescape(path); err == nil {
		path = p
	}
	return filepath.Clean(path), nil
}

// URL implements zodb.Storage.
func (s *Storage) URL() string { return s.url }

// Head implements zodb.Storage.
func (s *Storage) Head(ctx context.Context) (zodb.Tid, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, fmt.Errorf("%s: head: %w", s.url, ErrClosed)
	}
	return s.head, nil
}

// Close implements zodb.Storage. Extents stay valid until they are released.
func (s *Storage) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.broadcast()
	s.mu.Unlock()

	s.stop()
	<-s.stopped
	s.cur.release() // no load takes it any more, and the watcher, which could replace it, is gone
	return nil
}

// broadcast wakes up whoever waits for a change. mu must be held for writing.
func (s *Storage) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}
