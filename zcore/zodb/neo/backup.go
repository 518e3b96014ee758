package neo

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// A cluster that backs up another one announces no commits: the master has to be asked for the last one, again and
// again. It answers up to where all partitions are fetched, which need not be a transaction. Storages answer
// as of where they know themselves to be: a moment later than the master, who tells them of partitions that
// had no change. So a tid is taken for the head once the storages have it.

// poll asks for the last transaction, again and again: often while commits are not announced, else to find out
// that they are not.
func (x *session) poll() {
	for {
		x.mu.Lock()
		pause := probe
		if x.backing {
			pause = x.opt.Poll
		}
		x.mu.Unlock()
		select {
		case <-x.c.done:
			return
		case <-time.After(pause):
		}
		if _, err := x.current(x.c.life); err != nil && !isLost(err) && x.c.life.Err() == nil {
			x.opt.Log.Warn("NEO master does not tell the last transaction", "cause", err)
		}
	}
}

// probe is how often a master that announces commits is asked for the last one all the same.
const probe = 200 * time.Millisecond

// current returns the last transaction, once it can be read.
func (x *session) current(ctx context.Context) (zodb.Tid, error) {
	last, err := x.last(ctx)
	if err != nil {
		return 0, err
	}
	x.mu.Lock()
	ahead := last > x.head
	x.mu.Unlock()
	if !ahead {
		return last, nil
	}
	if err := x.fetched(ctx, last); err != nil {
		return 0, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if last > x.head {
		x.head, x.missing = last, true
		x.token()
	}
	return last, nil
}

// reachable is how long a storage may take to answer whether it has a tid. One that hangs is not waited for.
const reachable = time.Second

// fetched waits until no storage says that it does not have all up to tid.
func (x *session) fetched(ctx context.Context, tid zodb.Tid) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, node := range x.readers() {
		g.Go(func() error {
			for pause := time.Millisecond; x.behind(ctx, node, tid); pause = min(2*pause, 50*time.Millisecond) {
				sleep(ctx, pause)
			}
			return context.Cause(ctx) // what else is wrong is found out by who reads from there
		})
	}
	return g.Wait()
}

// behind tells whether a storage says that it does not have all up to tid.
func (x *session) behind(ctx context.Context, node int32, tid zodb.Tid) bool {
	ctx, cancel := context.WithTimeout(ctx, reachable)
	defer cancel()
	c, err := x.storage(ctx, node)
	if err == nil {
		_, err = c.ask(ctx, &askTransaction{tid})
	}
	return isBehind(err)
}

// isBehind tells whether a storage answers that it has not fetched a transaction yet, rather than that there is none.
func isBehind(err error) bool {
	var e *serverError
	return codeIs(err, codeTIDNotFound) && errors.As(err, &e) && strings.Contains(e.text, "fetched")
}

// readers returns the storages that have readable copies.
func (x *session) readers() []int32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := map[int32]struct{}{}
	for p := range x.cl.rows {
		for _, l := range x.cl.readable(p) {
			seen[l.node] = struct{}{}
		}
	}
	nodes := make([]int32, 0, len(seen))
	for node := range seen {
		nodes = append(nodes, node)
	}
	return nodes
}
