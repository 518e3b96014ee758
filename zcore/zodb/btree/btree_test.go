package btree_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pickle "github.com/kisielk/og-rek"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
	"wcfs/zcore/zodb/record"
)

var (
	lo, iob = record.LO, record.IO
	style   = record.Py3()
)

func zblk() record.Class { return record.Class{Module: record.ModBigFile, Name: "ZBlk0"} }

// kv makes the items of a bucket: each key maps to an oid of 1000 more.
func kv(keys ...int64) []record.Item {
	var items []record.Item
	for _, k := range keys {
		items = append(items, record.Item{Key: k, Oid: zodb.Oid(1000 + k), Class: zblk()})
	}
	return items
}

// kids makes the children of a node: first child, then key and child by turns.
func kids(class record.Class, first int64, rest ...int64) []record.Item {
	items := []record.Item{{Oid: zodb.Oid(first), Class: class}}
	for i := 0; i < len(rest); i += 2 {
		items = append(items, record.Item{Key: rest[i], Oid: zodb.Oid(rest[i+1]), Class: class})
	}
	return items
}

func commit(t testing.TB, objs map[zodb.Oid][]byte) *memstorage.Store {
	t.Helper()
	s := memstorage.New()
	if err := s.Commit(1, objs); err != nil {
		t.Fatal(err)
	}
	return s
}

// small is a tree of three levels:
//
//	1: [2 | 100 | 3]; 2: [4 | 10 | 5]; 3: [6]; buckets 4: 1 5, 5: 10 50, 6: 100 200
func small(t testing.TB) *memstorage.Store {
	tree, bucket := lo.TreeClass(), lo.BucketClass()
	return commit(t, map[zodb.Oid][]byte{
		1: style.Tree(lo, kids(tree, 2, 100, 3), 4),
		2: style.Tree(lo, kids(bucket, 4, 10, 5), 4),
		3: style.Tree(lo, kids(bucket, 6), 6),
		4: style.Bucket(lo, kv(1, 5), 5),
		5: style.Bucket(lo, kv(10, 50), 6),
		6: style.Bucket(lo, kv(100, 200), 0),
	})
}

// oids returns the nodes of a path.
func oids(path []btree.Step) string {
	var s []string
	for _, p := range path {
		s = append(s, p.Oid.String()[15:])
	}
	return strings.Join(s, "")
}

func TestWalks(t *testing.T) {
	ctx := context.Background()
	stor := small(t)
	src := btree.Direct{Storage: stor}
	for _, c := range []struct {
		key  btree.Key
		ok   bool
		path string
	}{
		{btree.KeyMin, false, "124"}, {1, true, "124"}, {4, false, "124"}, {5, true, "124"}, {9, false, "124"},
		{10, true, "125"}, {50, true, "125"}, {99, false, "125"}, {100, true, "136"}, {btree.KeyMax, false, "136"},
	} {
		val, ok, path, err := btree.Get(ctx, src, 1, 1, c.key)
		if err != nil || ok != c.ok || oids(path) != c.path || ok && val != zodb.Oid(1000+c.key) {
			t.Errorf("key %d: %s %v by %s (%v)", c.key, val, ok, oids(path), err)
		}
		if last := path[len(path)-1]; c.key < last.Lo || c.key > last.Hi {
			t.Errorf("key %d: found in a node for [%d, %d]", c.key, last.Lo, last.Hi)
		}
	}
	if key, ok, path, err := btree.MaxKey(ctx, src, 1, 1); key != 200 || !ok || oids(path) != "136" || err != nil {
		t.Errorf("last key %d %v by %s (%v)", key, ok, oids(path), err)
	}
	for _, c := range []struct {
		lo, hi btree.Key
		want   []btree.Key
		loads  int
	}{
		{btree.KeyMin, btree.KeyMax, []btree.Key{1, 5, 10, 50, 100, 200}, 6},
		{5, 10, []btree.Key{5, 10}, 4}, {5, 9, []btree.Key{5}, 3}, {6, 9, nil, 3}, {51, 100, []btree.Key{100}, 5}, {201, 300, nil, 3}, {9, 8, nil, 0},
	} {
		var got []btree.Key
		before := stor.Loads()
		err := btree.Range(ctx, src, 1, 1, c.lo, c.hi, func(key btree.Key, val zodb.Oid, path []btree.Step) error {
			if val != zodb.Oid(1000+key) || path[0].Oid != 1 || len(path) != 3 {
				t.Errorf("key %d: %s by %s", key, val, oids(path))
			}
			got = append(got, key)
			return nil
		})
		if loads := stor.Loads() - before; err != nil || !slices.Equal(got, c.want) || loads != c.loads {
			t.Errorf("[%d, %d]: %v with %d loads (%v), want %v with %d", c.lo, c.hi, got, loads, err, c.want, c.loads)
		}
	}
	stop := errors.New("stop")
	if err := btree.Range(ctx, src, 1, 1, 0, 100, func(btree.Key, zodb.Oid, []btree.Step) error { return stop }); err != stop {
		t.Errorf("the callback's error: %v", err)
	}
}

