package history

import (
	"math"
	"slices"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// fileNo stands for a file, so that what there is one of for each tracked block and node holds no pointer.
type fileNo uint32

// nodeRef says that a node is on the path of tracked blocks, or of the last key, of a file. The range
// is the hull of all ranges the node was seen with: too wide costs time, too narrow would miss changes.
type nodeRef struct {
	file fileNo
	span uint32    // last key less lo; wide: no end
	lo   btree.Key // >= 0, as the numbers of blocks are
}

const wide = math.MaxUint32

func newNodeRef(f *File, lo, hi btree.Key) nodeRef {
	r := nodeRef{file: f.no, lo: max(lo, 0), span: wide}
	if n := hi - r.lo; n < wide {
		r.span = uint32(max(n, 0))
	}
	return r
}

func (r nodeRef) hi() btree.Key {
	if r.span == wide {
		return btree.KeyMax
	}
	return r.lo + btree.Key(r.span)
}

func (r nodeRef) has(blk Blk) bool { return r.lo <= btree.Key(blk) && btree.Key(blk) <= r.hi() }

// blkRef is a block that a ZBlk serves.
type blkRef struct {
	file fileNo
	blk  Blk
}

// refs is an index from objects to what depends on them: nearly always one thing.
type refs[R comparable] struct {
	one  map[zodb.Oid]R
	more map[zodb.Oid][]R // further ones
}

func newRefs[R comparable]() refs[R] {
	return refs[R]{map[zodb.Oid]R{}, map[zodb.Oid][]R{}}
}

// appendOf appends what depends on oid.
func (x *refs[R]) appendOf(list []R, oid zodb.Oid) []R {
	r, ok := x.one[oid]
	if !ok {
		return list
	}
	list = append(list, r)
	if len(x.more) > 0 {
		list = append(list, x.more[oid]...)
	}
	return list
}

func (x *refs[R]) add(oid zodb.Oid, r R) {
	if _, taken := x.one[oid]; taken {
		x.more[oid] = append(x.more[oid], r)
		return
	}
	x.one[oid] = r
}

// replace puts now in place of was, which is there.
func (x *refs[R]) replace(oid zodb.Oid, was, now R) {
	if x.one[oid] == was {
		x.one[oid] = now
		return
	}
	more := x.more[oid]
	more[slices.Index(more, was)] = now
}

func (x *refs[R]) drop(oid zodb.Oid, r R) {
	more := x.more[oid]
	if x.one[oid] != r {
		more = slices.DeleteFunc(more, func(other R) bool { return other == r })
	} else if n := len(more); n > 0 {
		x.one[oid], more = more[n-1], more[:n-1]
	} else {
		delete(x.one, oid)
	}
	if len(more) == 0 {
		delete(x.more, oid)
	} else {
		x.more[oid] = more
	}
}
