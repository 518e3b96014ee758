package btree

import (
	"context"
	"fmt"
	"slices"

	"wcfs/zcore/zodb"
)

// maxDepth bounds the nodes from a root to a key. A tree of 2^63 keys made by BTrees is 10 deep.
const maxDepth = 100

// walk is one walk over a tree. It belongs to one goroutine.
type walk struct {
	src  Source
	at   zodb.Tid
	path []Step
}

// enter loads the node oid as one that is responsible for [lo, hi], and puts it on the path.
func (w *walk) enter(ctx context.Context, oid zodb.Oid, lo, hi Key) (*Node, error) {
	for _, s := range w.path {
		if s.Oid == oid {
			return nil, w.bad("its child %s is its own ancestor", oid)
		}
	}
	if len(w.path) >= maxDepth {
		return nil, w.bad("the tree is more than %d nodes deep", maxDepth)
	}
	n, serial, err := w.src.Node(ctx, oid, w.at)
	if err != nil {
		if len(w.path) > 0 && zodb.IsAbsent(err) {
			// The error must not match IsAbsent: it is the tree that is broken.
			return nil, w.bad("its child %s is missing as of %s: %v", oid, w.at, err)
		}
		return nil, err
	}
	w.path = append(w.path, Step{Oid: oid, Serial: serial, Node: n, Lo: lo, Hi: hi})
	if len(w.path) == 1 && n.Bucket {
		return nil, w.bad("it is a bucket, not the root of a tree")
	}
	if len(n.Keys) > 0 {
		first, last := n.Keys[0], n.Keys[len(n.Keys)-1]
		// The least key of an inner node lies above lo: its first child covers at least lo.
		if first < lo || last > hi || (!n.Leaf && first == lo) {
			return nil, w.bad("its keys %d to %d are outside of [%d, %d], which its parent gives it", first, last, lo, hi)
		}
	}
	return n, nil
}

// leave takes the node that was entered last off the path.
func (w *walk) leave() { w.path = w.path[:len(w.path)-1] }

// bad makes an error about the node that was entered last.
func (w *walk) bad(format string, args ...any) error {
	s := w.path[len(w.path)-1]
	return &zodb.DataError{Oid: s.Oid, Serial: s.Serial, Pos: -1, Msg: "BTree node: " + fmt.Sprintf(format, args...)}
}

// Child returns the index of the child that covers key.
func (n *Node) Child(key Key) int {
	i, found := slices.BinarySearch(n.Keys, key)
	if found {
		i++
	}
	return i
}

// ChildRange returns the keys that child i covers, both inclusive, in a node that covers [lo, hi].
func (n *Node) ChildRange(i int, lo, hi Key) (Key, Key) {
	if i > 0 {
		lo = n.Keys[i-1]
	}
	if i < len(n.Keys) {
		hi = n.Keys[i] - 1
	}
	return lo, hi
}

func get(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid, key Key) (zodb.Oid, bool, []Step, error) {
	w := walk{src: src, at: at}
	oid, lo, hi := root, KeyMin, KeyMax
	for {
		n, err := w.enter(ctx, oid, lo, hi)
		if err != nil {
			return 0, false, w.path, err
		}
		if n.Leaf {
			i, ok := slices.BinarySearch(n.Keys, key)
			if !ok {
				return 0, false, w.path, nil
			}
			return n.Refs[i], true, w.path, nil
		}
		i := n.Child(key)
		oid = n.Refs[i]
		lo, hi = n.ChildRange(i, lo, hi)
	}
}

func maxKey(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid) (Key, bool, []Step, error) {
	w := walk{src: src, at: at}
	key, ok, err := w.last(ctx, root, KeyMin, KeyMax)
	return key, ok, w.path, err
}

// last finds the largest key below oid and leaves the path at it. BTrees keeps no empty buckets below
// a root, so the last child has it; should that be empty, the one before is tried.
func (w *walk) last(ctx context.Context, oid zodb.Oid, lo, hi Key) (Key, bool, error) {
	n, err := w.enter(ctx, oid, lo, hi)
	if err != nil {
		return 0, false, err
	}
	if n.Leaf {
		if len(n.Keys) == 0 {
			return 0, false, nil
		}
		return n.Keys[len(n.Keys)-1], true, nil
	}
	depth := len(w.path)
	for i := len(n.Refs) - 1; i >= 0; i-- {
		w.path = w.path[:depth]
		clo, chi := n.ChildRange(i, lo, hi)
		if key, ok, err := w.last(ctx, n.Refs[i], clo, chi); ok || err != nil {
			return key, ok, err
		}
	}
	return 0, false, nil
}

func rangeOver(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid, lo, hi Key, fn func(Key, zodb.Oid, []Step) error) error {
	if lo > hi {
		return nil
	}
	w := walk{src: src, at: at}
	return w.visit(ctx, Step{Oid: root, Lo: KeyMin, Hi: KeyMax}, lo, hi, fn)
}

// visit calls fn for the keys in [lo, hi] below the node that s tells.
func (w *walk) visit(ctx context.Context, s Step, lo, hi Key, fn func(Key, zodb.Oid, []Step) error) error {
	n, err := w.enter(ctx, s.Oid, s.Lo, s.Hi)
	if err != nil {
		return err
	}
	defer w.leave()
	if n.Leaf {
		i, _ := slices.BinarySearch(n.Keys, lo)
		for ; i < len(n.Keys) && n.Keys[i] <= hi; i++ {
			if err := fn(n.Keys[i], n.Refs[i], w.path); err != nil {
				return err
			}
		}
		return nil
	}
	for i := n.Child(lo); i < len(n.Refs); i++ {
		clo, chi := n.ChildRange(i, s.Lo, s.Hi)
		if clo > hi {
			break
		}
		if err := w.visit(ctx, Step{Oid: n.Refs[i], Lo: clo, Hi: chi}, lo, hi, fn); err != nil {
			return err
		}
	}
	return nil
}
