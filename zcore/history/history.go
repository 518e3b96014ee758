// Package history knows which block of which bigfile changed when: the ΔFtail of wendelin.core.
//
// It owns
//   - the list of published commits (δZ), how far back it reaches, and the holds that keep it;
//   - the MVCC caches whose validity follows from that list: BTree nodes, and recently used blocks;
//   - the set of tracked blocks: those that were returned to a reader who may cache them;
//   - δF, the changed tracked blocks of a commit, and BlkRevAt.
//
// It does not own the current view or the announced head, nor watches, nor any page cache: zcore does.
//
// Invariant of tracking: under mu, every tracked block and node is right as of the last published
// commit, except for what commits touch whose Delta has not returned yet. Track keeps it by refusing
// (in the critical section in which it would insert) a lookup made at a view after which a published
// commit touched the path.
//
// Before T0: clients of an earlier server come back at the tid they had. So a watch may begin as far before T0 as the
// retention reaches, until commits made since T0 are trimmed. What is asked about that time is asked of the database:
// no block was tracked then, so nothing recorded can be wrong about it, and no cache takes it for known (they begin at
// tail, which is T0). A driver needs nothing for that but LoadAt, and SerialAt makes it cheap.
//
// Locks: one mutex, Tail.mu. Nothing is loaded, called back or waited for under it.
package history

