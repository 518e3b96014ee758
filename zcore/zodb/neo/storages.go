package neo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// store is the connection to one storage. Its fields are guarded by session.mu; c is also read by session.close
// once nobody dials any more.
type store struct {
	c    *conn         // nil, or dead, while there is none
	wait chan struct{} // closed when dialling is over; nil while nobody does
	err  error         // what dialling failed with
}

// storage returns the connection to a storage, which is made if there is none: one at a time for all who ask.
func (x *session) storage(ctx context.Context, node int32) (*conn, error) {
	x.mu.Lock()
	st := x.stores[node]
	if st == nil {
		st = &store{}
		x.stores[node] = st
	}
	if st.c != nil && st.c.cause() == nil {
		defer x.mu.Unlock()
		return st.c, nil
	}
	if x.c.life.Err() != nil {
		x.mu.Unlock()
		return nil, &lostError{x.c.cause()}
	}
	if st.wait == nil {
		st.wait = make(chan struct{})
		go x.dial(node, st, st.c, x.cl.nodes[node].addr)
	}
	wait := st.wait
	x.mu.Unlock()
	select {
	case <-wait:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if st.c == nil {
		return nil, st.err
	}
	return st.c, nil
}

// dial makes a connection to a storage. A storage allows one for each client: the old one goes first.
func (x *session) dial(node int32, st *store, old *conn, addr address) {
	if old != nil {
		old.close(nil)
	}
	ctx, cancel := context.WithTimeoutCause(x.c.life, x.opt.silence()/2, ErrTimeout)
	defer cancel()
	var c *conn
	var err error
	for try := 0; ; try++ {
		c, err = x.identifyTo(ctx, node, addr)
		// It may not have noticed yet that a connection of ours is gone.
		if try == 20 || !codeIs(err, codeProtocolError) || ctx.Err() != nil {
			break
		}
		sleep(ctx, 50*time.Millisecond)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	st.c, st.err = c, err
	close(st.wait)
	st.wait = nil
}

func (x *session) identifyTo(ctx context.Context, node int32, addr address) (*conn, error) {
	c, err := x.place.connect(ctx, addr, x.opt)
	if err != nil {
		return nil, fmt.Errorf("storage S%d: %w", node, err)
	}
	c.start(func(m message) error {
		x.opt.Log.Warn("NEO storage sends a message that is not for a client: ignored", "message", fmt.Sprintf("%T", m))
		return nil
	})
	x.mu.Lock()
	us, stamp := x.node, x.stamp
	x.mu.Unlock()
	m, err := c.ask(ctx, &requestIdentification{kind: typeClient, node: us, cluster: x.cluster, stamp: stamp})
	if err == nil {
		if a := m.(*acceptIdentification); a.kind != typeStorage || a.node != node || a.yours != us {
			err = badAnswer("node %d of type %d takes us for node %d", a.node, a.kind, a.yours)
		}
	}
	if err != nil {
		c.close(err)
		return nil, fmt.Errorf("storage S%d at %s: %w", node, addr, err)
	}
	return c, nil
}

// avoided is for how long a storage that could not be asked comes last.
const avoided = 2 * time.Second

// cells returns the copies to read the partition of an id from, the best first.
func (x *session) cells(key uint64) []cell {
	x.mu.Lock()
	defer x.mu.Unlock()
	cells := x.cl.readable(int(key % uint64(len(x.cl.rows))))
	type rank struct {
		failed bool
		loads  int64
	}
	ranks := map[int32]rank{}
	for _, l := range cells {
		r := rank{failed: time.Since(x.failed[l.node]) < avoided}
		if st := x.stores[l.node]; st != nil && st.c != nil {
			r.loads = st.c.loads.Load()
		}
		ranks[l.node] = r
	}
	rand.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	slices.SortStableFunc(cells, func(a, b cell) int {
		ra, rb := ranks[a.node], ranks[b.node]
		if ra.failed != rb.failed {
			if ra.failed {
				return 1
			}
			return -1
		}
		return cmp.Compare(ra.loads, rb.loads)
	})
	return cells
}

// partitions returns how many there are.
func (x *session) partitions() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.cl.rows)
}

