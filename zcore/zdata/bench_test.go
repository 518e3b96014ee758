package zdata_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
)

// BenchmarkBlk1 loads blocks of 2 MiB that are kept in chunks of 4 KiB, from a FileStorage: as they were
// written at once, and after a tenth of their chunks were written again one by one.
func BenchmarkBlk1(b *testing.B) {
	const blksize, blocks = 2 << 20, 8
	for _, again := range []int{0, 50} {
		path := filepath.Join(b.TempDir(), "Data.fs")
		w, err := fswriter.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		defer w.Close()
		rng := rand.New(rand.NewPCG(1, 1))
		db := zgen.New(w, zgen.Options{NoModel: true, ChunkSize: 4096})
		tx := db.Begin()
		oid := tx.NewFile(blksize)
		data := make([]byte, blksize)
		for i := range data {
			data[i] = byte(1 + rng.IntN(255))
		}
		for blk := range zdata.Blk(blocks) {
			tx.Write(oid, blk, data, zgen.Blk1)
		}
		if _, err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		for range again {
			tx := db.Begin()
			for blk := range zdata.Blk(blocks) {
				data[rng.IntN(blksize)]++
				tx.Write(oid, blk, data, zgen.Blk1)
			}
			if _, err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("again=%d", again), func(b *testing.B) {
			ctx := context.Background()
			stor, err := filestorage.Open(ctx, "file://"+path, filestorage.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer stor.Close()
			at, err := stor.Head(ctx)
			if err != nil {
				b.Fatal(err)
			}
			src := btree.Direct{Storage: stor}
			rec, err := stor.LoadAt(ctx, oid, at)
			if err != nil {
				b.Fatal(err)
			}
			bf, err := zdata.DecodeBigFile(oid, rec)
			if err != nil {
				b.Fatal(err)
			}
			var zblks []zodb.Oid
			btree.Range(ctx, src, bf.Blktab, at, 0, blocks, func(_ btree.Key, val zodb.Oid, _ []btree.Step) error {
				zblks = append(zblks, val)
				return nil
			})
			b.SetBytes(blksize)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, _, err := zdata.LoadBlk(ctx, stor, src, zblks[i%len(zblks)], at, blksize); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
