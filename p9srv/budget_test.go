package p9srv

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestBudgetRandom: whatever is taken and given back, by whom and in what order, no limit is passed,
// nobody waits forever, and nothing is left over.
func TestBudgetRandom(t *testing.T) {
	const all, conn, conns = 96, 16, 12
	for seed := range uint64(200) {
		b := newBudget(all, conn, conns)
		var wg sync.WaitGroup
		for i := range uint64(conns) {
			s := &share{b: &b}
			for j := range uint64(4) {
				wg.Go(func() { takeRandomly(t, s, all, rand.New(rand.NewPCG(seed, i*4+j))) })
			}
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("seed %d: somebody waits forever: %+v", seed, &b)
		}
		if b.used != (amounts{}) || b.beyond != (amounts{}) || len(b.waiting) > 0 {
			t.Fatalf("seed %d: left over: %+v", seed, &b)
		}
	}
}

func takeRandomly(t *testing.T, s *share, all int64, rng *rand.Rand) {
	for range 20 {
		n, pins := 1+rng.Int64N(8), rng.IntN(2) == 0
		ctx, cancel := context.WithCancel(context.Background())
		if rng.IntN(4) == 0 {
			time.AfterFunc(time.Duration(rng.IntN(100))*time.Microsecond, cancel)
		}
		if s.take(ctx, n, pins) == nil {
			b := s.b
			b.mu.Lock()
			if s.used.sum() > b.conn || b.used.sum() > all || s.used.pins > b.conn/2 || b.used.pins > all/2 {
				t.Errorf("beyond a limit: %+v of %+v", s.used, b)
			}
			b.mu.Unlock()
			if rng.IntN(2) == 0 {
				time.Sleep(time.Duration(rng.IntN(50)) * time.Microsecond)
			}
			s.put(n, pins)
		}
		cancel()
	}
}

// TestBudgetFair: connections that keep what they got leave enough for the next, of every kind.
func TestBudgetFair(t *testing.T) {
	const conns, n = 100, int64(1)
	b := newBudget(1000, 100, conns)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range conns - 1 {
		s := &share{b: &b}
		for _, pins := range []bool{true, false} {
			wg.Go(func() {
				for s.take(ctx, n, pins) == nil {
				}
			})
		}
	}
	eventually(t, "all wait", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		queued := 0
		for _, s := range b.waiting {
			queued += len(s.pins) + len(s.other)
		}
		return queued == 2*(conns-1)
	})
	next := &share{b: &b}
	for _, pins := range []bool{false, true} {
		for range 2 {
			quick, stop := context.WithTimeout(ctx, patience)
			if err := next.take(quick, n, pins); err != nil {
				t.Errorf("%d in use, and no room for %d (pins: %v)", b.inUse(), n, pins)
			}
			stop()
		}
	}
	cancel()
	wg.Wait()
}
