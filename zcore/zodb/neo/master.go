package neo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// session is what there is from one identification at the primary master to the end of that connection: our
// node id, what the master tells of the cluster, connections to storages, the commits it tells of.
type session struct {
	c       *conn // to the master
	cluster []byte
	place   *place
	opt     Options

	ready chan struct{} // closed when the nodes and the partition table are known
	wake  chan struct{} // gets a token when there is something new in queue, or missing is set

	mu      sync.Mutex
	node    int32            // guarded by mu; our node id
	stamp   stamp            // guarded by mu; of our identification
	cl      cluster          // guarded by mu
	changed chan struct{}    // guarded by mu; closed and replaced when cl changes
	stores  map[int32]*store // guarded by mu; by node id
	failed  map[int32]moment // guarded by mu; when a storage could not be asked

	// The commits that the master told of, guarded by mu.
	started bool     // the first answer about the last transaction has come
	base    zodb.Tid // that answer
	from    zodb.Tid // what is told of comes after it: base, or less
	head    zodb.Tid // last transaction told of
	told    zodb.Tid // last one that was announced, 0 for none
	backing bool     // the cluster backs up another one: commits are not announced
	queue   []zodb.Commit
	queued  int        // objects in queue, and one a commit
	missing bool       // there are commits after those in queue
	recent  []zodb.Tid // announced while missing, the last of them
}

// moment is a point in time; a name of its own keeps it from being taken for a wire time.
type moment = time.Time

var errStopped = errors.New("the cluster is not operational: it has lost the last copy of a partition, or is being stopped")

// notPrimary is that a master is not the primary one.
type notPrimary struct {
	primary address // zero if not known
	masters []address
}

func (e *notPrimary) Error() string {
	if e.primary == (address{}) {
		return "it is not the primary master, and knows of none"
	}
	return "it is not the primary master, " + e.primary.String() + " is"
}

// newSession begins a session on a connection. Nobody else uses it before.
func newSession(c *conn, p *place, opt Options) *session {
	x := &session{
		c: c, cluster: []byte(p.cluster), place: p, opt: opt,
		ready: make(chan struct{}), wake: make(chan struct{}, 1), changed: make(chan struct{}),
		stamp: noStamp, stores: map[int32]*store{}, failed: map[int32]moment{},
		cl: cluster{nodes: map[int32]nodeInfo{}},
	}
	c.start(x.notify)
	return x
}

// identify says who we are, and learns what the cluster is. node is the id of before, 0 for none.
func (x *session) identify(ctx context.Context, node int32) error {
	_, err := x.c.askHook(ctx, &requestIdentification{
		kind: typeClient, node: node, cluster: x.cluster, stamp: noStamp, readOnly: true,
	}, x.accepted)
	switch {
	case codeIs(err, codeNotReady):
		return fmt.Errorf("the cluster is not operational yet: %w", err)
	case codeIs(err, codeProtocolError):
		return &refusal{fmt.Errorf("the master does not let us in: %w (is the cluster called %q?)", err, x.cluster)}
	case err != nil:
		return err
	}
	select {
	case <-x.ready:
	case <-x.c.done:
		return &lostError{x.c.cause()}
	case <-ctx.Done():
		return fmt.Errorf("the master does not tell what the cluster is: %w", context.Cause(ctx))
	}
	last, err := x.last(ctx)
	if err != nil {
		return err
	}
	return x.fetched(ctx, last)
}

// accepted is called by the reader.
func (x *session) accepted(m message) {
	a := m.(*acceptIdentification)
	switch {
	case a.kind != typeMaster:
		x.c.die(&refusal{fmt.Errorf("it is a node of type %d, not a master", a.kind)})
	case a.yours == 0:
		x.c.die(errors.New("the master gives us no node id"))
	}
	x.mu.Lock()
	x.node = a.yours
	x.mu.Unlock()
}

// last asks for the last transaction.
func (x *session) last(ctx context.Context) (zodb.Tid, error) {
	m, err := x.c.askHook(ctx, &askLastTransaction{}, x.lastIs)
	if err != nil {
		return 0, err
	}
	return m.(*answerLastTransaction).tid, nil
}

