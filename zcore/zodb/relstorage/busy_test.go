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
