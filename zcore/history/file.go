package history

import (
	"slices"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// File is a bigfile that was looked up under head.
type File struct {
	zdata.BigFile          // as of the first lookup; a change of Blksize or Blktab is fatal
	Epoch         zodb.Tid // since when it has its blksize and blktab; 0 if since T0 or before

	chunks  map[Blk]*chunk // Tail.mu; tracked blocks by blk / chunkSize
	tracked int            // Tail.mu; number of tracked blocks
	recent  []sinceRef     // Tail.mu; blocks in the order they became tracked, back to tail
	deltas  []blkDelta     // Tail.mu; δF back to tail
	attrs   []attr         // Tail.mu; size and mtime, by the commits that changed them; back to tail
}

// chunk holds the tracked blocks of chunkSize neighbouring blocks, sorted.
type chunk struct{ blocks []block }

const chunkSize = 64

// block is what is known of one tracked block.
type block struct {
	blk     Blk
	m       Mapping
	since   zodb.Tid   // BlkRevAt for at >= since is answered by revs, or by base when there are none <= at
	pathMax zodb.Tid   // largest serial of the nodes on its path as of since
	zserial zodb.Tid   // serial of the ZBlk as last loaded, 0 if unknown
	base    zodb.Tid   // BlkRevAt(since), 0 if not asked for yet
	hash    uint64     // of the content with serial zserial; 0 if not known
	revs    []zodb.Tid // changes after since, ascending; of those <= tail only the newest
}

type blkDelta struct {
	tid  zodb.Tid
	blks []Blk
}

// attr is what stat shows of a file from tid on.
type attr struct {
	tid   zodb.Tid
	size  int64
	mtime zodb.Tid
}

type sinceRef struct {
	since zodb.Tid
	blk   Blk
}

// nodeRef says that a node is on the path of tracked blocks, or of the last key, of a file. The range
// is the hull of all ranges the node was seen with: too wide costs time, too narrow would miss changes.
type nodeRef struct {
	f      *File
	lo, hi btree.Key
}

type blkRef struct {
	f   *File
	blk Blk
}

// find returns a tracked block or nil. Tail.mu must be held; the pointer is good while it is.
func (f *File) find(blk Blk) *block {
	c := f.chunks[blk/chunkSize]
	if c == nil {
		return nil
	}
	i, ok := c.search(blk)
	if !ok {
		return nil
	}
	return &c.blocks[i]
}

func (c *chunk) search(blk Blk) (int, bool) {
	return slices.BinarySearchFunc(c.blocks, blk, func(b block, blk Blk) int { return int(b.blk - blk) })
}

// insert adds a block that is not tracked yet. Tail.mu must be held.
func (f *File) insert(b block) {
	c := f.chunks[b.blk/chunkSize]
	if c == nil {
		c = &chunk{}
		f.chunks[b.blk/chunkSize] = c
	}
	i, _ := c.search(b.blk)
	c.blocks = slices.Insert(c.blocks, i, b)
	f.tracked++
	f.addRecent(sinceRef{b.since, b.blk})
}

// addRecent inserts in order; nearly always that is the end. Tail.mu must be held.
func (f *File) addRecent(r sinceRef) {
	i := len(f.recent)
	for i > 0 && f.recent[i-1].since > r.since {
		i--
	}
	f.recent = slices.Insert(f.recent, i, r)
}

// setAttr notes size and mtime from tid on. Tail.mu must be held.
func (f *File) setAttr(tid zodb.Tid, size int64, tail zodb.Tid) {
	n := 0
	for n+1 < len(f.attrs) && f.attrs[n+1].tid <= tail {
		n++
	}
	f.attrs = append(f.attrs[n:], attr{tid, size, tid})
}

// lastAttr is the newest. Tail.mu must be held.
func (f *File) lastAttr() attr { return f.attrs[len(f.attrs)-1] }

// between calls fn for the tracked blocks in [lo, hi]. Tail.mu must be held.
func (f *File) between(lo, hi btree.Key, fn func(*block)) {
	clo, chi := Blk(max(lo, 0))/chunkSize, Blk(hi)/chunkSize
	visit := func(c *chunk) {
		for i := range c.blocks {
			if k := btree.Key(c.blocks[i].blk); lo <= k && k <= hi {
				fn(&c.blocks[i])
			}
		}
	}
	if chi-clo < Blk(len(f.chunks)) {
		for n := clo; n <= chi; n++ {
			if c := f.chunks[n]; c != nil {
				visit(c)
			}
		}
		return
	}
	for n, c := range f.chunks {
		if clo <= n && n <= chi {
			visit(c)
		}
	}
}

// dropDeltas forgets changes up to tail. Tail.mu must be held.
func (f *File) dropDeltas(tail zodb.Tid) {
	n := 0
	for n < len(f.deltas) && f.deltas[n].tid <= tail {
		n++
	}
	f.deltas = slices.Delete(f.deltas, 0, n)
}

// dropRecent forgets since when blocks are tracked, for those that were so at tail already: nobody
// asks about an older tid. It runs when the list has doubled. Tail.mu must be held.
func (f *File) dropRecent(tail zodb.Tid) {
	if len(f.recent) < 1024 || len(f.recent) < cap(f.recent) {
		return
	}
	n := 0
	for n < len(f.recent) && f.recent[n].since <= tail {
		n++
	}
	if n > 0 {
		f.recent = append([]sinceRef(nil), f.recent[n:]...)
	}
}

// changed records that the block changed at tid, whose content is not known yet. Tail.mu must be held.
func (b *block) changed(tid, tail zodb.Tid) {
	if n := len(b.revs); n > 0 && b.revs[n-1] == tid {
		return
	}
	for len(b.revs) >= 2 && b.revs[1] <= tail {
		b.revs = b.revs[1:]
	}
	b.revs = append(b.revs, tid)
	b.zserial, b.hash = 0, 0
}

// revAt returns the newest recorded change <= at, or 0. Tail.mu must be held.
func (b *block) revAt(at zodb.Tid) zodb.Tid {
	for i := len(b.revs) - 1; i >= 0; i-- {
		if b.revs[i] <= at {
			return b.revs[i]
		}
	}
	return 0
}
