package p9srv

import "sync/atomic"

// gauge counts something of connections. Every connection may have own of it whatever others have; what they
// have beyond that is limited to shared.
type gauge struct {
	own, shared int64
	n, beyond   atomic.Int64
}

// newGauge splits all: a half is shared, the rest is of single connections.
func newGauge(all, conns int) gauge {
	own := int64(all / 2 / conns)
	return gauge{own: own, shared: int64(all) - own*int64(conns)}
}

// room tells whether a connection that has had may have one more.
func (g *gauge) room(had int) bool { return int64(had) < g.own || g.beyond.Load() < g.shared }

// add counts one more of a connection that had as many before; with a negative n: one less.
func (g *gauge) add(n int64, had int) {
	g.n.Add(n)
	if int64(had) >= g.own {
		g.beyond.Add(n)
	}
}
