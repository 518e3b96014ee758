package p9srv

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// budget bounds bytes of replies in memory. A read that may wait for pins also takes from a half of
// it, so that such reads never use up all: what a pin points to can be read while they wait.
type budget struct {
	all  *semaphore.Weighted
	half *semaphore.Weighted
	used atomic.Int64
}

func newBudget(n int64) *budget {
	return &budget{all: semaphore.NewWeighted(n), half: semaphore.NewWeighted(n / 2)}
}

// take waits until n bytes are there; put gives them back.
func (b *budget) take(ctx context.Context, n int64, pins bool) error {
	if pins {
		if err := b.half.Acquire(ctx, n); err != nil {
			return err
		}
	}
	if err := b.all.Acquire(ctx, n); err != nil {
		if pins {
			b.half.Release(n)
		}
		return err
	}
	b.used.Add(n)
	return nil
}

func (b *budget) put(n int64, pins bool) {
	b.used.Add(-n)
	b.all.Release(n)
	if pins {
		b.half.Release(n)
	}
}

// gauge counts something up to a limit.
type gauge struct {
	n   atomic.Int64
	max int64
}

// inc reports false, and counts nothing, when the limit is reached.
func (g *gauge) inc() bool {
	if g.n.Add(1) > g.max {
		g.n.Add(-1)
		return false
	}
	return true
}

func (g *gauge) dec() { g.n.Add(-1) }
