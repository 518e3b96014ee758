package zeo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// Storage is an open ZEO storage. It implements zodb.Storage; all methods may be called from many
// goroutines at once.
type Storage struct {
	url   string
	place *place
	opt   Options

	stop     context.CancelFunc
	stopped  context.Context
	finished chan struct{} // closed when keep has returned

	mu        sync.Mutex
	cur       *conn         // guarded by mu; nil while disconnected
	changed   chan struct{} // guarded by mu; closed and replaced when cur or fatal changes
	lastErr   error         // guarded by mu; why there is no connection
	since     time.Time     // guarded by mu; since when there is one, or none
	losses    int64         // guarded by mu; how often there was none any more
	fatal     error         // guarded by mu; set once, when there will be none any more
	following bool          // guarded by mu; Follow was called

	known    zodb.Tid              // guarded by mu; last transaction that the server was seen to have
	told     zodb.Tid              // guarded by mu; last one that Head or Follow told of, a phantom perhaps
	phantoms map[zodb.Tid]zodb.Tid // guarded by mu; by phantom: the last transaction before it
}

// Open connects to the server that url names. A server that is not there is waited for as long as
// the URL asks (wait_timeout); one that does not speak ZEO 5, has no such storage or is not trusted
// is an error at once.
func Open(ctx context.Context, url string, opt Options) (*Storage, error) {
	p, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	s := &Storage{url: url, place: p, opt: opt.withDefaults(), changed: make(chan struct{}), finished: make(chan struct{}),
		phantoms: map[zodb.Tid]zodb.Tid{}}
	c, err := s.connectFirst(ctx)
	if isDial(err) {
		err = fmt.Errorf("%w: does a ZEO server run there? wait_timeout=SECONDS in the URL waits for one", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	s.stopped, s.stop = context.WithCancel(context.Background())
	s.publish(c, nil)
	go s.keep(c)
	return s, nil
}

// URL implements zodb.Storage.
func (s *Storage) URL() string { return s.url }

// Close implements zodb.Storage.
func (s *Storage) Close() error {
	s.fail(ErrClosed)
	s.stop()
	<-s.finished
	return nil
}

// connectFirst connects for Open.
func (s *Storage) connectFirst(ctx context.Context) (*conn, error) {
	until := time.Now().Add(s.place.wait)
	for pause := s.opt.MinBackoff; ; pause = min(2*pause, s.opt.MaxBackoff) {
		c, err := s.connect(ctx)
		if err == nil || isRefusal(err) || ctx.Err() != nil || !time.Now().Before(until) {
			return c, err
		}
		sleep(ctx, pause)
	}
}

// shortLived is how fast connections that break at once are made anew at the least.
const shortLived = 100 * time.Millisecond

// keep has a connection made anew whenever it is lost, until the storage is closed or fails.
func (s *Storage) keep(c *conn) {
	defer close(s.finished)
	for pause := s.opt.MinBackoff; ; {
		began := time.Now()
		select {
		case <-c.done:
		case <-s.stopped.Done():
			c.close(ErrClosed)
			return
		}
		c.close(nil)
		err := c.cause()
		s.know(c.told())
		s.publish(nil, err)
		s.opt.Log.Warn("ZEO connection lost, reconnecting", "url", s.url, "cause", err)
		if pause = min(2*pause, shortLived); time.Since(began) > 10*pause {
			pause = s.opt.MinBackoff
		}
		if c = s.reconnect(pause); c == nil {
			return
		}
		s.opt.Log.Info("ZEO connection made anew", "url", s.url)
		s.publish(c, nil)
	}
}

// reconnect tries until there is a connection; nil when there never will be.
func (s *Storage) reconnect(pause time.Duration) *conn {
	told := ""
	for ; ; pause = min(2*pause, s.opt.MaxBackoff) {
		sleep(s.stopped, pause/2+rand.N(pause))
		if s.stopped.Err() != nil {
			return nil
		}
		c, err := s.connect(s.stopped)
		switch {
		case err == nil:
			return c
		case errors.Is(err, ErrOtherDatabase):
			s.opt.Log.Error("ZEO storage given up", "url", s.url, "cause", err)
			s.fail(err)
			return nil
		case s.stopped.Err() == nil && err.Error() != told:
			told = err.Error()
			s.opt.Log.Warn("ZEO server cannot be reached, trying on", "url", s.url, "cause", err)
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

// connect makes a connection, registers and checks that the database is the one known.
func (s *Storage) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.silence(), ErrTimeout)
	defer cancel()
	nc, err := s.place.dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err := newConn(ctx, nc, s.opt)
	if errors.Is(err, io.EOF) && s.place.tls {
		err = fmt.Errorf("%w: does it trust the client certificate (tls_cert)?", err)
	} else if errors.Is(err, ErrTimeout) && !s.place.tls {
		err = fmt.Errorf("%w: does it want TLS (tls_ca, tls_cert)?", err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.register(ctx, c); err != nil {
		c.close(err)
		return nil, err
	}
	return c, nil
}

func (s *Storage) register(ctx context.Context, c *conn) error {
	v, err := c.call(ctx, "register", s.place.storage, true)
	if isServerError(err) {
		return &refusal{fmt.Errorf("the server does not let us have storage %q: %w", s.place.storage, err)}
	}
	if err != nil {
		return err
	}
	head, ok := asTid(v)
	if !ok {
		return badReply("register", v)
	}
	s.mu.Lock()
	known := s.known
	_, phantom := s.phantoms[head]
	s.mu.Unlock()
	if err := sameDatabase(ctx, c, known, head); err != nil {
		return err
	}
	if head == known || phantom {
		return nil
	}
	return s.prove(ctx, c, head)
}

// sameDatabase checks that a server whose last transaction is head serves the database that was
// known up to known: a copy restored from a backup has another history after some point.
func sameDatabase(ctx context.Context, c *conn, known, head zodb.Tid) error {
	if head < known {
		return fmt.Errorf("%w: its last transaction is %s, %s was seen before; was it restored from a backup?",
			ErrOtherDatabase, head, known)
	}
	if known == 0 || known == head {
		return nil
	}
	tids, err := transactions(ctx, c, known, known)
	if isServerError(err) { // a storage that cannot be iterated over
		return nil
	}
	if err != nil {
		return err
	}
	if len(tids) == 0 {
		return fmt.Errorf("%w: transaction %s, the last one seen before, is not there any more; was it replaced, or packed?",
			ErrOtherDatabase, known)
	}
	return nil
}

// know takes note of a tid that the server told of, and returns the largest one. One that is not
// a phantom counts as a transaction from now on.
func (s *Storage) know(t zodb.Tid) zodb.Tid {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, phantom := s.phantoms[t]; !phantom {
		s.known = max(s.known, t)
	}
	s.told = max(s.told, t)
	return s.told
}

// publish sets the connection that operations use.
func (s *Storage) publish(c *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || (c == nil) != (s.cur == nil) {
		s.since = time.Now()
	}
	if c == nil && s.cur != nil {
		s.losses++
	}
	s.cur, s.lastErr = c, err
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

// connection waits for a connection other than not.
func (s *Storage) connection(ctx context.Context, not *conn) (*conn, error) {
	for {
		s.mu.Lock()
		c, changed, fatal, lastErr := s.cur, s.changed, s.fatal, s.lastErr
		s.mu.Unlock()
		switch {
		case fatal != nil:
			return nil, fatal
		case c != nil && c != not:
			return c, nil
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

// call asks the server, again after a lost connection, for Timeout at most. Every question this
// client asks may be asked twice.
func (s *Storage) call(ctx context.Context, method string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.Timeout, fmt.Errorf("%w within %s", ErrTimeout, s.opt.Timeout))
	defer cancel()
	var c *conn
	for {
		next, err := s.connection(ctx, c)
		if err != nil {
			return nil, err
		}
		c = next
		v, err := c.call(ctx, method, args...)
		var lost *lostError
		if !errors.As(err, &lost) {
			return v, err
		}
	}
}