import (
	"context"
	"hash/maphash"
	"sort"
	"sync"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// DefaultRetention is how long commits are remembered where nothing else is asked for.
const DefaultRetention = time.Minute

// Options of a Tail; zero values mean the defaults.
type Options struct {
	Retention  time.Duration    // how long commits are remembered at least, and how far before T0 watches may begin; default DefaultRetention
	NodeBytes  int              // bound of the node cache; default 64 MiB
	BlockBytes int              // bound of the cache of recently used blocks; default 64 MiB
	ListBytes  int              // bound of what holds keep of the list of commits, see Overfull; default 256 MiB
	Now        func() time.Time // default time.Now

	// Answered is called when the database has answered a load, be it that there is no such object.
	Answered func()

	// Retry repeats a load of Delta or CheckFiles that failed in an outage until it succeeds: both need many loads, and where now and
	// then one fails would never end if they began anew. nil: there is no second try.
	Retry func(ctx context.Context, load func() error) error
}

// Tail is the history of a database since T0, as far as it is remembered.
type Tail struct {
	stor zodb.Storage
	t0   zodb.Tid
	back zodb.Tid // how far before t0 watches may begin
	opts Options
	seed maphash.Seed

	mu       sync.Mutex
	list     []published        // mu; ascending; covers (tail, head]
	tail     zodb.Tid           // mu; >= t0
	head     zodb.Tid           // mu; last published
	bytes    int                // mu; about what list and touches take
	touches  touches            // mu; which commits in list touched an object
	lastGap  zodb.Tid           // mu; Tid of the newest gap in list
	gaps     []gap              // mu; unknown changes, ascending
	holds    map[*Hold]struct{} // mu
	files    map[zodb.Oid]*File // mu; by oid of the ZBigFile
	byNo     []*File            // mu; by File.no; nil: it is lost and nothing refers to it
	nodeRefs refs[nodeRef]      // mu; tracked nodes
	blkRefs  refs[blkRef]       // mu; tracked ZBlk -> the blocks it serves
	nodes    *mvcc[*btree.Node] // mu
	blocks   *mvcc[*Block]      // mu
	calls    map[callKey]*call  // mu; block loads under way
	shapes   shapes             // has its own mutex, a leaf
	trimmed  time.Time          // mu; when the list was last trimmed

	meter meter
}

// published is one commit in the list.
type published struct {
	zodb.Commit
	when  time.Time
	files []*File // files with a δF of this commit
}

// gap says that changes in (lo, hi) are unknown.
type gap struct{ lo, hi zodb.Tid }

// Hold keeps the list of commits from being trimmed beyond a tid.
type Hold struct {
	t   *Tail
	tid zodb.Tid // t.mu
}

// New starts a history at t0, the head of the database when the server started.
func New(stor zodb.Storage, t0 zodb.Tid, opts Options) *Tail {
	if opts.Retention == 0 {
		opts.Retention = DefaultRetention
	}
	if opts.NodeBytes == 0 {
		opts.NodeBytes = 64 << 20
	}
	if opts.BlockBytes == 0 {
		opts.BlockBytes = 64 << 20
	}
	if opts.ListBytes == 0 {
		opts.ListBytes = 256 << 20
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Tail{
		stor: stor, t0: t0, back: before(t0, opts.Retention), opts: opts, seed: maphash.MakeSeed(), tail: t0, head: t0,
		touches:  newTouches(),
		holds:    map[*Hold]struct{}{},
		files:    map[zodb.Oid]*File{},
		nodeRefs: newRefs[nodeRef](),
		blkRefs:  newRefs[blkRef](),
		nodes:    newMVCC[*btree.Node](opts.NodeBytes),
		blocks:   newMVCC[*Block](opts.BlockBytes),
		calls:    map[callKey]*call{},
		shapes:   shapes{m: map[zodb.Oid]shape{}},
	}
}

// before returns the tid that is d earlier than t0.
func before(t0 zodb.Tid, d time.Duration) zodb.Tid {
	then := t0.Time().Add(-d)
	if then.Year() < 1900 { // no tid is that early
		return 0
	}
	return min(zodb.TidFromTime(then), t0)
}

// T0 is the head of the database when the server started.
func (t *Tail) T0() zodb.Tid { return t.t0 }

// Bounds returns the oldest tid of which changes are known or can be asked for, and the last published one.
func (t *Tail) Bounds() (oldest, published zodb.Tid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tail == t.t0 {
		return t.back, t.head
	}
	return t.tail, t.head
}

// Hold keeps all commits > tid in the list, as far as they are still there.
func (t *Tail) Hold(tid zodb.Tid) *Hold {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holdLocked(tid)
}

func (t *Tail) holdLocked(tid zodb.Tid) *Hold {
	h := &Hold{t: t, tid: tid}
	t.holds[h] = struct{}{}
	return h
}

// Move makes the hold keep all commits > tid; it cannot bring back what is gone.
func (h *Hold) Move(tid zodb.Tid) {
	h.t.mu.Lock()
	h.tid = tid
	h.t.mu.Unlock()
}

// Release ends the hold. It may be called more than once.
func (h *Hold) Release() {
	h.t.mu.Lock()
	delete(h.t.holds, h)
	h.t.mu.Unlock()
}

// Publish makes commits known: from its return on, what they touch is not valid beyond them. They
// must be newer than all before, in order.
func (t *Tail) Publish(commits []zodb.Commit) {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range commits {
		p := published{Commit: c, when: now}
		t.list = append(t.list, p)
		t.bytes += p.size()
		if c.Gap != 0 {
			t.lastGap = c.Tid
			t.gaps = append(t.gaps, gap{c.Gap, c.Tid})
			t.nodes.closeAll(c.Gap + 1)
			t.blocks.closeAll(c.Gap + 1)
		}
		for _, oid := range c.Oids {
			t.touches.add(oid, c.Tid)
			t.nodes.closeAt(oid, c.Tid)
			t.blocks.closeAt(oid, c.Tid)
		}
		t.head = c.Tid
	}
}

// Trim forgets commits that are older than the retention and that nothing holds. It does little more
// than look at the clock when called often.
func (t *Tail) Trim() {
	now := t.opts.Now()
	t.mu.Lock()
	due := now.Sub(t.trimmed) >= t.opts.Retention/100
	t.mu.Unlock()
	if due {
		t.TrimNow()
	}
}

// trimStep is how many commits are forgotten before others get at mu.
const trimStep = 4096

// TrimNow is Trim, whenever the last was.
func (t *Tail) TrimNow() {
	now := t.opts.Now()
	for t.trimSome(now) {
	}
}

// trimSome forgets some commits, and tells whether there may be more.
func (t *Tail) trimSome(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trimmed = now
	keep := t.heldLocked()
	n := 0
	files := map[*File]bool{}
	for n < min(len(t.list), trimStep) && t.list[n].Tid <= keep && now.Sub(t.list[n].when) > t.opts.Retention {
		for _, f := range t.list[n].files {
			files[f] = true
		}
		t.dropLocked(t.list[n])
		n++
	}
	clear(t.list[:n])
	t.list = t.list[n:] // what is before it goes when append makes room
	for f := range files {
		f.dropDeltas(t.tail)
	}
	if len(t.list) == 0 {
		t.list = nil
	}
	return n == trimStep
}

// heldLocked returns the tid after which all commits are kept. mu must be held.
func (t *Tail) heldLocked() zodb.Tid {
	keep := t.head
	for h := range t.holds {
		keep = min(keep, h.tid)
	}
	return keep
}

func (t *Tail) dropLocked(p published) {
	t.tail = p.Tid
	t.bytes -= p.size()
	for _, oid := range p.Oids {
		t.touches.drop(oid, p.Tid)
	}
	for len(t.gaps) > 0 && t.gaps[0].hi <= p.Tid {
		t.gaps = t.gaps[1:]
	}
}

// size is about what a commit takes in the list and in touches, bytes.
func (p published) size() int { return 96 + 40*len(p.Oids) }

// Overfull reports whether the list takes more than its bound because of what is held, and then which tid holds it.
func (t *Tail) Overfull() (held zodb.Tid, yes bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes <= t.opts.ListBytes || len(t.list) == 0 || t.opts.Now().Sub(t.list[0].when) <= t.opts.Retention {
		return 0, false
	}
	return t.heldLocked(), true
}

// Tid returns what the hold keeps all commits after.
func (h *Hold) Tid() zodb.Tid {
	h.t.mu.Lock()
	defer h.t.mu.Unlock()
	return h.tid
}

// after returns the index in list of the first commit > tid. mu must be held.
func (t *Tail) after(tid zodb.Tid) int {
	return sort.Search(len(t.list), func(i int) bool { return t.list[i].Tid > tid })
}

// touchedAfter returns the newest published commit > v that touched oid, or 0. mu must be held; v
// must be held too.
func (t *Tail) touchedAfter(oid zodb.Oid, v zodb.Tid) zodb.Tid {
	if w := max(t.touches.last[oid], t.lastGap); w > v {
		return w
	}
	return 0
}

// firstTouch returns the first commit > v that touched oid, or TidMax; for a gap, the tid at which
// knowledge ends. mu must be held.
func (t *Tail) firstTouch(oid zodb.Oid, v zodb.Tid) zodb.Tid {
	first := t.touches.after(oid, v)
	if i := t.gapAfter(v); i < len(t.gaps) && t.gaps[i].hi <= first {
		return max(t.gaps[i].lo, v) + 1
	}
	return first
}

// gapAfter returns the index of the first gap that ends after v. mu must be held.
func (t *Tail) gapAfter(v zodb.Tid) int {
	return sort.Search(len(t.gaps), func(i int) bool { return t.gaps[i].hi > v })
}

// stamp returns the newest commit <= at in the list that touched oid, or 0 if none did since tail.
// mu must be held.
func (t *Tail) stamp(oid zodb.Oid, at zodb.Tid) zodb.Tid {
	last := t.touches.upTo(oid, at)
	if i := t.gapAfter(at); i > 0 {
		last = max(last, t.gaps[i-1].hi)
	}
	return last
}

// Unknown reports whether at lies inside a gap, where it is not known which objects changed.
func (t *Tail) Unknown(at zodb.Tid) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unknown(at)
}

// unknown is Unknown; mu must be held.
func (t *Tail) unknown(at zodb.Tid) bool {
	i := t.gapAfter(at)
	return i < len(t.gaps) && t.gaps[i].lo < at
}

// Mapping is what blktab says about a block.
type Mapping struct {
	ZBlk zodb.Oid
	Hole bool // nothing is there; ZBlk is 0
}

// Blk is the number of a block in its file.
type Blk = zdata.Blk
