package p9srv

import (
	"context"
	"sync"
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
		if err := acquire(ctx, b.half, n); err != nil {
			return err
		}
	}
	if err := acquire(ctx, b.all, n); err != nil {
		if pins {
			b.half.Release(n)
		}
		return err
	}
	b.used.Add(n)
	return nil
}

// acquire is Acquire without the channel that this makes of ctx, when there is no need to wait.
func acquire(ctx context.Context, s *semaphore.Weighted, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	return s.Acquire(ctx, n)
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

// buffers are memory for data that is read from files, of the sizes that are read most. A buffer has at
// most twice the size that was asked for, so budgets mean what they say up to that.
type buffers struct{ small, large sync.Pool }

const (
	smallBuffer = 64 << 10
	largeBuffer = capMsize
)

// pool returns where buffers of size n come from, and their size; nil: just make them.
func (b *buffers) pool(n int) (*sync.Pool, int) {
	switch {
	case smallBuffer/2 < n && n <= smallBuffer:
		return &b.small, smallBuffer
	case largeBuffer/2 < n && n <= largeBuffer:
		return &b.large, largeBuffer
	}
	return nil, n
}

// get returns n bytes with anything in them.
func (b *buffers) get(n int) []byte {
	pool, size := b.pool(n)
	if pool != nil {
		if p, ok := pool.Get().(*[]byte); ok {
			return (*p)[:n]
		}
	}
	return make([]byte, n, size)
}

func (b *buffers) put(p []byte) {
	if pool, _ := b.pool(cap(p)); pool != nil {
		p = p[:cap(p)]
		pool.Put(&p)
	}
}