// asked is an answer, and which cell gave it.
type asked struct {
	msg  message
	cell cell
}

// ask asks one storage after the other that has the partition of an id, until one answers, and so that check
// finds it good. It goes on, as the cluster changes, until ctx is done or the session is over.
func (x *session) ask(ctx context.Context, key uint64, req message, check func(message) error) (asked, error) {
	r := &round{x: x, key: key, req: req, check: check, bad: map[int32]error{}, patience: x.opt.patience()}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 300*time.Millisecond) {
		x.mu.Lock()
		changed := x.changed
		x.mu.Unlock()
		a, err := r.run(ctx)
		if err != nil || a.msg != nil {
			return a, err
		}
		r.patience *= 2
		if r.stale { // once the master answers, we know all that it has changed
			if _, err := x.c.ask(ctx, &ping{}); err != nil {
				return asked{}, r.outOf(err)
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-changed:
		case <-t.C:
		case <-x.c.done:
			err = &lostError{x.c.cause()}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		t.Stop()
		if err != nil {
			return asked{}, r.outOf(err)
		}
	}
}

// round is one question to a partition.
type round struct {
	x     *session
	key   uint64
	req   message
	check func(message) error
	bad   map[int32]error // by node: its answer is not good
	last  error           // why a storage could not be asked

	patience time.Duration // how long a storage may take before the next one is asked
	stale    bool          // a storage said that it has not the partition, or is behind
}

// run asks each cell once. Without an answer and without an error there is to be another try.
func (r *round) run(ctx context.Context) (asked, error) {
	r.stale = false
	cells := r.x.cells(r.key)
	var bad error
	bads := 0
	for i, l := range cells {
		if r.bad[l.node] == nil {
			m, err := r.one(ctx, l.node, i+1 < len(cells))
			if err == nil {
				return asked{m, l}, nil
			}
			if err := r.classify(ctx, l.node, err); err != nil {
				return asked{}, err
			}
		}
		if err := r.bad[l.node]; err != nil {
			bad = err
			bads++
		}
	}
	if bads > 0 && bads == len(cells) {
		return asked{}, bad
	}
	if len(cells) == 0 && r.last == nil {
		r.last = errors.New("no storage that runs has this partition")
	}
	return asked{}, nil
}

// one asks one storage. If there are others, it is left when it takes long, which it does if it hangs.
func (r *round) one(ctx context.Context, node int32, others bool) (message, error) {
	if others {
		short, cancel := context.WithTimeoutCause(ctx, r.patience, errSlow)
		defer cancel()
		ctx = short
	}
	c, err := r.x.storage(ctx, node)
	if err != nil {
		return nil, err
	}
	m, err := c.ask(ctx, r.req)
	if err == nil && r.check != nil {
		err = r.check(m)
	}
	return m, err
}

var errSlow = errors.New("the storage takes long to answer")

// classify returns an error that ends the question; else another cell is asked.
func (r *round) classify(ctx context.Context, node int32, err error) error {
	var bad *badAnswerError
	var srv *serverError
	switch {
	case ctx.Err() != nil:
		return r.outOf(context.Cause(ctx))
	case errors.As(err, &bad):
		r.x.opt.Log.Warn("NEO storage gives a bad answer, asking another one", "storage", fmt.Sprintf("S%d", node), "cause", err)
		r.bad[node] = err
		return nil
	case codeIs(err, codeNonReadableCell), errors.Is(err, errStale):
		r.stale = true
	case errors.As(err, &srv) && !codeIs(err, codeNotReady, codeProtocolError):
		return err
	default:
		r.x.mu.Lock()
		r.x.failed[node] = time.Now()
		r.x.mu.Unlock()
	}
	r.last = err
	return nil
}

// outOf adds to the reason for giving up why storages could not be asked.
func (r *round) outOf(err error) error {
	if r.last != nil && !isLost(err) {
		return fmt.Errorf("%w: %w", err, r.last)
	}
	return err
}
