package probe

import (
	"context"
	"sync"
)

// gate holds the READs of one page until it is opened.
type gate struct {
	pg      int64
	came    chan struct{} // closed when a READ of the page is held
	release chan struct{} // closed to let it go
	once    sync.Once
}

func newGate(pg int64) *gate {
	return &gate{pg: pg, came: make(chan struct{}), release: make(chan struct{})}
}

// hold is an onRead that ignores interrupts.
func (g *gate) hold(_ context.Context, c readCall) { g.wait(c) }

// wait holds a read of the page.
func (g *gate) wait(c readCall) {
	if c.has(g.pg) {
		g.once.Do(func() { close(g.came) })
		<-g.release
	}
}

func (g *gate) open() {
	select {
	case <-g.release:
	default:
		close(g.release)
	}
}
