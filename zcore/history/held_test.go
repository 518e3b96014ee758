package history

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// walk is what the searches of a Tail are compared with: a walk over all commits.
func walk(list []zodb.Commit, oid zodb.Oid, at zodb.Tid) (stamp, first zodb.Tid) {
	first = zodb.TidMax
	for _, c := range list {
		if c.Gap == 0 && !slices.Contains(c.Oids, oid) {
			continue
		}
		if c.Tid <= at {
			stamp = c.Tid
		} else if first == zodb.TidMax {
			if first = c.Tid; c.Gap != 0 {
				first = max(c.Gap, at) + 1
			}
		}
	}
	return stamp, first
}

func TestSearchIsTheWalk(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1e9, 0)
		tail := New(memstorage.New(), 10, Options{Retention: time.Second, Now: func() time.Time { return now }})
		var list []zodb.Commit
		tid := zodb.Tid(10)
		for range 300 {
			c := zodb.Commit{Tid: tid + 1 + zodb.Tid(rng.IntN(5))}
			if rng.IntN(20) == 0 {
				c.Gap = tid
			}
			for range rng.IntN(4) {
				c.Oids = append(c.Oids, zodb.Oid(rng.IntN(6)))
			}
			tid = c.Tid
			list = append(list, c)
			tail.Publish([]zodb.Commit{c})
			if rng.IntN(50) == 0 { // forget a part
				hold := tail.Hold(list[len(list)/2].Tid)
				now = now.Add(time.Hour)
				tail.TrimNow()
				hold.Release()
				for list[0].Tid <= tail.tail {
					list = list[1:]
				}
			}
		}
		for at := tail.tail; at <= tid+1; at++ {
			for oid := range zodb.Oid(6) {
				stamp, first := walk(list, oid, at)
				tail.mu.Lock()
				gotStamp, gotFirst := tail.stamp(oid, at), tail.firstTouch(oid, at)
				tail.mu.Unlock()
				if gotStamp != stamp || gotFirst != first {
					t.Fatalf("seed %d: %s @%d: touched @%d and then @%d, want @%d and @%d", seed, oid, at, gotStamp, gotFirst, stamp, first)
				}
			}
		}
		now = now.Add(time.Hour)
		tail.TrimNow()
		if len(tail.list) != 0 || len(tail.touches.last) != 0 || len(tail.touches.older) != 0 || len(tail.gaps) != 0 || tail.bytes != 0 {
			t.Fatalf("seed %d: %d commits, %d and %d objects, %d gaps, %d bytes are left",
				seed, len(tail.list), len(tail.touches.last), len(tail.touches.older), len(tail.gaps), tail.bytes)
		}
	}
}

// A load of an old revision does not cost more where many commits are held.
func TestLoadsWhileMuchIsHeld(t *testing.T) {
	tail := New(memstorage.New(), 10, Options{Retention: time.Nanosecond})
	hold := tail.Hold(10)
	defer hold.Release()
	const n = 200000
	for i := range zodb.Tid(n) {
		tail.Publish([]zodb.Commit{{Tid: 11 + i, Oids: []zodb.Oid{zodb.Oid(1000 + i%5000)}}})
	}
	tail.Publish([]zodb.Commit{{Tid: 11 + n, Oids: []zodb.Oid{1}}})
	began := time.Now()
	const loads = 20000 // a walk takes a millisecond each
	for i := range zodb.Tid(loads) {
		tail.Block(context.Background(), 1, 11+n/2+i, 4096) // there is none: that it is looked for is all
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d loads took %v", loads, took)
	}
}