func TestInlineAndEmpty(t *testing.T) {
	ctx := context.Background()
	src := btree.Direct{Storage: commit(t, map[zodb.Oid][]byte{
		1: style.InlineTree(lo, nil), 2: style.InlineTree(iob, kv(-3, 0, 7)),
		// BTrees leaves no empty bucket behind, but a reader need not be led astray by one.
		3: style.Tree(lo, kids(lo.BucketClass(), 4, 10, 5), 4), 4: style.Bucket(lo, kv(1, 2), 5), 5: style.Bucket(lo, nil, 0),
	})}
	if _, ok, path, err := btree.MaxKey(ctx, src, 1, 1); ok || err != nil || len(path) != 1 {
		t.Errorf("empty: %v, %d nodes (%v)", ok, len(path), err)
	}
	if _, ok, path, err := btree.Get(ctx, src, 1, 1, 0); ok || err != nil || len(path) != 1 {
		t.Errorf("empty: %v, %d nodes (%v)", ok, len(path), err)
	}
	if val, ok, _, err := btree.Get(ctx, src, 2, 1, -3); val != 997 || !ok || err != nil {
		t.Errorf("inline: %s %v (%v)", val, ok, err)
	}
	if key, ok, path, err := btree.MaxKey(ctx, src, 3, 1); key != 2 || !ok || oids(path) != "34" || err != nil {
		t.Errorf("empty last bucket: %d %v by %s (%v)", key, ok, oids(path), err)
	}
}

