package history

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"wcfs/zcore/zodb/btree"
)

// TestLeaves compares leaves with a sorted list.
func TestLeaves(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 30 {
		var l leaves
		var all []Blk
		limit := int64(1) << rng.IntN(40)
		for range rng.IntN(3000) {
			blk := Blk(rng.Int64N(limit))
			if n := len(all); n > 0 && round%3 == 0 {
				blk = all[n-1] + 1 // in order
			}
			i, there := slices.BinarySearch(all, blk)
			if b := l.find(blk); (b != nil) != there || there && b.blk != blk {
				t.Fatalf("seed %d: find(%d): %+v", seed, blk, b)
			}
			if !there {
				l.insert(block{blk: blk})
				all = slices.Insert(all, i, blk)
			}
		}
		if l.n != len(all) {
			t.Fatalf("seed %d: %d blocks, want %d", seed, l.n, len(all))
		}
		for range 50 {
			lo, hi := btree.Key(rng.Int64N(limit)), btree.Key(rng.Int64N(limit))
			if rng.IntN(4) == 0 {
				lo, hi = btree.KeyMin, btree.KeyMax
			}
			var got, want []Blk
			l.between(lo, hi, func(b *block) { got = append(got, b.blk) })
			for _, blk := range all {
				if lo <= btree.Key(blk) && btree.Key(blk) <= hi {
					want = append(want, blk)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: between %d and %d: %d blocks, want %d", seed, lo, hi, len(got), len(want))
			}
		}
	}
}

// TestNodeRef: a range as it is kept is never narrower than what it stands for.
func TestNodeRef(t *testing.T) {
	f := &File{no: 3}
	for _, c := range []struct {
		lo, hi, wantLo, wantHi btree.Key
	}{
		{btree.KeyMin, btree.KeyMax, 0, btree.KeyMax}, {btree.KeyMin, 29, 0, 29}, {5, 5, 5, 5}, {0, 1<<32 - 2, 0, 1<<32 - 2},
		{7, 1<<32 + 7, 7, btree.KeyMax}, {1 << 60, btree.KeyMax, 1 << 60, btree.KeyMax}, {btree.KeyMin, -1, 0, 0},
		{btree.KeyMax - 2, btree.KeyMax, btree.KeyMax - 2, btree.KeyMax}, {-5, 3, 0, 3},
	} {
		r := newNodeRef(f, c.lo, c.hi)
		if r.file != 3 || r.lo != c.wantLo || r.hi() != c.wantHi {
			t.Errorf("[%d, %d] is kept as [%d, %d]", c.lo, c.hi, r.lo, r.hi())
		}
	}
}
