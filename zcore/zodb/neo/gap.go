package neo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// gap finds out about the commits in (from, to], which were made while nobody told us of them: the transactions are
// listed, each is asked for the objects it is about, and those for their histories, none of which moves any data.
//
// Findings are reported at once, so that after a lost session the gap is smaller.
type gap struct {
	f        *follower
	x        *session
	from, to zodb.Tid
	tids     []zodb.Tid // transactions, ascending

	mu    sync.Mutex
	hists map[zodb.Oid]*history // guarded by mu
}

// history is what is known of the revisions of an object in the gap.
type history struct {
	tids  []zodb.Tid // in (from, to], ascending
	older bool       // there is one before
}

// errUnknown is that what was committed cannot be found out.
var errUnknown = errors.New("unknown changes")

// list finds the transactions, all of recent among them.
func (g *gap) list(ctx context.Context, recent []zodb.Tid) error {
	for end := time.Now().Add(g.f.s.opt.Timeout); ; sleep(ctx, 5*time.Millisecond) {
		if err := g.listOnce(ctx); err != nil {
			return err
		}
		lacks := func(t zodb.Tid) bool {
			_, there := slices.BinarySearch(g.tids, t)
			return t > g.from && t <= g.to && !there
		}
		i := slices.IndexFunc(recent, lacks)
		if i < 0 {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: transaction %s was announced and is not listed", errUnknown, recent[i])
		}
	}
}

func (g *gap) listOnce(ctx context.Context) error {
	g.tids = nil
	np := g.x.partitions()
	length := max(g.f.s.opt.MaxGap/np, 16)
	var mu sync.Mutex
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(64)
	for p := range np {
		grp.Go(func() error {
			for from := g.from + 1; from <= g.to; {
				page, err := g.x.list(gctx, from, g.to, length, p)
				if err != nil {
					return err
				}
				mu.Lock()
				g.tids = append(g.tids, page...)
				n := len(g.tids)
				mu.Unlock()
				if n > g.f.s.opt.MaxGap {
					return fmt.Errorf("%w: more than %d transactions", errUnknown, g.f.s.opt.MaxGap)
				}
				if len(page) < length {
					return nil
				}
				from = page[len(page)-1] + 1
			}
			return nil
		})
	}
	err := grp.Wait()
	slices.Sort(g.tids)
	return err
}

// list asks for transactions of a partition in [from, to], at most length, ascending. A storage does not check whether
// it has the partition, all of it, when it answers; so whether it had is made sure of afterwards.
func (x *session) list(ctx context.Context, from, to zodb.Tid, length, partition int) ([]zodb.Tid, error) {
	req := &askTIDsFrom{from: from, to: to, length: uint32(length), partition: uint32(partition)}
	for {
		x.mu.Lock()
		id := x.cl.id
		x.mu.Unlock()
		a, err := x.ask(ctx, uint64(partition), req, func(m message) error {
			last := from - 1
			for _, t := range m.(*answerTIDsFrom).tids {
				if t <= last || t > to {
					return badAnswer("transaction %s after %s where up to %s was asked for", t, last, to)
				}
				last = t
			}
			if n := len(m.(*answerTIDsFrom).tids); n > length {
				return badAnswer("%d transactions where %d were asked for", n, length)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if _, err := x.c.ask(ctx, &ping{}); err != nil { // after it all that the master has changed is known
			return nil, err
		}
		if x.had(partition, a.cell.node, max(id, a.cell.since)) {
			return a.msg.(*answerTIDsFrom).tids, nil
		}
	}
}

// had tells whether a storage has had a partition since the partition table id.
func (x *session) had(partition int, node int32, id uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.cl.readable(partition), func(l cell) bool { return l.node == node && l.since <= id })
}

// report finds out what the transactions changed, and reports them, some at a time.
func (g *gap) report(ctx context.Context) error {
	for len(g.tids) > 0 {
		commits := make([]zodb.Commit, min(len(g.tids), together))
		grp, gctx := errgroup.WithContext(ctx)
		g.hists = map[zodb.Oid]*history{}
		for i := range commits {
			cm := &commits[i]
			cm.Tid = g.tids[i]
			grp.Go(func() (err error) {
				cm.Oids, err = g.changed(gctx, cm.Tid)
				return err
			})
		}
		if err := grp.Wait(); err != nil {
			return err
		}
		for _, cm := range commits {
			if err := g.f.report(cm); err != nil {
				return err
			}
			g.f.s.know(cm.Tid)
		}
		g.tids = g.tids[len(commits):]
	}
	return nil
}

// changed returns the objects of which a transaction made a revision.
func (g *gap) changed(ctx context.Context, tid zodb.Tid) ([]zodb.Oid, error) {
	all, err := g.f.objectsOf(ctx, tid)
	if codeIs(err, codeTIDNotFound) {
		return nil, fmt.Errorf("%w: transaction %s: %w", errUnknown, tid, err)
	}
	if err != nil {
		return nil, err
	}
	changed := make([]bool, len(all))
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(together)
	for i, oid := range all {
		grp.Go(func() (err error) {
			changed[i], err = g.wrote(gctx, oid, tid)
			return err
		})
	}
	if err := grp.Wait(); err != nil {
		return nil, err
	}
	var oids []zodb.Oid
	for i, oid := range all {
		if changed[i] {
			oids = append(oids, oid)
		}
	}
	return oids, nil
}

// wrote is follower.wrote, answered by the object's history where that is possible.
func (g *gap) wrote(ctx context.Context, oid zodb.Oid, tid zodb.Tid) (bool, error) {
	g.mu.Lock()
	h := g.hists[oid]
	g.mu.Unlock()
	if h == nil {
		var err error
		if h, err = g.history(ctx, oid); err != nil {
			return false, err
		}
		g.mu.Lock()
		g.hists[oid] = h
		g.mu.Unlock()
	}
	i, found := slices.BinarySearch(h.tids, tid)
	switch {
	case found:
		return true, nil
	case h.older || i > 0:
		return false, nil
	}
	return g.f.wrote(ctx, oid, tid) // histories begin at the last pack
}

// history asks for an object's revisions until the gap is crossed.
func (g *gap) history(ctx context.Context, oid zodb.Oid) (*history, error) {
	h := &history{}
	for first, n := uint64(0), uint64(8); ; first, n = first+n, min(2*n, 1<<12) {
		revs, err := g.f.s.history(ctx, oid, first, first+n)
		if err != nil {
			return nil, err
		}
		for _, r := range revs {
			if r.tid <= g.from {
				h.older = true
				break
			}
			if r.tid <= g.to {
				h.tids = append(h.tids, r.tid)
			}
		}
		if h.older || uint64(len(revs)) < n {
			slices.SortFunc(h.tids, cmp.Compare)
			return h, nil
		}
	}
}
