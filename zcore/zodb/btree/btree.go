// Package btree reads LOBTree and IOBTree nodes of the Python package BTrees.
//
// It owns the decoded form of a node and the walks over a tree: lookup, range scan, last key, each
// reading only the nodes on the way. It does not own a cache: walks get nodes from a Source.
//
// A decoded Node is immutable and safe to share.
package btree

import (
	"context"

	"wcfs/zcore/zodb"
)

// Key is a key of an LOBTree (64 bit) or an IOBTree (32 bit, widened).
type Key int64

// Least and last possible keys: a root covers [KeyMin, KeyMax].
const (
	KeyMin Key = -1 << 63
	KeyMax Key = 1<<63 - 1
)

// Node is one persistent node: an inner node, a bucket, or a root that holds its only bucket inline.
//
//   - inner node: Leaf is false, len(Refs) >= 1, len(Keys) == len(Refs)-1; child i covers keys from
//     Keys[i-1] (or the node's own low bound) up to, not including, Keys[i].
//   - bucket or root with an inline bucket: Leaf is true, Keys[i] maps to Refs[i] (NoValue for None), keys ascend.
//   - empty tree: Leaf is true, no keys.
type Node struct {
	Leaf   bool
	Bucket bool // the object itself is a bucket (class ...Bucket), not a tree with an inline one
	Keys   []Key
	Refs   []zodb.Oid
}

// NoValue stands for None as the value of a key. No database gives out this oid.
const NoValue = ^zodb.Oid(0)

// Decode decodes the record of a LOBTree, LOBucket, IOBTree or IOBucket. oid and serial are for errors.
// Errors are *zodb.DataError.
func Decode(oid zodb.Oid, rec zodb.Record) (*Node, error) { return decode(oid, rec) }

// Source gives nodes as of a revision. The node cache of package history is one; so is Direct.
type Source interface {
	Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (n *Node, serial zodb.Tid, err error)
}

// Step is one node on the way from the root to a key.
type Step struct {
	Oid    zodb.Oid
	Serial zodb.Tid
	Node   *Node
	Lo, Hi Key // the node is responsible for keys in [Lo, Hi], both inclusive
}

// Get looks key up in the tree with that root. path has every node visited, root first, also when the
// key is not there. A tree whose nodes form a cycle, or are out of order: *zodb.DataError.
func Get(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid, key Key) (val zodb.Oid, ok bool, path []Step, err error) {
	return get(ctx, src, root, at, key)
}

// MaxKey returns the largest key and the path to it; ok is false when the tree is empty.
func MaxKey(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid) (key Key, ok bool, path []Step, err error) {
	return maxKey(ctx, src, root, at)
}

// Range calls fn for every key in [lo, hi] in ascending order, with the nodes on the way to it
// (path is reused between calls). It reads no node outside that range.
func Range(ctx context.Context, src Source, root zodb.Oid, at zodb.Tid, lo, hi Key, fn func(key Key, val zodb.Oid, path []Step) error) error {
	return rangeOver(ctx, src, root, at, lo, hi, fn)
}

// Direct is a Source without a cache over a storage.
type Direct struct{ Storage zodb.Storage }

// Node loads and decodes one node.
func (d Direct) Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (*Node, zodb.Tid, error) {
	rec, err := d.Storage.LoadAt(ctx, oid, at)
	if err != nil {
		return nil, 0, err
	}
	n, err := Decode(oid, rec)
	return n, rec.Serial, err
}
