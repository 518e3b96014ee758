package filestorage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
)

// TestBatch compares records of all lengths, close to each other and far apart, old and new, with what
// they are alone.
func TestBatch(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const objs = 200
	sizes := []int{1, 8, 50, 4000, 4096, 8150, 9000, 70_000, 300_000}
	for tid := range zodb.Tid(40) {
		data := map[zodb.Oid][]byte{}
		size := sizes[rng.IntN(len(sizes))]
		for range 1 + rng.IntN(objs/4) {
			if rng.IntN(10) == 0 {
				size = sizes[rng.IntN(len(sizes))]
			}
			oid := zodb.Oid(1 + rng.IntN(objs))
			data[oid] = bytes.Repeat([]byte{byte(tid), byte(oid)}, 1+rng.IntN(size))
			if rng.IntN(20) == 0 {
				data[oid] = nil
			}
		}
		if err := w.Commit(tid+1, data); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	stor := open(t, path, filestorage.Options{})
	for range 60 {
		at := zodb.Tid(1 + rng.IntN(42))
		var oids []zodb.Oid
		for range rng.IntN(objs) {
			oids = append(oids, zodb.Oid(1+rng.IntN(objs+3)))
		}
		given := 0
		err := stor.LoadBatch(ctx, oids, at, func(i int, rec zodb.Record, err error) error {
			given++
			alone, aloneErr := stor.LoadAt(ctx, oids[i], at)
			if fmt.Sprint(err) != fmt.Sprint(aloneErr) || !bytes.Equal(rec.Data, alone.Data) || rec.Serial != alone.Serial || rec.Until != alone.Until {
				return fmt.Errorf("object %s@%s: %d bytes of %s (%v) in a batch, %d of %s (%v) alone",
					oids[i], at, len(rec.Data), rec.Serial, err, len(alone.Data), alone.Serial, aloneErr)
			}
			return nil
		})
		if err != nil || given != len(oids) {
			t.Fatalf("seed %d: %d of %d: %v", seed, given, len(oids), err)
		}
	}
	enough := errors.New("enough")
	if err := stor.LoadBatch(ctx, []zodb.Oid{1, 2}, 40, func(int, zodb.Record, error) error { return enough }); err != enough {
		t.Errorf("the callback's error: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := stor.LoadBatch(over, []zodb.Oid{1}, 40, nil); err != context.Canceled {
		t.Errorf("context over: %v", err)
	}
	stor.Close()
	if err := stor.LoadBatch(ctx, []zodb.Oid{1}, 40, nil); !errors.Is(err, filestorage.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}
