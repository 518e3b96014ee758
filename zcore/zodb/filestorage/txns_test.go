package filestorage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// TestLastTid: over 10^5 transactions, each boundary is right to the tid: before it, at it, after it; and by the time
// that a user would write.
func TestLastTid(t *testing.T) {
	const n = 100_000
	file := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	tids := []zodb.Tid{zodb.TidFromTime(time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC))}
	for len(tids) < n {
		tids = append(tids, tids[len(tids)-1]+1+zodb.Tid(rng.Uint64N(1<<26))) // up to a second apart
	}
	for i, tid := range tids {
		if err := w.Commit(tid, map[zodb.Oid][]byte{zodb.Oid(i % 10): make([]byte, 1+rng.IntN(50))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), "file://"+file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	i := n - 1
	err = s.Txns(t.Context(), zodb.TidMax, func(x zodb.Txn) (bool, error) {
		if x.Tid != tids[i] || x.Objects != 1 {
			return false, fmt.Errorf("transaction %d is %+v, not %s", i, x, tids[i])
		}
		i--
		return true, nil
	})
	if err != nil || i != -1 {
		t.Fatalf("%d transactions were not listed (%v)", i+1, err)
	}
	want := func(at, tid zodb.Tid) {
		t.Helper()
		if got, err := s.LastTid(context.Background(), at); err != nil || got != tid {
			t.Fatalf("the last at %s: %s (%v), want %s", at, got, err, tid)
		}
	}
	want(tids[0]-1, 0)
	want(0, 0)
	want(zodb.TidMax, tids[n-1])
	for range 500 {
		i := 1 + rng.IntN(n-1)
		want(tids[i]-1, tids[i-1])
		want(tids[i], tids[i])
		if tids[i]+1 < append(tids, zodb.TidMax)[i+1] {
			want(tids[i]+1, tids[i])
		}
		after := tids[i].Time().Add(1) // a nanosecond has several tids
		at, err := zodb.ParseMoment(after.Format(time.RFC3339Nano), time.Time{})
		if err != nil || at < tids[i] || at.Time().After(after) {
			t.Fatalf("%v is %s (%v)", after, at, err)
		}
	}
}
