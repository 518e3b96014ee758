package zcore

import (
	"context"
	"sync"
	"time"
)

// bounded is a request's context that also ends with the core. Most requests are answered without a wait,
// so what a wait takes (goroutines, for contexts of fronts) is made only when somebody asks for Done.
type bounded struct {
	request context.Context
	core    context.Context

	mu   sync.Mutex
	full context.Context // mu; nil until Done was called
	stop func()          // mu
	over bool            // mu
}

var _ context.Context = (*bounded)(nil)

// within returns ctx bounded by the life of the core.
func (c *Core) within(ctx context.Context) (context.Context, context.CancelFunc) {
	b := &bounded{request: ctx, core: c.ctx}
	return b, b.end
}

func (b *bounded) Deadline() (time.Time, bool) { return b.request.Deadline() }
func (b *bounded) Value(key any) any           { return b.request.Value(key) }

func (b *bounded) Done() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full == nil {
		ctx, cancel := context.WithCancel(b.request)
		unhook := context.AfterFunc(b.core, cancel)
		b.full, b.stop = ctx, func() { unhook(); cancel() }
		if b.over {
			b.stop()
		}
	}
	return b.full.Done()
}

func (b *bounded) Err() error {
	b.mu.Lock()
	full, over := b.full, b.over
	b.mu.Unlock()
	switch {
	case full != nil:
		return full.Err()
	case over:
		return context.Canceled
	}
	if err := b.request.Err(); err != nil {
		return err
	}
	if b.core.Err() != nil {
		return context.Canceled
	}
	return nil
}

func (b *bounded) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.stop != nil {
		b.stop()
	}
}
