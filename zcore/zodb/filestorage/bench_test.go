package filestorage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// BenchmarkOpen opens databases of 4 GiB and 100 GiB of 2 MiB blocks, and one of a million small
// objects, with an index and without. The large ones are holes on disk, with real headers.
func BenchmarkOpen(b *testing.B) {
	for _, x := range []struct {
		name string
		txns int
		objs int
		size int64
	}{{"4GiB", 128, 16, 2 << 20}, {"100GiB", 3200, 16, 2 << 20}, {"small", 1000, 1000, 100}} {
		path := filepath.Join(b.TempDir(), "Data.fs")
		w, err := fswriter.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		for i := range x.txns {
			sizes := map[zodb.Oid]int64{}
			data := map[zodb.Oid][]byte{}
			for j := range x.objs {
				sizes[zodb.Oid(i*x.objs+j)] = x.size
				data[zodb.Oid(i*x.objs+j)] = make([]byte, x.size)
			}
			if x.size > 1<<20 {
				err = w.CommitHoles(zodb.Tid(i+1), sizes)
			} else {
				err = w.Commit(zodb.Tid(i+1), data)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		if err := w.WriteIndex(); err != nil {
			b.Fatal(err)
		}
		w.Close()
		for _, noIndex := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/index=%v", x.name, !noIndex), func(b *testing.B) {
				for b.Loop() {
					stor, err := filestorage.Open(context.Background(), "file://"+path, filestorage.Options{NoIndex: noIndex})
					if err != nil {
						b.Fatal(err)
					}
					stor.Close()
				}
			})
		}
		os.Remove(path)
	}
}

// BenchmarkLoad loads records of 2 MiB and of 100 bytes, from the kernel's page cache.
func BenchmarkLoad(b *testing.B) {
	for _, size := range []int{100, 2 << 20} {
		back := newGoBackend(b)
		tid := back.Commit(b, map[zodb.Oid][]byte{1: storagetest.Record(make([]byte, size))})
		stor := back.Open(b)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := stor.LoadAt(context.Background(), 1, tid); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
