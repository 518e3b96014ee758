package relstorage_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

// TestBusy: RelStorage commits as fast as it can; everything is reported, in order. The log tells the
// rate and how late. WCFS_SOAK=1: ten thousand.
func TestBusy(t *testing.T) {
	n := 300
	if os.Getenv("WCFS_SOAK") != "" {
		n = 10000
	}
	b := newPostgres(t)
	b.Commit(t, map[zodb.Oid][]byte{0xfff: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	done := make(chan error, 1)
	var want []zodb.Tid
	began := time.Now()
	go func() {
		var err error
		want, err = b.w.Many([]zodb.Oid{0x1000, 0x1001, 0x1002}, n, 2000)
		done <- err
	}()
	var got []zodb.Tid
	var late []time.Duration
	for range n {
		c := f.next()
		late = append(late, time.Since(c.Tid.Time()))
		got = append(got, c.Tid)
	}
	took := time.Since(began)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatal("what was reported is not what was committed")
	}
	slices.Sort(late)
	t.Logf("%.0f commits a minute; reported %v after the tid was chosen, the slowest %v",
		float64(n)/took.Minutes(), late[n/2].Round(time.Millisecond), late[n-1].Round(time.Millisecond))
}

// TestMany: more commits than Python can make, by SQL; WCFS_SOAK=1: ten thousand. The log tells the rate,
// and when the last was reported.
func TestMany(t *testing.T) {
	n := 500
	if os.Getenv("WCFS_SOAK") != "" {
		n = 10000
	}
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	began := time.Now()
	w := newSQL(t, b.url)
	done := make(chan time.Time, 1)
	go func() {
		for i := range zodb.Tid(n) {
			w.do("BEGIN")
			w.do(`LOCK TABLE "transaction" IN ROW EXCLUSIVE MODE`)
			w.insert(first+1+i, zodb.Oid(0x1000+i%16))
			w.do("COMMIT")
		}
		done <- time.Now()
	}()
	for i := range zodb.Tid(n) {
		c := f.next()
		if c.Tid != first+1+i || !slices.Equal(c.Oids, []zodb.Oid{zodb.Oid(0x1000 + i%16)}) {
			t.Fatalf("reported %+v; want %s", c, first+1+i)
		}
	}
	reported := time.Now()
	last := <-done
	t.Logf("%.0f commits a minute; the last reported %v after it was made", float64(n)/last.Sub(began).Minutes(),
		max(0, reported.Sub(last)).Round(time.Millisecond))
}
