package neo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// Storage is an open NEO cluster. It implements zodb.Storage; all methods may be called from many goroutines
// at once.
type Storage struct {
	place *place
	opt   Options

	stop     context.CancelFunc
	stopped  context.Context
	finished chan struct{} // closed when keep has returned

	mu        sync.Mutex
	cur       *session      // guarded by mu; nil while there is none
	changed   chan struct{} // guarded by mu; closed and replaced when cur or fatal changes
	lastErr   error         // guarded by mu; why there is no session
	since     time.Time     // guarded by mu; since when there is one, or none
	losses    int64         // guarded by mu; how often there was none any more
	fatal     error         // guarded by mu; set once, when there will be none any more
	following bool          // guarded by mu; Follow was called

	node    int32     // guarded by mu; our node id of last
	primary address   // guarded by mu; the primary master of last
	learned []address // guarded by mu; masters that the cluster told of
	known   zodb.Tid  // guarded by mu; last transaction that the cluster was seen to have
	told    zodb.Tid  // guarded by mu; last tid that Head or Follow told of
	backing bool      // guarded by mu; the cluster backs up another one, as of last
}

// maxMasters bounds how many masters are tried.
const maxMasters = 16

// Open connects to the cluster that url names. It waits, for Options.Timeout at most, for one that is there and
// not operational yet; a cluster of another name or protocol, or one that does not trust us, is an error at once.
func Open(ctx context.Context, url string, opt Options) (*Storage, error) {
	p, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	s := &Storage{place: p, opt: opt.withDefaults(), changed: make(chan struct{}), finished: make(chan struct{})}
	x, err := s.connectFirst(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.normal, err)
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	s.publish(x, nil)
	go s.keep(x)
	return s, nil
}

// URL implements zodb.Storage. It is the normal form, which is the same for all clients of a cluster.
func (s *Storage) URL() string { return s.place.normal }

// Close implements zodb.Storage.
func (s *Storage) Close() error {
	s.fail(ErrClosed)
	s.stop()
	<-s.finished
	return nil
}

// connectFirst connects for Open. That nobody listens is final; what becomes of a cluster by itself is not.
func (s *Storage) connectFirst(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.Timeout, fmt.Errorf("%w within %s", ErrTimeout, s.opt.Timeout))
	defer cancel()
	var last error
	for pause := s.opt.MinBackoff; ; pause = min(2*pause, s.opt.MaxBackoff) {
		x, err := s.connect(ctx)
		var away *awayError
		switch {
		case err == nil:
			return x, nil
		case isRefusal(err):
			return nil, err
		case errors.As(err, &away):
			return nil, fmt.Errorf("%w: does a NEO master run there?", err)
		case ctx.Err() != nil && last != nil:
			return nil, zodb.Outage(fmt.Errorf("%w: %w", context.Cause(ctx), last))
		case ctx.Err() != nil:
			return nil, zodb.Outage(err)
		}
		if last == nil || last.Error() != err.Error() {
			s.opt.Log.Info("waiting for the NEO cluster", "url", s.place.normal, "cause", err)
		}
		last = err
		sleep(ctx, pause)
	}
}

// shortLived is how fast sessions that break at once are made anew at the least.
const shortLived = 100 * time.Millisecond

// keep has a session made anew whenever it is over, until the storage is closed or fails.
func (s *Storage) keep(x *session) {
	defer close(s.finished)
	for pause := s.opt.MinBackoff; ; {
		began := time.Now()
		go x.poll()
		select {
		case <-x.c.done:
		case <-s.stopped.Done():
			x.close(ErrClosed)
			return
		}
		x.close(nil)
		err := x.c.cause()
		s.remember(x)
		s.publish(nil, err)
		s.opt.Log.Warn("connection to the NEO master lost, reconnecting", "url", s.place.normal, "cause", err)
		if pause = min(2*pause, shortLived); time.Since(began) > 10*pause {
			pause = s.opt.MinBackoff
		}
		if x = s.reconnect(pause); x == nil {
			return
		}
		s.opt.Log.Info("connected to the NEO master anew", "url", s.place.normal)
		s.publish(x, nil)
	}
}

