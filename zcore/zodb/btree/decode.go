package btree

import (
	"fmt"
	"math"
	"strings"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// decoder decodes one record; bad makes its errors.
type decoder struct {
	oid    zodb.Oid
	serial zodb.Tid
	lo, hi Key // what a key of this flavour can be
}

func (d decoder) bad(format string, args ...any) error {
	return &zodb.DataError{Oid: d.oid, Serial: d.serial, Pos: -1, Msg: fmt.Sprintf(format, args...)}
}

func decode(oid zodb.Oid, rec zodb.Record) (*Node, error) {
	obj, err := record.Decode(oid, rec)
	if err != nil {
		return nil, err
	}
	d := decoder{oid: oid, serial: rec.Serial, lo: KeyMin, hi: KeyMax}
	class := canonical(obj.Class)
	switch class {
	case record.IO.TreeClass(), record.IO.BucketClass():
		d.lo, d.hi = math.MinInt32, math.MaxInt32
	}
	switch class {
	case record.LO.TreeClass(), record.IO.TreeClass():
		return d.tree(obj.State)
	case record.LO.BucketClass(), record.IO.BucketClass():
		n, err := d.bucket(obj.State)
		if err == nil {
			n.Bucket = true
		}
		return n, err
	}
	return nil, d.bad("it is a %.80q, not a node of an LOBTree or IOBTree", obj.Class.String())
}

// canonical returns the present name of a class: the implementation in Python, as PyPy has it, adds Py to names, and
// old versions of BTrees had their classes in modules that begin with an underscore.
func canonical(c record.Class) record.Class {
	return record.Class{Module: strings.Replace(c.Module, "BTrees._", "BTrees.", 1), Name: strings.TrimSuffix(c.Name, "Py")}
}

// tree decodes None, ((bucket state,),) and ((child0, key1, child1, ...), first bucket).
// Source: BTrees/BTreeTemplate.c, BTree_getstate.
func (d decoder) tree(state record.Value) (*Node, error) {
	switch {
	case state.Kind == record.None:
		return &Node{Leaf: true}, nil
	case state.Kind == record.Tuple && len(state.Items) == 1:
		inline := state.Items[0]
		if inline.Kind != record.Tuple || len(inline.Items) != 1 {
			return nil, d.bad("its inline bucket is not a tuple of one")
		}
		return d.bucket(inline.Items[0])
	case state.Kind == record.Tuple && len(state.Items) == 2:
		if _, ok := state.Items[1].Oid(); !ok {
			return nil, d.bad("its first bucket is %s, not a reference", state.Items[1].Kind)
		}
		return d.inner(state.Items[0])
	}
	return nil, d.bad("the state of a tree is %s of %d", state.Kind, len(state.Items))
}

func (d decoder) inner(kids record.Value) (*Node, error) {
	if kids.Kind != record.Tuple || len(kids.Items)%2 != 1 {
		return nil, d.bad("its children are %s of %d", kids.Kind, len(kids.Items))
	}
	n := &Node{Keys: make([]Key, 0, len(kids.Items)/2), Refs: make([]zodb.Oid, 0, len(kids.Items)/2+1)}
	var err error
	for i, v := range kids.Items {
		if i%2 == 0 {
			n.Refs, err = d.addRef(n.Refs, v)
		} else {
			n.Keys, err = d.addKey(n.Keys, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// bucket decodes ((k0, v0, k1, v1, ...),) and the same with the next bucket as second element.
// Source: BTrees/BucketTemplate.c, bucket_getstate.
func (d decoder) bucket(state record.Value) (*Node, error) {
	if state.Kind != record.Tuple || len(state.Items) < 1 || len(state.Items) > 2 {
		return nil, d.bad("the state of a bucket is %s of %d", state.Kind, len(state.Items))
	}
	if len(state.Items) == 2 {
		if _, ok := state.Items[1].Oid(); !ok {
			return nil, d.bad("its next bucket is %s, not a reference", state.Items[1].Kind)
		}
	}
	kv := state.Items[0]
	if kv.Kind != record.Tuple || len(kv.Items)%2 != 0 {
		return nil, d.bad("its items are %s of %d", kv.Kind, len(kv.Items))
	}
	n := &Node{Leaf: true, Keys: make([]Key, 0, len(kv.Items)/2), Refs: make([]zodb.Oid, 0, len(kv.Items)/2)}
	var err error
	for i := 0; i < len(kv.Items); i += 2 {
		if i > 0 && same(kv.Items[i-2:i], kv.Items[i:i+2]) { // Python reads this, though it never writes it
			continue
		}
		if n.Keys, err = d.addKey(n.Keys, kv.Items[i]); err != nil {
			return nil, err
		}
		if n.Refs, err = d.addValue(n.Refs, kv.Items[i+1]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (d decoder) addRef(refs []zodb.Oid, v record.Value) ([]zodb.Oid, error) {
	oid, ok := v.Oid()
	if !ok {
		return nil, d.bad("it holds %s where a reference belongs", v.Kind)
	}
	return append(refs, oid), nil
}

// addValue is addRef for the values of a bucket, which may be None.
func (d decoder) addValue(refs []zodb.Oid, v record.Value) ([]zodb.Oid, error) {
	if v.Kind == record.None {
		return append(refs, NoValue), nil
	}
	if oid, _ := v.Oid(); oid == NoValue {
		return nil, d.bad("it refers to object %s, which no database gives out", oid)
	}
	return d.addRef(refs, v)
}

// same tells whether two pairs have the same key and lead to the same object.
func same(a, b []record.Value) bool {
	return a[0].Kind == record.Int && b[0].Kind == record.Int && a[0].Int == b[0].Int &&
		a[1].Kind == record.Ref && b[1].Kind == record.Ref && a[1].Int == b[1].Int
}

func (d decoder) addKey(keys []Key, v record.Value) ([]Key, error) {
	k := Key(v.Int)
	switch {
	case v.Kind != record.Int:
		return nil, d.bad("it holds %s where a key belongs", v.Kind)
	case k < d.lo || k > d.hi:
		return nil, d.bad("key %d does not fit the keys of its class", k)
	case len(keys) > 0 && k <= keys[len(keys)-1]:
		return nil, d.bad("its keys are out of order: %d after %d", k, keys[len(keys)-1])
	}
	return append(keys, k), nil
}
