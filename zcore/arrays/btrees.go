package arrays

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// btreeClass tells the classes of package BTrees that map keys to values. objects is false where the values are
// numbers, which lead nowhere.
func btreeClass(c record.Class) (bucket, objects, ok bool) {
	if !strings.HasPrefix(c.Module, "BTrees.") || len(c.Name) < 3 {
		return false, false, false
	}
	kind := strings.TrimSuffix(c.Name[2:], "Py")
	return kind == "Bucket", c.Name[1] == 'O', kind == "BTree" || kind == "Bucket"
}

// maxTreeDepth is more than a tree of 2^64 keys has.
const maxTreeDepth = 32

// treeNode is a node of a BTree of any kind.
type treeNode struct {
	keys []*record.Any
	vals []*record.Any // of a leaf, one for each key; of an inner node one more: the children
	leaf bool
}

// decodeNode reads the state of a BTree or bucket; package btree has the same for two kinds of them, and stricter.
//
//	bucket      ((key, value, ...)[, next])
//	BTree       None, or ((state of its only bucket,),), or ((child, key, child, ...), first bucket)
func decodeNode(obj record.AnyObject) (n treeNode, err error) {
	bucket, _, _ := btreeClass(obj.Class)
	st := obj.State
	if st.Kind == record.None {
		return treeNode{leaf: true}, nil
	}
	items, ok := first(st)
	if !bucket && ok && len(st.Items) == 1 {
		if items, ok = first(items); ok {
			items, ok = first(items)
		}
		bucket = true
	}
	if !ok || items.Kind != record.Tuple || len(items.Items)%2 == map[bool]int{true: 1, false: 0}[bucket] {
		return treeNode{}, badf("the state of a %.80q is not as it should be", obj.Class.String())
	}
	n.leaf = bucket
	for i, item := range items.Items {
		if i%2 == map[bool]int{true: 0, false: 1}[bucket] {
			n.keys = append(n.keys, item)
		} else {
			n.vals = append(n.vals, item)
		}
	}
	return n, nil
}

func first(v *record.Any) (*record.Any, bool) {
	if v.Kind != record.Tuple || len(v.Items) == 0 {
		return nil, false
	}
	return v.Items[0], true
}

// eachBucket calls fn for every leaf of a BTree, with the state it is from. A node may be there once only.
func (c *Catalog) eachBucket(ctx context.Context, at zodb.Tid, obj record.AnyObject, fn func(state *record.Any, n treeNode) error) error {
	seen := map[zodb.Oid]bool{}
	for todo := []record.AnyObject{obj}; len(todo) > 0; {
		obj := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n, err := decodeNode(obj)
		if err != nil {
			return err
		}
		if n.leaf {
			if err := fn(obj.State, n); err != nil {
				return err
			}
			continue
		}
		for _, v := range n.vals {
			oid := zodb.Oid(v.Int)
			if v.Kind != record.Ref || seen[oid] {
				return badf("a BTree has a child twice, or one that is no reference")
			}
			seen[oid] = true
			child, err := c.load(ctx, oid, at)
			if err != nil {
				return err
			}
			todo = append(todo, child.AnyObject)
		}
	}
	return nil
}

func badf(format string, args ...any) error { return zodb.Answer(fmt.Errorf(format, args...)) }

// getItem finds a key: by the nodes on the way to it where they can be compared, else by looking at all.
func (c *Catalog) getItem(ctx context.Context, at zodb.Tid, obj record.AnyObject, key Key) (*record.Any, error) {
	for range maxTreeDepth {
		n, err := decodeNode(obj)
		if err != nil {
			return nil, err
		}
		if n.leaf {
			return pick(key, func(yield func(k, v *record.Any) bool) {
				for i, k := range n.keys {
					if !yield(k, n.vals[i]) {
						return
					}
				}
			}), nil
		}
		i, ok := childFor(n, key)
		if !ok {
			return c.scanFor(ctx, at, obj, key)
		}
		if n.vals[i].Kind != record.Ref {
			return nil, badf("the child of a BTree is %s", n.vals[i].Kind)
		}
		child, err := c.load(ctx, zodb.Oid(n.vals[i].Int), at)
		if err != nil {
			return nil, err
		}
		obj = child.AnyObject
	}
	return nil, badf("a BTree is deeper than %d nodes", maxTreeDepth)
}

// childFor returns the child that is responsible for a key; ok is false if that cannot be told.
func childFor(n treeNode, key Key) (child int, ok bool) {
	for i, sep := range n.keys {
		order, ok := compare(key, sep)
		if !ok {
			return 0, false
		}
		if order < 0 {
			return i, true
		}
	}
	return len(n.vals) - 1, len(n.keys) > 0
}

// compare orders a key against a separator as Python does. Characters beyond 16 bits are ordered otherwise by some Python 2.
func compare(key Key, sep *record.Any) (order int, ok bool) {
	switch {
	case sep.Kind == record.Int && (key.Type == 0 || key.Type == 'i'):
		i, err := strconv.ParseInt(key.Text, 10, 64)
		if err != nil {
			return -1, key.Type == 0 // a tree with keys of integers has no such key
		}
		switch {
		case i < sep.Int:
			return -1, true
		case i > sep.Int:
			return 1, true
		}
		return 0, true
	case sep.Kind == record.Text && key.Type == 0, sep.Kind == record.Bytes && (key.Type == 0 || key.Type == 'b'):
		wide := func(r rune) bool { return r > 0xffff }
		if sep.Kind == record.Text && (strings.ContainsFunc(key.Text, wide) || bytes.ContainsFunc(sep.Data, wide)) {
			return 0, false
		}
		return strings.Compare(key.Text, string(sep.Data)), true
	}
	return 0, false
}

// scanFor is getItem where keys cannot be compared.
func (c *Catalog) scanFor(ctx context.Context, at zodb.Tid, obj record.AnyObject, key Key) (found *record.Any, err error) {
	best := 0
	err = c.eachBucket(ctx, at, obj, func(_ *record.Any, n treeNode) error {
		for i, k := range n.keys {
			if rank, ok := key.matches(k); ok && (found == nil || rank < best) {
				found, best = n.vals[i], rank
			}
		}
		return nil
	})
	return found, err
}

// pick returns the value whose key is meant, nil for none.
func pick(key Key, pairs func(yield func(k, v *record.Any) bool)) (found *record.Any) {
	best := 0
	for k, v := range pairs {
		if rank, ok := key.matches(k); ok && (found == nil || rank <= best) {
			found, best = v, rank
		}
	}
	return found
}