// TestBroken: trees that no BTrees would write. Every walk must end with an error that names the node.
func TestBroken(t *testing.T) {
	tree, bucket := lo.TreeClass(), lo.BucketClass()
	deep := map[zodb.Oid][]byte{}
	for oid := int64(1); oid < 1000; oid++ {
		deep[zodb.Oid(oid)] = style.Tree(lo, kids(tree, oid+1), 1000)
	}
	for name, c := range map[string]struct {
		objs map[zodb.Oid][]byte
		oid  zodb.Oid // that the error is about
		says string
	}{
		"its own child":    {map[zodb.Oid][]byte{1: style.Tree(lo, kids(tree, 1), 1)}, 1, "ancestor"},
		"its own ancestor": {map[zodb.Oid][]byte{1: style.Tree(lo, kids(tree, 2), 9), 2: style.Tree(lo, kids(tree, 3), 9), 3: style.Tree(lo, kids(tree, 1), 9)}, 3, "ancestor"},
		"too deep":         {deep, 100, "deep"},
		"bucket order":     {map[zodb.Oid][]byte{1: style.InlineTree(lo, kv(1, 3, 2))}, 1, "order"},
		"bucket twice":     {map[zodb.Oid][]byte{1: style.InlineTree(lo, append(kv(1, 2), record.Item{Key: 2, Oid: 77}))}, 1, "order"},
		"node order":       {map[zodb.Oid][]byte{1: style.Tree(lo, kids(bucket, 2, 20, 3, 10, 4), 2)}, 1, "order"},
		"below its range":  {map[zodb.Oid][]byte{1: style.Tree(lo, kids(bucket, 2, 10, 2), 2), 2: style.Bucket(lo, kv(5, 12), 0)}, 2, "outside"},
		"separator at low": {map[zodb.Oid][]byte{1: style.Tree(lo, kids(tree, 4, 10, 2), 5), 4: style.Tree(lo, kids(bucket, 5), 5), 5: style.Bucket(lo, kv(1), 3),
			2: style.Tree(lo, kids(bucket, 3, 10, 3), 3), 3: style.Bucket(lo, kv(10), 0)}, 2, "outside"},
		"missing child":    {map[zodb.Oid][]byte{1: style.Tree(lo, kids(bucket, 2), 2)}, 1, "missing"},
		"a foreign child":  {map[zodb.Oid][]byte{1: style.Tree(lo, kids(bucket, 2), 2), 2: style.Data(nil)}, 2, "not a node"},
		"a bucket as root": {map[zodb.Oid][]byte{1: style.Bucket(lo, kv(1), 0)}, 1, "not the root"},
		"key of 33 bits":   {map[zodb.Oid][]byte{1: style.InlineTree(iob, kv(1<<31))}, 1, "fit"},
	} {
		ctx, src := context.Background(), btree.Direct{Storage: commit(t, c.objs)}
		_, _, _, err1 := btree.MaxKey(ctx, src, 1, 1)
		err2 := btree.Range(ctx, src, 1, 1, btree.KeyMin, btree.KeyMax, func(btree.Key, zodb.Oid, []btree.Step) error { return nil })
		_, _, _, err3 := btree.Get(ctx, src, 1, 1, 7)
		for i, err := range []error{err1, err2, err3} {
			var de *zodb.DataError
			if i == 2 && err == nil { // the broken part may lie off the way to a key
				continue
			}
			if !errors.As(err, &de) || de.Oid != c.oid || !strings.Contains(err.Error(), c.says) || zodb.IsAbsent(err) {
				t.Errorf("%s: walk %d: %v", name, i, err)
			}
		}
	}
}

// TestStates: states that are no tree, bucket or item.
func TestStates(t *testing.T) {
	good := style.Ref(5, zblk())
	type T = pickle.Tuple
	for _, class := range []record.Class{lo.TreeClass(), lo.BucketClass(), iob.TreeClass(), iob.BucketClass()} {
		for i, state := range []any{
			int64(1), "x", T{}, T{T{}, T{}, T{}}, T{good}, T{good, good}, T{T{int64(1)}}, T{T{int64(1), int64(2)}}, T{T{good, int64(1)}},
			T{T{good, int64(1)}, good}, T{T{good}, int64(1)}, T{T{int64(1), good}, int64(9)}, T{T{"a", good}}, T{T{T{int64(1)}}},
			T{T{T{"a", good}}}, T{T{T{T{int64(1), good}}, good}},
		} {
			n, err := btree.Decode(7, zodb.Record{Data: style.Encode(class, state), Serial: 3})
			var de *zodb.DataError
			if !errors.As(err, &de) || de.Oid != 7 || de.Serial != 3 {
				t.Errorf("%s, state %d: %+v, %v", class, i, n, err)
			}
		}
	}
	if n, err := btree.Decode(7, zodb.Record{Data: style.Encode(lo.TreeClass(), T{T{}, good})}); err == nil {
		t.Errorf("a node without children: %+v", n)
	}
	weak := style.Encode(lo.BucketClass(), pickle.Tuple{pickle.Tuple{int64(1), style.WeakRef(5)}})
	if _, err := btree.Decode(7, zodb.Record{Data: weak}); err == nil || !strings.Contains(err.Error(), "weak") {
		t.Errorf("weak reference: %v", err)
	}
}

