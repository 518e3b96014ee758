package zgen_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
	"wcfs/zcore/zodb/record"
)

// The JSON that write_commits.py prints and read_commits.py takes and prints.
type (
	pyCommit struct {
		Tid  string            `json:"tid"`
		Objs map[string]string `json:"objs"`
	}
	pyFile struct {
		Oid, Tid string
		Blksize  int64
		Size     int64
		Blocks   map[string]string
	}
	pyTree struct {
		Oid, Tid string
		Items    [][2]json.RawMessage
		Ranges   [][3]json.RawMessage
	}
	pyBase struct {
		Commits []pyCommit `json:"commits"`
		Files   []pyFile   `json:"files"`
		Trees   []pyTree   `json:"trees"`
	}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// load puts the commits of Python into a storage.
func (b pyBase) load(t *testing.T) *memstorage.Store {
	t.Helper()
	stor := memstorage.New()
	for _, c := range b.Commits {
		objs := map[zodb.Oid][]byte{}
		for oid, data := range c.Objs {
			objs[must(zodb.ParseOid(oid))] = must(hex.DecodeString(data))
		}
		if err := stor.Commit(must(zodb.ParseTid(c.Tid)), objs); err != nil {
			t.Fatal(err)
		}
	}
	return stor
}

// TestReadPython reads databases that both ZODBs wrote with each protocol: every revision of every
// file, and BTrees of up to three levels by key, by range and by last key.
func TestReadPython(t *testing.T) {
	for _, env := range []string{py.Py5, py.Py6} {
		for protocol := 1; protocol <= 3; protocol++ {
			t.Run(fmt.Sprintf("%s-protocol%d", env, protocol), func(t *testing.T) {
				keys := "2000"
				if protocol == 3 { // what both write unless told otherwise
					keys = "36000"
				}
				out, err := py.Command(t, env, "write_commits.py", strconv.Itoa(protocol), "5", keys).Output()
				if err != nil {
					t.Fatal(err)
				}
				var base pyBase
				if err := json.Unmarshal(out, &base); err != nil {
					t.Fatal(err)
				}
				stor := base.load(t)
				if len(base.Files) < 40 || len(base.Trees) != 3 {
					t.Fatalf("%d files and %d trees", len(base.Files), len(base.Trees))
				}
				for _, f := range base.Files {
					checkPyFile(t, stor, f)
				}
				for _, tree := range base.Trees {
					checkPyTree(t, stor, tree)
				}
			})
		}
	}
}

func checkPyFile(t *testing.T, stor *memstorage.Store, f pyFile) {
	t.Helper()
	ctx, src := context.Background(), btree.Direct{Storage: stor}
	oid, at := must(zodb.ParseOid(f.Oid)), must(zodb.ParseTid(f.Tid))
	v := open(t, stor, oid, at)
	key, ok, _, err := btree.MaxKey(ctx, src, v.bf.Blktab, at)
	if err != nil || ok && (int64(key)+1)*v.bf.Blksize != f.Size || ok != (f.Size > 0) || v.bf.Blksize != f.Blksize {
		t.Fatalf("%s@%s: last key %d %v (%v), size %d", oid, at, key, ok, err, f.Size)
	}
	if len(v.maps) != len(f.Blocks) {
		t.Fatalf("%s@%s: %d blocks, want %d", oid, at, len(v.maps), len(f.Blocks))
	}
	for blk, want := range f.Blocks {
		zblk := v.maps[btree.Key(must(strconv.ParseInt(blk, 10, 64)))]
		data, _, err := zdata.LoadBlk(ctx, stor, src, zblk, at, v.bf.Blksize)
		if err != nil {
			t.Fatal(err)
		}
		full := make([]byte, v.bf.Blksize)
		copy(full, data)
		if hex.EncodeToString(full) != want {
			t.Fatalf("%s@%s block %s: other data", oid, at, blk)
		}
	}
}

func checkPyTree(t *testing.T, stor *memstorage.Store, tree pyTree) {
	t.Helper()
	ctx, src := context.Background(), newCached(stor)
	root, at := must(zodb.ParseOid(tree.Oid)), must(zodb.ParseTid(tree.Tid))
	want := map[btree.Key]zodb.Oid{}
	var keys []btree.Key
	for _, it := range tree.Items {
		k := btree.Key(must(strconv.ParseInt(string(it[0]), 10, 64)))
		keys = append(keys, k)
		want[k] = must(zodb.ParseOid(must(strconv.Unquote(string(it[1])))))
	}
	var got []btree.Key
	err := btree.Range(ctx, src, root, at, btree.KeyMin, btree.KeyMax, func(k btree.Key, v zodb.Oid, _ []btree.Step) error {
		got = append(got, k)
		if want[k] != v {
			t.Fatalf("key %d: %s, want %s", k, v, want[k])
		}
		return nil
	})
	if err != nil || !slices.Equal(got, keys) {
		t.Fatalf("%v: %d keys of %d", err, len(got), len(keys))
	}
	for i := 0; i < len(keys); i += 7 {
		for _, k := range []btree.Key{keys[i] - 1, keys[i], keys[i] + 1} {
			val, ok, _, err := btree.Get(ctx, src, root, at, k)
			if w, wok := want[k]; err != nil || val != w || ok != wok {
				t.Fatalf("key %d: %s %v (%v), want %s %v", k, val, ok, err, w, wok)
			}
		}
	}
	k, ok, path, err := btree.MaxKey(ctx, src, root, at)
	if err != nil || !ok || k != keys[len(keys)-1] {
		t.Fatalf("last key %d %v (%v), want %d", k, ok, err, keys[len(keys)-1])
	}
	if len(keys) > 10000 && len(path) < 3 {
		t.Fatalf("a tree of %d keys is only %d deep: too flat to tell", len(keys), len(path))
	}
	for _, r := range tree.Ranges {
		lo, hi := must(strconv.ParseInt(string(r[0]), 10, 64)), must(strconv.ParseInt(string(r[1]), 10, 64))
		var want, got []btree.Key
		if err := json.Unmarshal(r[2], &want); err != nil {
			t.Fatal(err)
		}
		src.opened = 0
		err := btree.Range(ctx, src, root, at, btree.Key(lo), btree.Key(hi), func(k btree.Key, _ zodb.Oid, _ []btree.Step) error {
			got = append(got, k)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("keys in [%d, %d]: %d of %d (%v)", lo, hi, len(got), len(want), err)
		}
		// A bucket that BTrees has split is at least half of 60 keys full; deletions took a third.
		if most := 8 + len(want)/5; src.opened > most {
			t.Fatalf("read %d nodes for %d keys", src.opened, len(want))
		}
	}
}

// cached is a Source that decodes each node once, and counts.
type cached struct {
	btree.Direct
	nodes  map[zodb.Oid]*btree.Node
	opened int
}

func newCached(stor zodb.Storage) *cached {
	return &cached{Direct: btree.Direct{Storage: stor}, nodes: map[zodb.Oid]*btree.Node{}}
}

func (c *cached) Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (*btree.Node, zodb.Tid, error) {
	c.opened++
	n, err := c.nodes[oid], error(nil)
	if n == nil {
		n, _, err = c.Direct.Node(ctx, oid, at)
		c.nodes[oid] = n
	}
	return n, 0, err
}

// tee is a Sink that also keeps the commits for Python.
type tee struct {
	*memstorage.Store
	base pyBase
}

func (s *tee) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	c := pyCommit{Tid: tid.String(), Objs: map[string]string{}}
	for oid, data := range objs {
		c.Objs[oid.String()] = hex.EncodeToString(data)
	}
	s.base.Commits = append(s.base.Commits, c)
	return s.Store.Commit(tid, objs)
}

// TestPythonReads has Python ZODB read what zgen wrote, check its BTrees, and agree with the model.
func TestPythonReads(t *testing.T) {
	for seed := range uint64(6) {
		env := []string{py.Py5, py.Py6}[seed%2]
		t.Run(fmt.Sprintf("%s-seed%d", env, seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			sink := &tee{Store: memstorage.New()}
			db := zgen.New(sink, zgen.Options{Style: record.Style{Protocol: 1 + int(seed%3)}, LeafMax: 3, NodeMax: 3, ChunkSize: 8})
			for range 60 {
				if _, err := db.Random(rng, zgen.Mix{}); err != nil {
					t.Fatal(err)
				}
			}
			var files []string
			for _, f := range db.Files(db.Head()) {
				files = append(files, f.String())
			}
			in := must(json.Marshal(map[string]any{"commits": sink.base.Commits, "files": files}))
			cmd := py.Command(t, env, "read_commits.py")
			cmd.Stdin = bytes.NewReader(in)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var seen []pyFile
			if err := json.Unmarshal(out, &seen); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, tid := range db.Tids() {
				n += len(db.Files(tid))
			}
			if len(seen) != n {
				t.Fatalf("Python sees %d files, want %d", len(seen), n)
			}
			for _, f := range seen {
				comparePy(t, db, f)
			}
		})
	}
}

func comparePy(t *testing.T, db *zgen.DB, f pyFile) {
	t.Helper()
	oid, at := must(zodb.ParseOid(f.Oid)), must(zodb.ParseTid(f.Tid))
	blks := db.Blocks(oid, at)
	if f.Size != db.Size(oid, at) || len(f.Blocks) != len(blks) {
		t.Fatalf("%s@%s: Python sees size %d and %d blocks, want %d and %d", oid, at, f.Size, len(f.Blocks), db.Size(oid, at), len(blks))
	}
	for _, blk := range blks {
		if want := hex.EncodeToString(db.Data(oid, blk, at)); f.Blocks[fmt.Sprint(blk)] != want {
			t.Fatalf("%s@%s block %d: Python sees %s, want %s", oid, at, blk, f.Blocks[fmt.Sprint(blk)], want)
		}
	}
}
