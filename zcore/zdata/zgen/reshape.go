package zgen

import (
	"math/rand/v2"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// maxRaise bounds the levels that reshaping makes.
const maxRaise = 6

// reshape changes the form of the tree at random, and no key or value: nodes split, merge, pass
// entries to a neighbour, move a boundary, get a new oid, are written without a change; levels come
// and go; the only bucket moves into the root or out of it; the whole tree is built anew.
func (t *tree) reshape(rng *rand.Rand) {
	if len(t.root.kids) == 0 {
		t.root.dirty = true
		return
	}
	// A random kid of a random inner node; walking down at random favours the upper levels, which
	// is where changes of shape are most telling.
	p := t.root
	for depth := rng.IntN(4); depth > 0; depth-- {
		if k := p.kids[rng.IntN(len(p.kids))]; !k.leaf {
			p = k
		}
	}
	i := rng.IntN(len(p.kids))
	k := p.kids[i]
	switch op := rng.IntN(11); op {
	case 0, 1:
		if k.size() > 1 {
			p.split(i, 1+rng.IntN(k.size()-1))
		}
	case 2, 3:
		if i+1 < len(p.kids) {
			p.merge(i)
		}
	case 4:
		if i+1 < len(p.kids) {
			p.rotate(i, rng)
		}
	case 5:
		if i+1 < len(p.kids) {
			p.moveKey(i, rng)
		}
	case 6: // the only bucket of a tree goes into its root that way
		k.oid = 0
		p.dirty = true
	case 7:
		if t.depth() < maxRaise {
			t.raise()
		}
	case 8:
		t.collapse()
	case 9:
		if k.oid == 0 {
			k.oid = t.alloc()
			p.dirty = true
		}
		k.dirty = true
	case 10:
		t.rebuild(1 + rng.IntN(t.leafMax))
	}
}

func (t *tree) depth() int {
	d := 1
	for n := t.root; !n.leaf && len(n.kids) > 0; n = n.kids[0] {
		d++
	}
	return d
}

// rotate moves the boundary between kids i and i+1, so that entries change places.
func (n *node) rotate(i int, rng *rand.Rand) {
	oid := n.kids[i+1].oid
	n.merge(i)
	n.split(i, 1+rng.IntN(n.kids[i].size()-1))
	n.kids[i+1].oid = oid
}

// moveKey moves the key between kids i and i+1, but past no key below them.
func (n *node) moveKey(i int, rng *rand.Rand) {
	l, r := n.kids[i].leaves(nil), n.kids[i+1].leaves(nil)
	last, first := l[len(l)-1], r[0]
	lo, hi := last.keys[len(last.keys)-1]+1, first.keys[0]
	n.keys[i] = lo + rng.Int64N(hi-lo+1)
	n.dirty = true
}

// collapse takes out the level below the root if it is a single inner node.
func (t *tree) collapse() {
	r := t.root
	if len(r.kids) == 1 && !r.kids[0].leaf {
		r.kids, r.keys = r.kids[0].kids, r.kids[0].keys
		r.dirty = true
	}
}

// rebuild makes every node below the root anew, with at most leafMax values in a bucket.
func (t *tree) rebuild(leafMax int) {
	leaves := t.root.leaves(nil)
	t.root.kids, t.root.keys, t.root.dirty = nil, nil, true
	old := t.leafMax
	t.leafMax = leafMax
	for _, l := range leaves {
		for i, key := range l.keys {
			t.put(key, l.vals[i])
		}
	}
	t.leafMax = old
}

// Shape is a change of form of a blktab, which changes no key or value.
type Shape int

// Shapes. Those of one child of the root are of the one that has the block they are asked for.
const (
	Split   Shape = iota // the child becomes two
	Merge                // the child and the next become one
	Rotate               // the child gives its last entries to the next
	Renew                // the child gets another oid
	Inline               // the only bucket moves into the root
	Outline              // the bucket in the root gets an oid of its own
	Raise                // one more level below the root
	Rebuild              // all nodes but the root anew, one key a bucket
)

// Reshape changes the form of a blktab. It panics where that cannot be done.
func (tx *Tx) Reshape(f zodb.Oid, n zdata.Blk, s Shape) {
	t := tx.file(f).tab
	tx.tab(t)
	p := t.root
	i := p.kid(int64(n))
	k := p.kids[i]
	switch s {
	case Split:
		p.split(i, k.size()/2)
	case Merge:
		p.merge(i)
	case Rotate:
		oid := p.kids[i+1].oid
		cut := k.size() - 1
		p.merge(i)
		p.split(i, cut)
		p.kids[i+1].oid = oid
	case Renew:
		k.oid, k.dirty, p.dirty = t.alloc(), true, true
	case Inline:
		k.oid, p.dirty = 0, true
	case Outline:
		k.oid, k.dirty, p.dirty = t.alloc(), true, true
	case Raise:
		t.raise()
	case Rebuild:
		t.rebuild(1)
	}
}