// TestFlips: trees with random damage are read right, or with an error, and always to an end.
func TestFlips(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(4, 0))
	bad, good := 0, 0
	for range 2500 {
		objs := map[zodb.Oid][]byte{}
		stor := small(t)
		for oid := zodb.Oid(1); oid <= 6; oid++ {
			rec, err := stor.LoadAt(ctx, oid, 1)
			if err != nil {
				t.Fatal(err)
			}
			objs[oid] = slices.Clone(rec.Data)
		}
		for range 1 + rng.IntN(3) {
			data := objs[zodb.Oid(1+rng.IntN(6))]
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		}
		src := btree.Direct{Storage: commit(t, objs)}
		last := btree.KeyMin
		err := btree.Range(ctx, src, 1, 1, btree.KeyMin, btree.KeyMax, func(key btree.Key, _ zodb.Oid, _ []btree.Step) error {
			if key <= last {
				t.Fatalf("key %d after %d", key, last)
			}
			last = key
			return nil
		})
		if err != nil {
			bad++
			continue
		}
		good++
		if key, _, _, err := btree.MaxKey(ctx, src, 1, 1); err != nil || key != last {
			t.Fatalf("last key %d (%v), the range ends with %d", key, err, last)
		}
	}
	if bad < 100 || good < 100 {
		t.Errorf("%d damaged trees are errors and %d are not: too few to tell", bad, good)
	}
}

// FuzzDecode: any record is a node in order, or an error.
func FuzzDecode(f *testing.F) {
	for _, s := range []record.Style{{Protocol: 1, Py2: true}, {Protocol: 2}, {Protocol: 3}} {
		f.Add(s.InlineTree(lo, nil))
		f.Add(s.InlineTree(iob, kv(1, 2)))
		f.Add(s.Bucket(lo, kv(1, 2, 1<<40), 9))
		f.Add(s.Tree(iob, kids(iob.BucketClass(), 2, 10, 3), 2))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := btree.Decode(1, zodb.Record{Data: data})
		if err != nil {
			return
		}
		want := len(n.Keys) + 1
		if n.Leaf {
			want = len(n.Keys)
		}
		if len(n.Refs) != want || !slices.IsSorted(n.Keys) {
			t.Fatalf("%+v", n)
		}
	})
}

// TestOddNodes (db/14): nodes that Python reads as well: of the implementation in Python, of old module names, with a key
// twice, with None for a value.
func TestOddNodes(t *testing.T) {
	ctx := context.Background()
	ref := style.Ref(77, zblk())
	for name, rec := range map[string][]byte{
		"LOBTreePy":    style.Encode(record.Class{Module: "BTrees.LOBTree", Name: "LOBTreePy"}, pickle.Tuple{pickle.Tuple{pickle.Tuple{pickle.Tuple{int64(5), ref}}}}),
		"old module":   style.Encode(record.Class{Module: "BTrees._LOBTree", Name: "LOBTree"}, pickle.Tuple{pickle.Tuple{pickle.Tuple{pickle.Tuple{int64(5), ref}}}}),
		"a key twice":  style.Encode(lo.TreeClass(), pickle.Tuple{pickle.Tuple{pickle.Tuple{pickle.Tuple{int64(5), ref, int64(5), ref}}}}),
		"value None":   style.Encode(lo.TreeClass(), pickle.Tuple{pickle.Tuple{pickle.Tuple{pickle.Tuple{int64(5), pickle.None{}}}}}),
		"LOBucketPy 1": nil,
	} {
		objs := map[zodb.Oid][]byte{1: rec}
		if rec == nil {
			bucket := record.Class{Module: "BTrees.LOBTree", Name: "LOBucketPy"}
			objs = map[zodb.Oid][]byte{1: style.Tree(lo, kids(bucket, 2), 2), 2: style.Encode(bucket, pickle.Tuple{pickle.Tuple{int64(5), ref}})}
		}
		want := zodb.Oid(77)
		if name == "value None" {
			want = btree.NoValue
		}
		val, ok, _, err := btree.Get(ctx, btree.Direct{Storage: commit(t, objs)}, 1, 1, 5)
		if err != nil || !ok || val != want {
			t.Errorf("%s: %s %v (%v)", name, val, ok, err)
		}
	}
}
