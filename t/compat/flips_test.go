package compat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/record"
)

// Bits of pickles and BTree nodes gone wrong, read through the whole stack: an error or an answer,
// never a crash, a hang or much memory. Where the bit belongs to a class the answer must be right;
// a key, a reference or data with another value is as good as the one written, since nothing in a
// database says which it should be. (Headers: filestorage.TestFlips.)
func TestFlips(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("FLIPS_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("FLIPS_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	db := zgen.New(w, zgen.Options{LeafMax: 3, NodeMax: 3, ChunkSize: 16})
	for range 60 {
		if _, err := db.Random(rnd, zgen.Mix{MaxBlk: 10, MaxFiles: 2}); err != nil {
			t.Fatal(err)
		}
	}
	at := db.Head()
	// The last transaction is what the storage knows the file by: a change there is another database, not damage.
	if _, err := db.Random(rnd, zgen.Mix{MaxBlk: 10, MaxFiles: 2}); err != nil {
		t.Fatal(err)
	}
	stor := openFS(t, path, filestorage.Options{})
	var oids []zodb.Oid
	if err := stor.Oids(context.Background(), at, func(oid zodb.Oid) error { oids = append(oids, oid); return nil }); err != nil {
		t.Fatal(err)
	}
	truth := map[zodb.Oid]map[zdata.Blk]string{}
	for _, f := range db.Files(at) {
		truth[f] = map[zdata.Blk]string{}
		for _, blk := range db.Blocks(f, at) {
			sum := sha256.Sum256(db.Data(f, blk, at))
			truth[f][blk] = hex.EncodeToString(sum[:])
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	failed := 0
	for range 3000 {
		pos, inClass := pick(t, stor, rnd, oids, at)
		var b [1]byte
		if _, err := file.ReadAt(b[:], pos); err != nil {
			t.Fatal(err)
		}
		good := b[0]
		b[0] ^= 1 << rnd.IntN(8)
		if _, err := file.WriteAt(b[:], pos); err != nil {
			t.Fatal(err)
		}
		m0 := allocated()
		for f, want := range truth {
			got, err := (&reader{stor: stor, sums: map[[2]uint64]string{}}).read(f, at)
			switch {
			case err != nil:
				var de *zodb.DataError
				if !zodb.IsAbsent(err) && !errors.Is(err, zdata.ErrNotBigFile) && (!errors.As(err, &de) || de.Oid == 0 && de.Pos < 0) {
					t.Fatalf("byte %d changed from %#x to %#x: error does not say where: %v", pos, good, b[0], err)
				}
				failed++
			case inClass && !maps.Equal(got.Blks, want):
				t.Fatalf("byte %d of a class changed from %#x to %#x: other data and no error", pos, good, b[0])
			}
		}
		if used := allocated() - m0; used > 64<<20 {
			t.Fatalf("byte %d changed from %#x to %#x: %d bytes allocated", pos, good, b[0], used)
		}
		if _, err := file.WriteAt([]byte{good}, pos); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("3000 flips made %d errors", failed)
	for f, want := range truth {
		got, err := (&reader{stor: stor, sums: map[[2]uint64]string{}}).read(f, at)
		if err != nil || !maps.Equal(got.Blks, want) {
			t.Fatalf("restored: file %s: %v", f, err)
		}
	}
}

// pick returns a position in the record of some object, and whether its class is told there.
func pick(t *testing.T, stor *filestorage.Storage, rnd *rand.Rand, oids []zodb.Oid, at zodb.Tid) (pos int64, inClass bool) {
	ctx := context.Background()
	oid := oids[rnd.IntN(len(oids))]
	x, release, err := stor.ExtentAt(ctx, oid, at)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	rec, err := stor.LoadAt(ctx, oid, at)
	if err != nil {
		t.Fatal(err)
	}
	class, err := record.ClassOf(oid, rec)
	if err != nil {
		t.Fatal(err)
	}
	i := rnd.Int64N(x.Len)
	name := bytes.Index(rec.Data, []byte(class.Name))
	end := name + bytes.IndexByte(rec.Data[name:], '.')
	return x.Off + i, int(i) <= end
}

// allocated returns how much memory was allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
