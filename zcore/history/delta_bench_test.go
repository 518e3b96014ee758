package history

import (
	"context"
	"testing"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// BenchmarkDelta is how long a commit of ten tracked blocks takes to publish and to find its δF.
//
//	go test -run - -bench Delta -benchtime 500x ./zcore/history
func BenchmarkDelta(b *testing.B) {
	const n = 200_000
	ctx := context.Background()
	stor := memstorage.New()
	db := zgen.New(stor, zgen.Options{NoModel: true})
	tx := db.Begin()
	oid := tx.NewFile(4096)
	for blk := range Blk(n) {
		tx.Write(oid, blk, []byte{1, byte(blk)}, zgen.Blk0)
	}
	t0, err := tx.Commit()
	if err != nil {
		b.Fatal(err)
	}
	t := New(stor, t0, Options{})
	bf, err := t.BigFile(ctx, oid, t0)
	if err != nil {
		b.Fatal(err)
	}
	size, path, err := t.Size(ctx, bf, t0)
	if err != nil {
		b.Fatal(err)
	}
	f, _ := t.AddFile(t0, bf, 0, size, path)
	for blk := range Blk(n) {
		m, path, err := t.Lookup(ctx, bf, blk, t0)
		if err != nil {
			b.Fatal(err)
		}
		t.Track(f, blk, t0, m, path)
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		tx := db.Begin()
		for k := range 10 {
			tx.Write(oid, Blk((i*7919+k*n/10)%n), []byte{2, byte(i), byte(k)}, zgen.Blk0)
		}
		if _, err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		c := zodb.Commit{Tid: db.Head(), Oids: stor.Changed(db.Head())}
		b.StartTimer()
		t.Publish([]zodb.Commit{c})
		if _, err := t.Delta(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
}
