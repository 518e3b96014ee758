package tree

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/arrays"
	"wcfs/zcore/zodb"
)

// Options of a tree; the zero value of each field means its default.
type Options struct {
	Debug   bool   // serve .wcfs/debug/
	Version string // content of .wcfs/version

	// OldNames answers a name in bigfile/ that is no oid as existing clients have it, by ErrInvalid; else it is a name
	// like any other that is not there.
	OldNames bool

	// BlankEvery is how long a read of a padded stream waits for a message before it is answered by
	// a blank line; default 5 s. It shows dead clients and frees those who wait for the same file position.
	BlankEvery time.Duration

	// AllFails has .wcfs/health fail in EIO mode as all else does, as clients of old count on. Else it is served then too.
	AllFails bool

	Arrays bool // serve head/arrays/ and @tid/arrays/

	// Tag returns the tid or moment that has a name, for @NAME; it may read a file. nil: there are none.
	Tag func(name string) (moment string, ok bool)

	// MoreStats adds lines to .wcfs/stats. It must not block, and always return the same names.
	MoreStats func() []Stat
}

// FS is the tree over one core. Lock order: mu is a leaf; nothing is called under it.
type FS struct {
	core *zcore.Core
	opts Options
	t0   zodb.Tid // announced head when the tree was made; immutable
	root *dir

	catalog   *arrays.Catalog
	arraySeed maphash.Seed // immutable

	inoBase uint64        // random high bits; immutable
	inoLast atomic.Uint64 // numbers given out so far

	mu    sync.Mutex
	heads map[zodb.Oid]*headFile // guard: mu; grows as the core's own knowledge does
	snaps map[snapKey]*snapshot  // guard: mu; those with references
}

// inoBits is how many numbers an instance has: at a million lookups a second they last twelve days,
// at a thousand for ever. Above them are random bits, so that a later process gives out other numbers.
const inoBits = 40

// New makes the tree over core. It must be called before core.Run.
func New(core *zcore.Core, opts Options) *FS {
	if opts.BlankEvery <= 0 {
		opts.BlankEvery = defaultBlankEvery
	}
	fs := &FS{
		core:    core,
		catalog: arrays.New(core), arraySeed: maphash.MakeSeed(),
		opts:    opts,
		t0:      core.Head(),
		inoBase: (1 + rand.Uint64N(1<<(63-inoBits)-1)) << inoBits, // not 0: small numbers belong to fronts
		heads:   make(map[zodb.Oid]*headFile),
		snaps:   make(map[snapKey]*snapshot),
	}
	fs.root = fs.layout()
	return fs
}

// Root returns the node of "/". It needs no Release.
func (fs *FS) Root() Node { return fs.root }

func (fs *FS) newIno() uint64 { return fs.inoBase + fs.inoLast.Add(1) }

// layout makes the nodes that are there as long as the tree is.
func (fs *FS) layout() *dir {
	head := fs.core.Head
	start := fixedTid(fs.t0)

	ctl := fs.newDir(start)
	ctl.add("zurl", fs.newStatic(fs.core.URL(), start))
	ctl.add("pintimeout", fs.newStatic(fmt.Sprintf("%.1f", fs.core.PinTimeout().Seconds()), start))
	ctl.add("version", fs.newStatic(fs.opts.Version, start))
	health := fs.newVolatile(fs.healthText, head)
	health.always = !fs.opts.AllFails
	ctl.add("health", health)
	ctl.add("stats", fs.newVolatile(fs.statsText, head))
	ctl.add("state", &stateFile{fs.newVolatile(func() string { return fs.stateText(fs.core.Host()) }, head)})
	if fs.opts.Debug {
		debug := fs.newDir(start)
		debug.add("zhead", fs.newStream(Stream, fs.openZhead, 0o444))
		ctl.add("debug", debug)
	}

	h := fs.newDir(head)
	h.add("at", fs.newVolatile(func() string { return fs.core.Head().String() }, head))
	h.add("watch", fs.newStream(Stream, fs.openLink, 0o666))
	h.add("watch9", fs.newStream(Padded, fs.openLink9, 0o666))
	h.add("base", fs.newVolatile(func() string { return fs.core.Base().String() }, head))
	big := &headBigDir{dirBase{fs.newNode()}}
	h.add("bigfile", big)
	if fs.opts.Arrays {
		h.add("arrays", &arrayDir{arrayNode{node: fs.newNode(), root: true}})
	}
	ctl.add("blksize", &blksizeDir{dirBase{fs.newNode()}, big})

	root := fs.newDir(head)
	root.add(".wcfs", ctl)
	if !fs.opts.AllFails {
		root.always, ctl.always = ctl, health
	}
	root.add("head", h)
	root.add("base", &baseDir{dirBase{fs.newNode()}})
	root.more = fs.lookupAtRev
	if fs.opts.OldNames { // else a listing of the root would show what others look at
		root.list = func() []Entry { return fs.listSnaps(false) }
	}
	return root
}

// failed answers ErrNotConn in EIO mode: nothing stale is ever shown.
func (fs *FS) failed() error {
	select {
	case <-fs.core.Failed():
		return ErrNotConn
	default:
		return nil
	}
}

// parseOid reads a name in bigfile/.
func (fs *FS) parseOid(name string) (zodb.Oid, error) {
	oid, err := zodb.ParseOid(name)
	switch {
	case err == nil:
		return oid, nil
	case fs.opts.OldNames:
		return 0, fmt.Errorf("lookup bigfile %q: %w", name, ErrInvalid)
	}
	return 0, fmt.Errorf("lookup bigfile %q: %w", name, ErrNotExist)
}

// sortEntries puts a listing in the order of names.
func sortEntries(list []Entry) []Entry {
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list
}
