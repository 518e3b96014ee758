package history

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
)

// TestMemory tracks a million blocks, as readers of a big file do, and measures what each costs. Reads of
// few blocks here and there also have a BTree node tracked with each.
func TestMemory(t *testing.T) {
	n := 1_000_000
	if raceEnabled || testing.Short() {
		n = 100_000
	}
	sparse := shuffled(n)
	for _, c := range []struct {
		name  string
		most  float64 // bytes for each block
		order func(i int) Blk
	}{
		{"in order", 150, func(i int) Blk { return Blk(i) }},
		{"at random", 150, shuffled(n)},
		{"one in a hundred", 200, func(i int) Blk { return Blk(i * 100) }},
		{"one in a hundred, at random", 200, func(i int) Blk { return sparse(i) * 100 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tail := New(memstorage.New(), 1, Options{})
			before := heap()
			trackMany(t, tail, n, c.order)
			cost := float64(heap()-before) / float64(n)
			t.Logf("%.0f bytes for each tracked block", cost)
			if cost > c.most {
				t.Errorf("a tracked block costs %.0f bytes, want at most %.0f", cost, c.most)
			}
			if got := tail.Tracked(); got != n {
				t.Fatalf("%d blocks are tracked", got)
			}
		})
	}
}

// A block that changes all the time keeps the changes that somebody may ask for, and no more.
func TestChangesAreForgotten(t *testing.T) {
	now := time.Unix(0, 0)
	tail := New(memstorage.New(), 1, Options{Retention: time.Minute, Now: func() time.Time { return now }})
	f := trackMany(t, tail, 1, func(int) Blk { return 7 })
	for tid := zodb.Tid(10); tid < 10_000; tid++ {
		now = now.Add(time.Second)
		c := zodb.Commit{Tid: tid, Oids: []zodb.Oid{zblkOf(7)}}
		tail.Publish([]zodb.Commit{c})
		if _, err := tail.Delta(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		tail.Trim()
	}
	tail.mu.Lock()
	defer tail.mu.Unlock()
	for what, n := range map[string]int{
		"commits": len(tail.list), "objects": len(tail.touches.last) * 60, "changes of the block": len(f.revs[7]),
		"deltas of the file": len(f.deltas), "attributes of the file": len(f.attrs),
	} {
		if n > 70 {
			t.Errorf("%d %s are remembered after a minute", n, what)
		}
	}
}

// A hold keeps the list of commits back to its tid, however long ago that was; without it the list is trimmed.
func TestHoldKeepsCommits(t *testing.T) {
	now := time.Unix(0, 0)
	tail := New(memstorage.New(), 1, Options{Retention: time.Minute, Now: func() time.Time { return now }})
	commit := func(from, to zodb.Tid) {
		for tid := from; tid < to; tid++ {
			now = now.Add(time.Second)
			c := zodb.Commit{Tid: tid, Oids: []zodb.Oid{zblkOf(7)}}
			tail.Publish([]zodb.Commit{c})
			if _, err := tail.Delta(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			tail.Trim()
		}
	}
	commit(10, 500)
	hold := tail.Hold(490)
	commit(500, 1000)
	if oldest, _ := tail.Bounds(); oldest > 490 {
		t.Errorf("the list begins at %d, though 490 is held", oldest)
	}
	hold.Release()
	commit(1000, 1010)
	if oldest, _ := tail.Bounds(); oldest < 900 {
		t.Errorf("the list begins at %d, though nothing is held", oldest)
	}
}

// Blocks are found by when they were tracked, also those that were tracked late as of an old view.
func TestRecentInOrder(t *testing.T) {
	f := &File{}
	for i := range 300 {
		f.addRecent(sinceRef{zodb.Tid(i * 7919 % 300), Blk(i)})
	}
	for i := 1; i < len(f.recent); i++ {
		if f.recent[i-1].since > f.recent[i].since {
			t.Fatalf("%d comes after %d", f.recent[i].since, f.recent[i-1].since)
		}
	}
	if len(f.recent) != 300 {
		t.Errorf("%d of 300 blocks are there", len(f.recent))
	}
}

func zblkOf(blk Blk) zodb.Oid { return zodb.Oid(1<<32 + blk) }

// trackMany tracks n blocks of a file whose leaves have 30 keys.
func trackMany(t *testing.T, tail *Tail, n int, order func(i int) Blk) *File {
	t.Helper()
	f, _ := tail.AddFile(1, zdata.BigFile{Oid: 1, Blksize: 2 << 20, Blktab: 2}, 0, 0, nil)
	for i := range n {
		blk := order(i)
		leaf := blk / 30
		path := []btree.Step{
			{Oid: 2, Lo: btree.KeyMin, Hi: btree.KeyMax, Serial: 1},
			{Oid: zodb.Oid(1000 + leaf), Lo: btree.Key(leaf * 30), Hi: btree.Key(leaf*30 + 29), Serial: 1},
		}
		m := Mapping{ZBlk: zblkOf(blk)}
		if w := tail.Track(f, blk, 1, m, path); w != 0 {
			t.Fatalf("block %d is to wait for %s", blk, w)
		}
		tail.Loaded(f, blk, 1, m, 1, 1)
	}
	return f
}

// shuffled gives 0 to n-1 in an order that is the same each time.
func shuffled(n int) func(i int) Blk {
	perm := rand.New(rand.NewPCG(1, 2)).Perm(n)
	return func(i int) Blk { return Blk(perm[i]) }
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
