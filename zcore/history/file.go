package history

import (
	"slices"
	"sort"
	"sync/atomic"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// File is a bigfile that was looked up under head.
type File struct {
	zdata.BigFile          // as of the first lookup; after a change of Blksize or Blktab it is lost
	Epoch         zodb.Tid // since when it has its blksize and blktab; 0: for longer than can be asked about

	no   fileNo      // index in Tail.byNo
	lost atomic.Bool // set under Tail.mu: nothing of it is tracked any more

	blocks leaves             // Tail.mu; tracked blocks
	revs   map[Blk][]zodb.Tid // Tail.mu; changes of tracked blocks after since, ascending; of those <= tail only the newest
	recent []sinceRef         // Tail.mu; blocks in the order they became tracked, back to tail
	deltas []blkDelta         // Tail.mu; δF back to tail
	attrs  []attr             // Tail.mu; size and mtime, by the commits that changed them; back to tail
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

// find returns a tracked block or nil. Tail.mu must be held; the pointer is good while it is.
func (f *File) find(blk Blk) *block { return f.blocks.find(blk) }

// insert adds a block that is not tracked yet. Tail.mu must be held.
func (f *File) insert(b block) {
	f.blocks.insert(b)
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

// dropDeltas forgets changes up to tail. Tail.mu must be held.
func (f *File) dropDeltas(tail zodb.Tid) {
	n := f.deltaAfter(tail)
	clear(f.deltas[:n])
	if f.deltas = f.deltas[n:]; len(f.deltas) == 0 { // else what is before it goes when append makes room
		f.deltas = nil
	}
}

// deltaAfter returns the index of the first delta > tid. Tail.mu must be held.
func (f *File) deltaAfter(tid zodb.Tid) int {
	return sort.Search(len(f.deltas), func(i int) bool { return f.deltas[i].tid > tid })
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
func (f *File) changed(b *block, tid, tail zodb.Tid) {
	revs := f.revs[b.blk]
	if n := len(revs); n > 0 && revs[n-1] == tid {
		return
	}
	for len(revs) >= 2 && revs[1] <= tail {
		revs = revs[1:]
	}
	f.revs[b.blk] = append(revs, tid)
	b.zserial, b.hash = 0, 0
}

// revAt returns the newest recorded change <= at, or 0. Tail.mu must be held.
func (f *File) revAt(blk Blk, at zodb.Tid) zodb.Tid {
	revs := f.revs[blk]
	for i := len(revs) - 1; i >= 0; i-- {
		if revs[i] <= at {
			return revs[i]
		}
	}
	return 0
}

// current reports whether nothing is recorded to have changed after v. Tail.mu must be held.
func (f *File) current(b *block, v zodb.Tid) bool {
	revs := f.revs[b.blk]
	return b.since <= v && (len(revs) == 0 || revs[len(revs)-1] <= v)
}
