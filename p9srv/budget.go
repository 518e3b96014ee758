package p9srv

import (
	"context"
	"slices"
	"sync"
)

// budget bounds bytes of replies in memory, of one connection and of all. Reads that may wait for pins get
// a half of it, so that such reads never use up all: what a pin points to can be read while they wait.
// And every connection there may be has some of each half for itself, so that none waits for others that
// do not take their replies.
type budget struct {
	conn   int64 // limit of one connection
	own    int64 // what it has for itself of each half
	shared int64 // what all may have beyond that

	mu      sync.Mutex
	used    amounts  // guarded by mu
	beyond  amounts  // the part of it that is of what is shared; guarded by mu
	waiting []*share // with reads that wait, longest first; guarded by mu
}

// newBudget splits all: a half is shared, the rest is of single connections.
func newBudget(all, conn int64, conns int) budget {
	own := all / 4 / int64(conns)
	return budget{conn: conn, own: own, shared: all - 2*own*int64(conns)}
}

// amounts are bytes, of reads that may wait for pins and of others.
type amounts struct{ pins, others int64 }

func (a *amounts) of(pins bool) *int64 {
	if pins {
		return &a.pins
	}
	return &a.others
}

func (a amounts) sum() int64 { return a.pins + a.others }

// share is what one connection has of a budget. mu of the budget guards it.
type share struct {
	b           *budget
	used        amounts
	pins, other []*taker // wait in order of arrival
}

type taker struct {
	n     int64
	ready chan struct{} // closed when it has got it
}

func (s *share) queue(pins bool) *[]*taker {
	if pins {
		return &s.pins
	}
	return &s.other
}

func (s *share) idle() bool { return len(s.pins)+len(s.other) == 0 }

// take waits until n bytes are there; put gives them back.
func (s *share) take(ctx context.Context, n int64, pins bool) error {
	b := s.b
	b.mu.Lock()
	q := s.queue(pins)
	if len(*q) == 0 && s.fits(n, pins) {
		s.add(n, pins)
		b.mu.Unlock()
		return nil
	}
	if s.idle() {
		b.waiting = append(b.waiting, s)
	}
	t := &taker{n: n, ready: make(chan struct{})}
	*q = append(*q, t)
	b.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(*q, t); i >= 0 {
		*q = slices.Delete(*q, i, i+1)
	} else {
		s.add(-n, pins)
	}
	b.serve()
	return ctx.Err()
}

func (s *share) put(n int64, pins bool) {
	s.b.mu.Lock()
	s.add(-n, pins)
	if len(s.b.waiting) > 0 {
		s.b.serve()
	}
	s.b.mu.Unlock()
}

// fits tells whether the connection may have n more. mu must be held.
func (s *share) fits(n int64, pins bool) bool {
	b := s.b
	if s.used.sum()+n > b.conn || pins && s.used.pins+n > b.conn/2 {
		return false
	}
	more := s.beyond(n, pins)
	return more == 0 || b.beyond.sum()+more <= b.shared && (!pins || b.beyond.pins+more <= b.shared/2)
}

// beyond tells how much of n more is of what is shared; n may be negative. mu must be held.
func (s *share) beyond(n int64, pins bool) int64 {
	now := *s.used.of(pins)
	return max(now+n-s.b.own, 0) - max(now-s.b.own, 0)
}

func (s *share) add(n int64, pins bool) {
	*s.b.beyond.of(pins) += s.beyond(n, pins)
	*s.b.used.of(pins) += n
	*s.used.of(pins) += n
}

// serve gives those that wait what fits. mu must be held.
func (b *budget) serve() {
	for _, s := range b.waiting {
		for _, pins := range []bool{false, true} {
			q := s.queue(pins)
			for len(*q) > 0 && s.fits((*q)[0].n, pins) {
				s.add((*q)[0].n, pins)
				close((*q)[0].ready)
				*q = (*q)[1:]
			}
		}
	}
	b.waiting = slices.DeleteFunc(b.waiting, (*share).idle)
}

// inUse is how much all connections have.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used.sum()
}

// inUse is how much the connection has.
func (s *share) inUse() int64 {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.used.sum()
}
