package history

import (
	"slices"
	"sort"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// block is what is known of one tracked block. There may be hundreds of millions, so it holds no pointers, and what
// only some have is elsewhere (File.revs).
type block struct {
	blk     Blk
	zblk    zodb.Oid // noZBlk for a hole
	since   zodb.Tid // LastChange for at >= since is answered by revs, or by base when there are none <= at
	pathMax zodb.Tid // largest serial of the nodes on its path as of since
	zserial zodb.Tid // serial of the ZBlk as last loaded, 0 if unknown
	base    zodb.Tid // LastChange(since), 0 if not asked for yet
	hash    uint64   // of the content with serial zserial; 0 if not known
}

const noZBlk = btree.NoValue

func (b *block) mapping() Mapping {
	if b.zblk == noZBlk {
		return Mapping{Hole: true}
	}
	return Mapping{ZBlk: b.zblk}
}

func (b *block) setMapping(m Mapping) {
	b.zblk = m.ZBlk
	if m.Hole {
		b.zblk = noZBlk
	}
}

// leaves are blocks in order, in arrays of up to leafMax: what is read in order fills them, and
// what is read here and there shares them. Guarded by Tail.mu.
type leaves struct {
	list []leaf // by first
	n    int    // blocks in all
}

type leaf struct {
	first  Blk
	blocks []block // ascending, not empty
}

const (
	leafMax  = 146 // fills what the allocator gives for 8 KiB
	leafStep = 16  // by how many blocks an array grows
)

// at returns the index of the leaf that has blk or is where it belongs. There must be a leaf.
func (l *leaves) at(blk Blk) int {
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].first > blk })
	return max(i-1, 0)
}

func (l *leaf) search(blk Blk) (int, bool) {
	return slices.BinarySearchFunc(l.blocks, blk, func(b block, blk Blk) int {
		switch {
		case b.blk < blk:
			return -1
		case b.blk > blk:
			return 1
		}
		return 0
	})
}

// find returns a block or nil. The pointer is good until the next insert.
func (l *leaves) find(blk Blk) *block {
	if len(l.list) == 0 {
		return nil
	}
	p := &l.list[l.at(blk)]
	if i, ok := p.search(blk); ok {
		return &p.blocks[i]
	}
	return nil
}

// insert adds a block that is not there yet.
func (l *leaves) insert(b block) {
	l.n++
	if len(l.list) == 0 {
		l.list = []leaf{{first: b.blk}}
	}
	i := l.at(b.blk)
	if len(l.list[i].blocks) == leafMax {
		i = l.split(i, b.blk)
	}
	p := &l.list[i]
	j, _ := p.search(b.blk)
	if len(p.blocks) == cap(p.blocks) {
		p.blocks = copyOf(p.blocks, leafStep)
	}
	p.blocks = slices.Insert(p.blocks, j, b)
	p.first = p.blocks[0].blk
}

// split makes room in a leaf and returns the index of where blk belongs then. A sequential reader leaves full
// leaves behind.
func (l *leaves) split(i int, blk Blk) int {
	old := l.list[i].blocks
	half := leafMax / 2
	if i == len(l.list)-1 && blk > old[leafMax-1].blk {
		l.list = append(l.list, leaf{first: blk})
		return i + 1
	}
	l.list[i].blocks = copyOf(old[:half], leafStep)
	l.list = slices.Insert(l.list, i+1, leaf{old[half].blk, copyOf(old[half:], leafStep)})
	if blk >= old[half].blk {
		i++
	}
	return i
}

// copyOf copies with room for n more and whatever else the allocator would waste.
func copyOf(blocks []block, n int) []block {
	out := append([]block(nil), make([]block, len(blocks)+n)...)
	return out[:copy(out, blocks)]
}

// between calls fn for the blocks in [lo, hi].
func (l *leaves) between(lo, hi btree.Key, fn func(*block)) {
	if len(l.list) == 0 || hi < lo {
		return
	}
	for i := l.at(Blk(lo)); i < len(l.list) && btree.Key(l.list[i].first) <= hi; i++ {
		p := &l.list[i]
		j, _ := p.search(Blk(lo))
		for ; j < len(p.blocks) && btree.Key(p.blocks[j].blk) <= hi; j++ {
			fn(&p.blocks[j])
		}
	}
}
