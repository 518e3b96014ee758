package neo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

// stagger is how long a master has to greet before the next one is tried as well.
const stagger = 300 * time.Millisecond

// search is one search for the primary master. One goroutine runs it.
type search struct {
	s       *Storage
	queue   []address // to be tried
	tried   []address
	pending int
	greeted chan greeting
	errs    []error
}

type greeting struct {
	addr address
	c    *conn // nil if err is not
	err  error
}

// awayError is that nobody listens at any of the masters' addresses.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// connect finds the primary master, identifies to it and checks that the database is the one known.
func (s *Storage) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.silence(), ErrTimeout)
	defer cancel()
	f := &search{s: s, queue: s.candidates(), greeted: make(chan greeting, 1)}
	x, err := f.run(ctx)
	cancel()
	for range f.pending { // of those that were too late
		if g := <-f.greeted; g.c != nil {
			g.c.raw.Close()
		}
	}
	return x, err
}

func (f *search) run(ctx context.Context) (*session, error) {
	tick := time.NewTicker(stagger)
	defer tick.Stop()
	f.next(ctx)
	for f.pending > 0 {
		select {
		case <-tick.C:
			f.next(ctx)
		case g := <-f.greeted:
			f.pending--
			x, err := f.try(ctx, g)
			if err == nil || zodb.KindOf(err) == zodb.KindOtherDatabase {
				return x, err
			}
			f.errs = append(f.errs, err)
			f.next(ctx)
		}
	}
	if len(f.errs) == 0 {
		return nil, zodb.Outage(context.Cause(ctx))
	}
	return nil, f.failure()
}

// next begins to connect to the next master.
func (f *search) next(ctx context.Context) {
	if len(f.queue) == 0 || len(f.tried) >= 2*maxMasters || ctx.Err() != nil {
		return
	}
	a := f.queue[0]
	f.queue = f.queue[1:]
	f.tried = append(f.tried, a)
	f.pending++
	go func() {
		c, err := f.s.place.connect(ctx, a, f.s.opt)
		f.greeted <- greeting{a, c, err}
	}()
}

// try identifies to a master that has greeted.
func (f *search) try(ctx context.Context, g greeting) (*session, error) {
	if g.err != nil {
		return nil, g.err
	}
	f.s.mu.Lock()
	node := f.s.node
	f.s.mu.Unlock()
	x := newSession(g.c, f.s.place, f.s.opt)
	err := x.identify(ctx, node)
	if err == nil {
		err = f.s.sameDatabase(ctx, x)
	}
	if err == nil {
		f.s.mu.Lock()
		f.s.primary = g.addr
		f.s.mu.Unlock()
		return x, nil
	}
	x.close(err)
	var other *notPrimary
	if errors.As(err, &other) && !f.s.opt.GivenOnly {
		f.learn(other)
	}
	return nil, fmt.Errorf("master %s: %w", g.addr, err)
}

// learn adds the masters that another one told of to those to be tried, the primary one first.
func (f *search) learn(e *notPrimary) {
	known := func(a address) bool {
		return a == address{} || slices.Contains(f.queue, a) || slices.Contains(f.tried, a)
	}
	for _, a := range e.masters {
		if !known(a) {
			f.queue = append(f.queue, a)
		}
	}
	if i := slices.Index(f.queue, e.primary); i > 0 {
		f.queue = append([]address{e.primary}, slices.Delete(f.queue, i, i+1)...)
	}
}

// failure says why no master could be used, with the kind that most speaks for another attempt.
func (f *search) failure() error {
	var away, refused int
	var refusedErr error
	for _, err := range f.errs {
		var d *dialError
		switch {
		case errors.As(err, &d):
			away++
		case isRefusal(err):
			refused++
			refusedErr = err
		}
	}
	err := errors.Join(f.errs...)
	if len(f.errs) > 1 {
		err = oneLine(f.errs)
	}
	switch {
	case away == len(f.errs):
		return zodb.Outage(&awayError{err})
	case refused > 0 && refused+away == len(f.errs):
		return zodb.Outage(refusedErr)
	}
	return zodb.Outage(&plain{err})
}

// plain hides refusals of some masters behind what others said.
type plain struct{ err error }

func (e *plain) Error() string { return e.err.Error() }

func oneLine(errs []error) error {
	s := ""
	for i, err := range errs {
		if i > 0 {
			s += "; "
		}
		s += err.Error()
	}
	return errors.New(s)
}

// sameDatabase checks that a cluster serves the database that was known up to known: not behind it, and with
// that transaction in it.
func (s *Storage) sameDatabase(ctx context.Context, x *session) error {
	x.mu.Lock()
	head, announced := x.head, x.told
	x.mu.Unlock()
	s.mu.Lock()
	known, told, backing := s.known, s.told, s.backing
	s.mu.Unlock()
	switch {
	case head < told && backing:
		return fmt.Errorf("the cluster that backs up another one is at %s, and was at %s: it has to catch up", head, told)
	case head < told:
		return zodb.OtherDatabase(fmt.Errorf("%w: its last transaction is %s, %s was seen before; was it truncated?",
			ErrOtherDatabase, head, told))
	}
	if known != 0 {
		there, err := x.hasTransaction(ctx, known)
		if err == nil && !there {
			err = zodb.OtherDatabase(fmt.Errorf("%w: transaction %s, the last one seen before, is not there any more; was it truncated?",
				ErrOtherDatabase, known))
		}
		if err != nil {
			return err
		}
	}
	last := announced
	if head > last && head > known {
		there, err := x.hasTransaction(ctx, head)
		if err != nil {
			return err
		}
		if there {
			last = head
		}
	}
	s.know(last)
	s.tell(head)
	return nil
}

// hasTransaction tells whether there is a transaction of this tid. The code checks that there is none.
func (x *session) hasTransaction(ctx context.Context, tid zodb.Tid) (bool, error) {
	for try := 0; ; try++ {
		l, err := x.list(ctx, tid, tid, 1, int(uint64(tid)%uint64(x.partitions())))
		if err != nil || len(l) > 0 || try == 3 {
			return len(l) > 0, err
		}
		sleep(ctx, 50*time.Millisecond)
	}
}
