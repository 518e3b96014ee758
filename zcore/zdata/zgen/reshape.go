package zgen

import "math/rand/v2"

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