// lastIs is called by the reader. What is answered beyond what was announced is not going to be: so it is in a
// cluster that backs up another one. See backup.go for what becomes of it.
func (x *session) lastIs(m message) {
	last := m.(*answerLastTransaction).tid
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.started {
		// What was announced since the identification is queued: a storage may not have it in its lists yet.
		x.started, x.base, x.from = true, last, last
		if len(x.queue) > 0 {
			x.from = x.queue[0].Tid - 1
		}
		x.head = max(x.head, last)
		return
	}
	if last > x.head {
		x.backing = true
	}
}

// token wakes the follower. mu must be held.
func (x *session) token() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// notify handles what the master sends by itself. It is called by the reader.
func (x *session) notify(m message) error {
	switch m := m.(type) {
	case *nodeInformation:
		x.nodes(m)
	case *partitionTable:
		return x.table(func() error { return x.cl.setTable(m) })
	case *partitionChanges:
		return x.table(func() error { return x.cl.change(m) })
	case *invalidateObjects:
		return x.commit(m)
	case *clusterInformation:
		x.mu.Lock()
		x.backing = m.state == clusterBackingUp
		x.mu.Unlock()
	case *stopOperation:
		return errStopped
	case *notPrimaryMaster:
		return asNotPrimary(m)
	default:
		x.opt.Log.Warn("NEO master sends a message that is not for a client: ignored", "message", fmt.Sprintf("%T", m))
	}
	return nil
}

func asNotPrimary(m *notPrimaryMaster) error {
	e := &notPrimary{masters: m.masters[:min(len(m.masters), maxMasters)]}
	if i := int(m.primary); i >= 0 && i < len(e.masters) {
		e.primary = e.masters[i]
	}
	return e
}

// nodes takes note of nodes. The first message has us in it, with the stamp that storages ask for.
func (x *session) nodes(m *nodeInformation) {
	var dead []*conn
	x.mu.Lock()
	for _, n := range m.nodes {
		if x.stamp == noStamp && n.kind == typeClient && n.node == x.node {
			x.stamp = n.stamp
		}
	}
	for _, node := range x.cl.setNodes(m.nodes) {
		if st := x.stores[node]; st != nil && st.c != nil {
			dead = append(dead, st.c)
		}
	}
	x.announce()
	x.mu.Unlock()
	for _, c := range dead {
		c.die(errors.New("the master says that the storage is gone"))
	}
}

func (x *session) table(change func() error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	err := change()
	x.announce()
	return err
}

// announce wakes those who wait for the cluster to change. mu must be held.
func (x *session) announce() {
	close(x.changed)
	x.changed = make(chan struct{})
	select {
	case <-x.ready:
	default:
		if x.stamp != noStamp && x.cl.rows != nil {
			close(x.ready)
		}
	}
}

// commit queues a commit that the master tells of.
func (x *session) commit(m *invalidateObjects) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m.tid <= x.head {
		return fmt.Errorf("the master tells of commit %s after %s", m.tid, x.head)
	}
	x.head, x.told, x.backing = m.tid, m.tid, false
	if x.missing || x.queued+len(m.oids) >= x.opt.MaxQueue {
		x.missing = true
		x.recent = append(x.recent, m.tid)
		if n := len(x.recent); n >= 2*maxRecent {
			x.recent = append([]zodb.Tid(nil), x.recent[n-maxRecent:]...)
		}
	} else {
		slices.Sort(m.oids)
		x.queue = append(x.queue, zodb.Commit{Tid: m.tid, Oids: slices.Compact(m.oids)})
		x.queued += len(m.oids) + 1
	}
	x.token()
	return nil
}

// maxRecent is how many of the commits that were announced and not queued a list of transactions must have.
const maxRecent = 1 << 10

// news is what take returns.
type news struct {
	commits []zodb.Commit
	missing zodb.Tid   // if not 0: there are commits up to it that are not in commits
	recent  []zodb.Tid // some of them
}

// take empties the queue.
func (x *session) take() (n news) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n = news{commits: x.queue, recent: x.recent}
	if x.missing {
		n.missing = x.head
	}
	x.queue, x.queued, x.missing, x.recent = nil, 0, false, nil
	return n
}

// close ends the session, and its connections to storages.
func (x *session) close(err error) {
	x.c.close(err)
	x.mu.Lock()
	var all []*store
	for _, st := range x.stores {
		all = append(all, st)
	}
	x.mu.Unlock()
	for _, st := range all {
		x.mu.Lock()
		wait := st.wait
		x.mu.Unlock()
		if wait != nil {
			<-wait
		}
		if st.c != nil {
			st.c.close(ErrClosed)
		}
	}
}
