package fsformat

import (
	"encoding/binary"
	"maps"
	"slices"

	"wcfs/zcore/zodb"
)

// MaxPos is the largest position an index can hold: 48 bits, 256 TiB.
const MaxPos = 1<<48 - 1

// Index maps objects to the positions of their last records, in about 8 bytes an object where ids are
// dense: ids that share all but their low 16 bits share a leaf. Not safe for concurrent writing.
type Index struct {
	leaves map[uint64]*leaf // by oid>>16
	n      int
}

// leaf holds the entries of up to 65536 neighbouring ids, sorted. A position is split in two, which
// saves the 2 bytes that a uint64 would waste.
type leaf struct {
	low []uint16 // low bits of the oid
	lo  []uint32 // low bits of the position
	hi  []uint16 // high bits of the position
}

// Entry is an object and the position of its last record.
type Entry struct {
	Oid zodb.Oid
	Pos int64
}

func NewIndex() *Index { return &Index{leaves: map[uint64]*leaf{}} }

// Len returns the number of objects.
func (x *Index) Len() int { return x.n }

// Get returns the position of the last record of oid, 0 if there is none.
func (x *Index) Get(oid zodb.Oid) int64 {
	l := x.leaves[uint64(oid)>>16]
	if l == nil {
		return 0
	}
	if i, ok := slices.BinarySearch(l.low, uint16(oid)); ok {
		return l.pos(i)
	}
	return 0
}

// Set sets the position of the last record of oid.
func (x *Index) Set(oid zodb.Oid, pos int64) {
	l := x.leaves[uint64(oid)>>16]
	if l == nil {
		l = &leaf{}
		x.leaves[uint64(oid)>>16] = l
	}
	low := uint16(oid)
	i, found := len(l.low), false
	if i > 0 && l.low[i-1] >= low { // ids are mostly made in ascending order
		i, found = slices.BinarySearch(l.low, low)
	}
	if found {
		l.lo[i], l.hi[i] = uint32(pos), uint16(pos>>32)
		return
	}
	l.low = slices.Insert(l.low, i, low)
	l.lo = slices.Insert(l.lo, i, uint32(pos))
	l.hi = slices.Insert(l.hi, i, uint16(pos>>32))
	x.n++
}

func (l *leaf) pos(i int) int64 { return int64(l.hi[i])<<32 | int64(l.lo[i]) }

// Groups returns, in ascending order, the names of the groups that Group can list.
func (x *Index) Groups() []uint64 { return slices.Sorted(maps.Keys(x.leaves)) }

// Group appends to buf the entries of one group, at most 65536, in ascending order.
func (x *Index) Group(group uint64, buf []Entry) []Entry {
	l := x.leaves[group]
	if l == nil {
		return buf
	}
	for i, low := range l.low {
		buf = append(buf, Entry{zodb.Oid(group<<16 | uint64(low)), l.pos(i)})
	}
	return buf
}

// Sample returns up to n entries spread over the whole index.
func (x *Index) Sample(n int) []Entry {
	var sample []Entry
	groups := x.Groups()
	perGroup := n/max(1, len(groups)) + 1
	for i := 0; i < len(groups); i += len(groups)/n + 1 {
		l := x.leaves[groups[i]]
		for j := 0; j < len(l.low); j += len(l.low)/perGroup + 1 {
			sample = append(sample, Entry{zodb.Oid(groups[i]<<16 | uint64(l.low[j])), l.pos(j)})
		}
	}
	return sample
}

// setLeaf adds a whole leaf as it is stored on disk: all low halves of ids, 2 bytes each, then all
// positions, 6 bytes each. It reports whether that was in order, with positions in [min, max).
func (x *Index) setLeaf(group uint64, b []byte, minPos, maxPos int64) bool {
	n := len(b) / 8
	if n == 0 || len(b)%8 != 0 || n > 1<<16 || x.leaves[group] != nil {
		return false
	}
	l := &leaf{low: make([]uint16, n), lo: make([]uint32, n), hi: make([]uint16, n)}
	for i := range n {
		l.low[i] = binary.BigEndian.Uint16(b[2*i:])
		p := b[2*n+6*i:]
		l.hi[i], l.lo[i] = binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])
		if pos := l.pos(i); pos < minPos || pos >= maxPos || i > 0 && l.low[i] <= l.low[i-1] {
			return false
		}
	}
	x.leaves[group] = l
	x.n += n
	return true
}

// appendLeaf is the reverse of setLeaf.
func (x *Index) appendLeaf(b []byte, group uint64) []byte {
	l := x.leaves[group]
	for _, low := range l.low {
		b = binary.BigEndian.AppendUint16(b, low)
	}
	for i := range l.low {
		b = binary.BigEndian.AppendUint16(b, l.hi[i])
		b = binary.BigEndian.AppendUint32(b, l.lo[i])
	}
	return b
}