// reconnect tries until there is a session; nil when there never will be.
func (s *Storage) reconnect(pause time.Duration) *session {
	told := ""
	for ; ; pause = min(2*pause, s.opt.MaxBackoff) {
		sleep(s.stopped, pause/2+rand.N(pause))
		if s.stopped.Err() != nil {
			return nil
		}
		x, err := s.connect(s.stopped)
		switch {
		case err == nil:
			return x
		case zodb.KindOf(err) == zodb.KindOtherDatabase:
			s.opt.Log.Error("NEO storage given up", "url", s.place.normal, "cause", err)
			s.fail(err)
			return nil
		case s.stopped.Err() == nil && err.Error() != told:
			told = err.Error()
			s.opt.Log.Warn("NEO cluster cannot be reached, trying on", "url", s.place.normal, "cause", err)
		}
		s.publish(nil, err)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// remember keeps of a session that is over what the next one needs.
func (s *Storage) remember(x *session) {
	x.mu.Lock()
	told, head, node, backing, masters := x.told, x.head, x.node, x.backing, x.cl.masters()
	x.mu.Unlock()
	s.know(told)
	s.tell(head)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.backing = node, backing
	if !s.opt.GivenOnly {
		s.learned = masters[:min(len(masters), maxMasters)]
	}
}

// know takes note of a transaction that the cluster has.
func (s *Storage) know(t zodb.Tid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.told = max(s.known, t), max(s.told, t)
}

// tell takes note of a tid that the cluster was at, and returns the largest one.
func (s *Storage) tell(t zodb.Tid) zodb.Tid {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = max(s.told, t)
	return s.told
}

// publish sets the session that operations use.
func (s *Storage) publish(x *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || (x == nil) != (s.cur == nil) {
		s.since = time.Now()
	}
	if x == nil && s.cur != nil {
		s.losses++
	}
	s.cur, s.lastErr = x, err
	s.announce()
}

// fail ends the storage: everything fails with err from now on. Only the first call counts.
func (s *Storage) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		if s.cur != nil {
			s.since = time.Now()
			s.losses++
		}
		s.fatal, s.cur = err, nil
		s.announce()
	}
}

// Connectivity implements zodb.Connector.
func (s *Storage) Connectivity() (c zodb.Connectivity, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = zodb.Connectivity{Connected: s.cur != nil, Since: s.since, Lost: s.losses}
	switch {
	case s.fatal != nil:
		c.Err = s.fatal
	case s.cur == nil:
		c.Err = s.lastErr
	}
	return c, true
}

// announce wakes those who wait for a change. mu must be held.
func (s *Storage) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// session waits for a session other than not.
func (s *Storage) session(ctx context.Context, not *session) (*session, error) {
	for {
		s.mu.Lock()
		x, changed, fatal, lastErr := s.cur, s.changed, s.fatal, s.lastErr
		s.mu.Unlock()
		switch {
		case fatal != nil:
			return nil, fatal
		case x != nil && x != not:
			return x, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, ErrTimeout) && lastErr != nil {
				err = fmt.Errorf("%w: %w", err, lastErr)
			}
			return nil, err
		}
	}
}

// with runs fn with a session, again with the next one if that is lost meanwhile, for Timeout at most.
func (s *Storage) with(ctx context.Context, fn func(context.Context, *session) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.Timeout, fmt.Errorf("%w within %s", ErrTimeout, s.opt.Timeout))
	defer cancel()
	var x *session
	for {
		next, err := s.session(ctx, x)
		if err != nil {
			return err
		}
		x = next
		if err = fn(ctx, x); err == nil || ctx.Err() != nil || x.c.cause() == nil {
			return err
		}
		if zodb.KindOf(err) == zodb.KindAnswer {
			return err
		}
	}
}

// ask is session.ask, over sessions.
func (s *Storage) ask(ctx context.Context, key uint64, req message, check func(message) error) (message, error) {
	var a asked
	err := s.with(ctx, func(ctx context.Context, x *session) (err error) {
		a, err = x.ask(ctx, key, req, check)
		return err
	})
	return a.msg, err
}

// candidates returns where to look for the primary master, the likeliest place first.
func (s *Storage) candidates() []address {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l []address
	if s.primary != (address{}) {
		l = append(l, s.primary)
	}
	for _, a := range slices.Concat(s.place.masters, s.learned) {
		if !slices.Contains(l, a) {
			l = append(l, a)
		}
	}
	return l
}
