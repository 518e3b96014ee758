package zgen_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
	"wcfs/zcore/zodb/record"
)

// view is what a reader sees of one file as of one tid.
type view struct {
	bf   zdata.BigFile
	maps map[btree.Key]zodb.Oid
}

func open(t *testing.T, stor *memstorage.Store, f zodb.Oid, at zodb.Tid) view {
	t.Helper()
	ctx := context.Background()
	rec, err := stor.LoadAt(ctx, f, at)
	if err != nil {
		t.Fatal(err)
	}
	bf, err := zdata.DecodeBigFile(f, rec)
	if err != nil {
		t.Fatal(err)
	}
	v := view{bf: bf, maps: map[btree.Key]zodb.Oid{}}
	err = btree.Range(ctx, btree.Direct{Storage: stor}, bf.Blktab, at, btree.KeyMin, btree.KeyMax,
		func(k btree.Key, val zodb.Oid, path []btree.Step) error { v.maps[k] = val; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkAt compares everything about one file at one tid with the model.
func checkAt(t *testing.T, stor *memstorage.Store, db *zgen.DB, f zodb.Oid, at zodb.Tid, was, is view) {
	t.Helper()
	ctx, src := context.Background(), btree.Direct{Storage: stor}
	want, _ := db.File(f, at)
	if is.bf.Blksize != want.Blksize || is.bf.Blktab != want.Blktab {
		t.Fatalf("%s@%s: file %+v, want %+v", f, at, is.bf, want)
	}
	key, ok, path, err := btree.MaxKey(ctx, src, is.bf.Blktab, at)
	if err != nil || len(path) == 0 || ok != (db.Size(f, at) > 0) || ok && (int64(key)+1)*want.Blksize != db.Size(f, at) {
		t.Fatalf("%s@%s: last key %d %v (%v), size %d", f, at, key, ok, err, db.Size(f, at))
	}
	changed, epoch := db.Changed(f, at)
	for blk := range zdata.Blk(45) {
		val, ok, _, err := btree.Get(ctx, src, is.bf.Blktab, at, btree.Key(blk))
		if err != nil || val != is.maps[btree.Key(blk)] || val != db.Zblk(f, blk, at) || ok != (val != 0) {
			t.Fatalf("%s@%s block %d: got %s %v (%v), want %s", f, at, blk, val, ok, err, db.Zblk(f, blk, at))
		}
		data, serial := []byte(nil), zodb.Tid(0)
		if ok {
			if data, serial, err = zdata.LoadBlk(ctx, stor, src, val, at, want.Blksize); err != nil {
				t.Fatalf("%s@%s block %d: %v", f, at, blk, err)
			}
		}
		if full := db.Data(f, blk, at); !bytes.Equal(bytes.TrimRight(full, "\x00"), bytes.TrimRight(data, "\x00")) {
			t.Fatalf("%s@%s block %d: data %x, want %x", f, at, blk, data, full)
		}
		if epoch {
			continue
		}
		differs := was.maps[btree.Key(blk)] != val || ok && serial == at
		if slices.Contains(changed, blk) != differs {
			t.Fatalf("%s@%s block %d: changed is %v, the model says %v", f, at, blk, differs, changed)
		}
	}
}

// TestRandom makes random histories and reads every revision of every file through the decoders.
func TestRandom(t *testing.T) {
	seeds := uint64(12)
	if os.Getenv("WCFS_SOAK") != "" {
		seeds = 500
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			style := record.Style{Protocol: 1 + int(seed%3), Py2: seed%2 == 1}
			stor := memstorage.New()
			db := zgen.New(stor, zgen.Options{Style: style, LeafMax: 1 + rng.IntN(4), NodeMax: 2 + rng.IntN(3), ChunkSize: 8})
			was := map[zodb.Oid]view{}
			revs := map[zodb.Oid]map[zdata.Blk]zodb.Tid{}
			for range 60 {
				at, err := db.Random(rng, zgen.Mix{Epochs: seed%4 == 3})
				if err != nil {
					t.Fatal(err)
				}
				now := map[zodb.Oid]view{}
				for _, f := range db.Files(at) {
					now[f] = open(t, stor, f, at)
					checkAt(t, stor, db, f, at, was[f], now[f])
					checkRevs(t, db, f, at, revs)
				}
				was = now
			}
		})
	}
}

// checkRevs compares BlkRevAt with what Changed said, commit by commit.
func checkRevs(t *testing.T, db *zgen.DB, f zodb.Oid, at zodb.Tid, revs map[zodb.Oid]map[zdata.Blk]zodb.Tid) {
	t.Helper()
	changed, epoch := db.Changed(f, at)
	if epoch || revs[f] == nil {
		revs[f] = map[zdata.Blk]zodb.Tid{}
	}
	for _, blk := range changed {
		revs[f][blk] = at
	}
	bf, _ := db.File(f, at)
	for blk := range zdata.Blk(45) {
		if got, want := db.BlkRevAt(f, blk, at), max(bf.Serial, revs[f][blk]); got != want {
			t.Fatalf("%s@%s block %d: BlkRevAt %s, want %s", f, at, blk, got, want)
		}
	}
}

// TestSameSeedSameBytes: a seed that a failing test prints must replay.
func TestSameSeedSameBytes(t *testing.T) {
	sums := map[string]bool{}
	for range 3 {
		sink := &hashSink{}
		db := zgen.New(sink, zgen.Options{LeafMax: 2, NodeMax: 3, ChunkSize: 16})
		rng := rand.New(rand.NewPCG(7, 7))
		for range 80 {
			if _, err := db.Random(rng, zgen.Mix{Epochs: true}); err != nil {
				t.Fatal(err)
			}
		}
		sums[fmt.Sprintf("%x", sha256.Sum256(sink.all.Bytes()))] = true
	}
	if len(sums) != 1 {
		t.Fatalf("%d different databases from one seed", len(sums))
	}
}

type hashSink struct{ all bytes.Buffer }

func (s *hashSink) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	oids := make([]zodb.Oid, 0, len(objs))
	for oid := range objs {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	for _, oid := range oids {
		fmt.Fprintf(&s.all, "%s %s %x\n", tid, oid, objs[oid])
	}
	return nil
}

// TestEveryForm: random histories must really visit the forms that the oracle is for.
func TestEveryForm(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		stor := memstorage.New()
		db := zgen.New(stor, zgen.Options{LeafMax: 2, NodeMax: 3, ChunkSize: 8})
		for range 60 {
			at, err := db.Random(rng, zgen.Mix{})
			if err != nil {
				t.Fatal(err)
			}
			tabs, blks := map[zodb.Oid]bool{}, map[zodb.Oid]bool{}
			for _, f := range db.Files(at) {
				v := open(t, stor, f, at)
				if tabs[v.bf.Blktab] {
					seen["shared blktab"]++
				}
				tabs[v.bf.Blktab] = true
				for _, z := range v.maps {
					if blks[z] {
						seen["shared ZBlk"]++
					}
					blks[z] = true
				}
				_, _, path, err := btree.Get(context.Background(), btree.Direct{Storage: stor}, v.bf.Blktab, at, 0)
				if err != nil {
					t.Fatal(err)
				}
				switch n := path[0].Node; {
				case n.Leaf && len(n.Keys) == 0:
					seen["empty"]++
				case n.Leaf:
					seen["inline"]++
				default:
					seen[fmt.Sprint("depth ", len(path))]++
				}
			}
		}
	}
	for _, form := range []string{"empty", "inline", "depth 2", "depth 3", "depth 4", "shared blktab", "shared ZBlk"} {
		if seen[form] < 5 {
			t.Errorf("%s: seen %d times: %v", form, seen[form], seen)
		}
	}
}

// TestNoModel: what is written is the same with and without the model.
func TestNoModel(t *testing.T) {
	sums := map[string]bool{}
	for _, no := range []bool{false, true} {
		sink := &hashSink{}
		db := zgen.New(sink, zgen.Options{LeafMax: 4, NodeMax: 4, ChunkSize: 16, NoModel: no})
		tx := db.Begin()
		f := tx.NewFile(64)
		for range 3 {
			for blk := range zdata.Blk(50) {
				tx.Write(f, blk, []byte(fmt.Sprint(blk, db.Head())), []zgen.Kind{zgen.Blk0, zgen.Blk1}[blk%2])
			}
			if _, err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			tx = db.Begin()
		}
		sums[fmt.Sprintf("%x", sha256.Sum256(sink.all.Bytes()))] = true
	}
	if len(sums) != 1 {
		t.Error("another database without the model")
	}
}
