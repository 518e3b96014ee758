package zgen

import (
	"slices"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// ref is an object and its class.
type ref struct {
	oid   zodb.Oid
	class record.Class
}

// node is a bucket (leaf) or an inner node. All leaves of a tree are equally deep.
type node struct {
	oid   zodb.Oid // 0: not stored yet, or the only bucket, inside its root
	leaf  bool
	keys  []int64 // leaf: ascending, one per value; inner: one between each two kids
	vals  []ref   // leaf
	kids  []*node // inner
	dirty bool    // to be written
	link  zodb.Oid
	// link is the next bucket (leaf) or first bucket (inner) as written last.
}

// tree is a BTree in memory that is kept in step with its records.
type tree struct {
	flavour          record.BTree
	root             *node // inner; without kids: empty
	leafMax, nodeMax int
	alloc            func() zodb.Oid
}

func newTree(flavour record.BTree, leafMax, nodeMax int, alloc func() zodb.Oid) *tree {
	return &tree{flavour, &node{oid: alloc(), dirty: true}, leafMax, nodeMax, alloc}
}

// kid returns which kid covers key.
func (n *node) kid(key int64) int {
	i, found := slices.BinarySearch(n.keys, key)
	if found {
		i++
	}
	return i
}

// size is the number of values or kids.
func (n *node) size() int { return len(n.vals) + len(n.kids) }

// path returns the nodes from the root to the leaf for key, and under each but the last which kid.
func (t *tree) path(key int64) (nodes []*node, at []int) {
	n := t.root
	for {
		nodes = append(nodes, n)
		if n.leaf || len(n.kids) == 0 {
			return nodes, at
		}
		i := n.kid(key)
		at = append(at, i)
		n = n.kids[i]
	}
}

func (t *tree) get(key int64) (ref, bool) {
	nodes, _ := t.path(key)
	n := nodes[len(nodes)-1]
	if i, found := slices.BinarySearch(n.keys, key); found && n.leaf {
		return n.vals[i], true
	}
	return ref{}, false
}

func (t *tree) put(key int64, v ref) {
	if len(t.root.kids) == 0 {
		t.root.kids = []*node{{leaf: true}}
		t.root.dirty = true
	}
	nodes, at := t.path(key)
	n := nodes[len(nodes)-1]
	i, found := slices.BinarySearch(n.keys, key)
	if found && n.vals[i] == v {
		return
	}
	n.dirty = true
	if found {
		n.vals[i] = v
		return
	}
	n.keys = slices.Insert(n.keys, i, key)
	n.vals = slices.Insert(n.vals, i, v)
	for d := len(nodes) - 1; d > 0; d-- {
		max := t.nodeMax
		if nodes[d].leaf {
			max = t.leafMax
		}
		if size := nodes[d].size(); size > max {
			nodes[d-1].split(at[d-1], size/2)
		}
	}
	if size := t.root.size(); size > t.nodeMax {
		t.raise()
		t.root.split(0, size/2)
	}
}

// del removes key; nodes that become empty go, up to the root, which becomes empty.
func (t *tree) del(key int64) {
	nodes, at := t.path(key)
	n := nodes[len(nodes)-1]
	i, found := slices.BinarySearch(n.keys, key)
	if !found || !n.leaf {
		return
	}
	n.keys = slices.Delete(n.keys, i, i+1)
	n.vals = slices.Delete(n.vals, i, i+1)
	n.dirty = true
	for d := len(nodes) - 1; d > 0 && nodes[d].size() == 0; d-- {
		nodes[d-1].drop(at[d-1])
	}
}

// split moves what follows position cut in kid i to a new kid after it.
func (n *node) split(i, cut int) {
	l := n.kids[i]
	r := &node{leaf: l.leaf, dirty: true}
	l.dirty, n.dirty = true, true
	var sep int64
	if l.leaf {
		sep = l.keys[cut]
		r.vals, l.vals = slices.Clone(l.vals[cut:]), l.vals[:cut]
		r.keys, l.keys = slices.Clone(l.keys[cut:]), l.keys[:cut]
	} else {
		sep = l.keys[cut-1]
		r.kids, l.kids = slices.Clone(l.kids[cut:]), l.kids[:cut]
		r.keys, l.keys = slices.Clone(l.keys[cut:]), l.keys[:cut-1]
	}
	n.kids = slices.Insert(n.kids, i+1, r)
	n.keys = slices.Insert(n.keys, i, sep)
}

// merge joins kid i+1 to kid i.
func (n *node) merge(i int) {
	l, r := n.kids[i], n.kids[i+1]
	if !l.leaf {
		l.keys = append(l.keys, n.keys[i])
	}
	l.keys = append(l.keys, r.keys...)
	l.vals = append(l.vals, r.vals...)
	l.kids = append(l.kids, r.kids...)
	l.dirty = true
	n.drop(i + 1)
}

// drop removes kid i.
func (n *node) drop(i int) {
	n.kids = slices.Delete(n.kids, i, i+1)
	if len(n.keys) > 0 {
		i = max(i-1, 0)
		n.keys = slices.Delete(n.keys, i, i+1)
	}
	n.dirty = true
}

// raise puts a new node between the root and its kids.
func (t *tree) raise() {
	r := t.root
	r.kids, r.keys = []*node{{kids: r.kids, keys: r.keys, dirty: true}}, nil
	r.dirty = true
}

// leaves appends the buckets below n in order.
func (n *node) leaves(all []*node) []*node {
	if n.leaf {
		return append(all, n)
	}
	for _, k := range n.kids {
		all = k.leaves(all)
	}
	return all
}

// max returns the largest key, ok false when there is none.
func (t *tree) max() (key int64, ok bool) {
	n := t.root
	for !n.leaf {
		if len(n.kids) == 0 {
			return 0, false
		}
		n = n.kids[len(n.kids)-1]
	}
	return n.keys[len(n.keys)-1], true
}

// inline tells whether the tree is a root with its only bucket inside.
func (t *tree) inline() bool {
	k := t.root.kids
	return len(k) == 1 && k[0].leaf && k[0].oid == 0
}

// write puts the records of all nodes that changed since the last write into objs.
func (t *tree) write(style record.Style, objs map[zodb.Oid][]byte) {
	r := t.root
	if len(r.kids) == 0 || t.inline() {
		var items []record.Item
		dirty := r.dirty
		for _, k := range r.kids {
			items = k.items()
			dirty = dirty || k.dirty
			k.dirty = false
		}
		if dirty {
			objs[r.oid] = style.InlineTree(t.flavour, items)
		}
		r.dirty, r.link = false, 0
		return
	}
	t.number(r)
	leaves := r.leaves(nil)
	for i, l := range leaves {
		next := zodb.Oid(0)
		if i+1 < len(leaves) {
			next = leaves[i+1].oid
		}
		if l.dirty || l.link != next {
			objs[l.oid] = style.Bucket(t.flavour, l.items(), next)
		}
		l.dirty, l.link = false, next
	}
	t.writeInner(r, style, objs)
}

// number gives oids to nodes without one.
func (t *tree) number(n *node) {
	if n.oid == 0 {
		n.oid = t.alloc()
		n.dirty = true
	}
	for _, k := range n.kids {
		t.number(k)
	}
}

// writeInner writes the inner nodes below and at n, and returns the first bucket below n.
func (t *tree) writeInner(n *node, style record.Style, objs map[zodb.Oid][]byte) (first zodb.Oid) {
	if n.leaf {
		return n.oid
	}
	for i, k := range n.kids {
		if f := t.writeInner(k, style, objs); i == 0 {
			first = f
		}
	}
	if n.dirty || n.link != first {
		children := make([]record.Item, len(n.kids))
		for i, k := range n.kids {
			children[i] = record.Item{Oid: k.oid, Class: t.flavour.TreeClass()}
			if k.leaf {
				children[i].Class = t.flavour.BucketClass()
			}
			if i > 0 {
				children[i].Key = n.keys[i-1]
			}
		}
		objs[n.oid] = style.Tree(t.flavour, children, first)
	}
	n.dirty, n.link = false, first
	return first
}

// items returns the content of a leaf.
func (n *node) items() []record.Item {
	items := make([]record.Item, len(n.keys))
	for i, v := range n.vals {
		items[i] = record.Item{Key: n.keys[i], Oid: v.oid, Class: v.class}
	}
	return items
}
