package zeo

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// gap finds out about the commits in (from, to], which were made while nobody told us of them.
//
// The server names the objects changed since a tid, all together: which commit changed which is
// found by listing the transactions and asking for the objects' histories, neither of which moves
// any data. Where that fails (no iteration, a pack meanwhile) or the server does not remember so far
// back, the answer is one Commit that is a gap.
//
// The findings stay true on another connection, so a gap is kept when a connection is lost: however
// short-lived, each connection brings the gap nearer to its end.
type gap struct {
	from, to zodb.Tid
	phantom  bool // found out: to is no transaction, and there is none in the gap

	asked bool         // oids is known, and to is what the server answered for
	oids  []zodb.Oid   // changed in (from, to]
	spans []span       // make up (from, to], in order; listed all at once
	tids  []zodb.Tid   // transactions in (from, to], ascending; nil while spans are not all done
	hists [][]revision // by index in oids; nil where not known yet
}

// span is a part (from, to] of a gap.
type span struct {
	from, to zodb.Tid
	tids     []zodb.Tid // transactions, ascending, as far as they are listed
	done     bool       // all of them are
}

// maxSpans is how many lists of transactions are read at once: each takes a question for each
// transaction, one after the other.
const maxSpans = 16

// commits returns what was committed. After a *lostError it is called again with another connection.
func (g *gap) commits(ctx context.Context, c *conn) ([]zodb.Commit, error) {
	commits, err := g.find(ctx, c)
	if isServerError(err) || errors.Is(err, errUnknown) || err != nil && zodb.KindOf(err) == zodb.KindAnswer {
		// A gap from 0 would say that it is none; no commit has tid 1.
		return []zodb.Commit{{Tid: g.to, Gap: max(g.from, 1)}}, nil
	}
	return commits, err
}

// errUnknown is that the server does not tell what is needed to do without a gap.
var errUnknown = errors.New("unknown changes")

func (g *gap) find(ctx context.Context, c *conn) ([]zodb.Commit, error) {
	if !g.asked {
		last, oids, err := changedSince(ctx, c, g.from)
		if err != nil {
			return nil, err
		}
		if last < g.to {
			// Too long ago, or the server took a phantom for its last transaction.
			there, err := anyIn(ctx, c, max(last, g.from)+1, g.to)
			if err == nil && there {
				err = errUnknown
			}
			if err != nil {
				return nil, err
			}
			if last <= g.from {
				g.phantom = true
				return nil, nil
			}
		}
		// Commits made since are answered for as well: go up to the last of them, so that each object
		// has a revision in the gap. Follow drops what is told of once more.
		g.asked, g.oids, g.to = true, oids, last
		g.hists = make([][]revision, len(oids))
		g.spans = split(g.from, g.to)
	}
	if g.tids == nil {
		if err := g.list(ctx, c); err != nil {
			return nil, err
		}
	}
	commits, err := g.attribute(ctx, c)
	if err != nil {
		return nil, err
	}
	return commits, fill(ctx, c, commits)
}

// split divides (from, to] evenly.
func split(from, to zodb.Tid) []span {
	n := min(maxSpans, to-from)
	spans := make([]span, n)
	for i := range spans {
		next := from + (to-from)/zodb.Tid(len(spans)-i)
		spans[i] = span{from: from, to: next}
		from = next
	}
	return spans
}

// list finds the transactions.
func (g *gap) list(ctx context.Context, c *conn) error {
	grp, ctx := errgroup.WithContext(ctx)
	for i := range g.spans {
		s := &g.spans[i]
		if s.done {
			continue
		}
		grp.Go(func() error {
			after := s.from
			if n := len(s.tids); n > 0 {
				after = s.tids[n-1]
			}
			tids, err := transactions(ctx, c, after+1, s.to)
			s.tids = append(s.tids, tids...)
			s.done = err == nil
			return err
		})
	}
	if err := grp.Wait(); err != nil {
		return err
	}
	for i := range g.spans {
		g.tids = append(g.tids, g.spans[i].tids...)
	}
	if len(g.tids) == 0 {
		return errUnknown
	}
	return nil
}

// changedSince asks which objects changed after tid, and up to which transaction the server answers
// that: 0 if tid is too long ago.
func changedSince(ctx context.Context, c *conn, tid zodb.Tid) (last zodb.Tid, oids []zodb.Oid, err error) {
	v, err := c.call(ctx, "getInvalidations", idBytes(tid))
	if err != nil || v == nil {
		return 0, nil, err
	}
	t, _ := v.([]any)
	if len(t) != 2 {
		return 0, nil, badReply("getInvalidations", v)
	}
	last, ok := asTid(t[0])
	if !ok {
		return 0, nil, badReply("getInvalidations", t[0])
	}
	if oids, ok = asOids(t[1]); !ok {
		return 0, nil, badReply("getInvalidations", t[1])
	}
	return last, oids, nil
}

// transactions lists those in [from, to].
func transactions(ctx context.Context, c *conn, from, to zodb.Tid) ([]zodb.Tid, error) {
	if from > to {
		return nil, nil
	}
	it, err := c.call(ctx, "iterator_start", idBytes(from), idBytes(to))
	if err != nil {
		return nil, err
	}
	var tids []zodb.Tid
	for {
		v, err := c.call(ctx, "iterator_next", it)
		if err != nil || v == nil { // after its end the server forgets the iterator
			return tids, err
		}
		t, _ := v.([]any)
		if len(t) == 0 {
			return nil, badReply("iterator_next", v)
		}
		tid, ok := asTid(t[0])
		if !ok || tid < from || tid > to || len(tids) > 0 && tid <= tids[len(tids)-1] {
			return nil, badReply("iterator_next", t[0])
		}
		tids = append(tids, tid)
	}
}

// attribute finds out which of the transactions changed which objects.
func (g *gap) attribute(ctx context.Context, c *conn) ([]zodb.Commit, error) {
	commits := make([]zodb.Commit, len(g.tids))
	for i, tid := range g.tids {
		commits[i].Tid = tid
	}
	if len(g.tids) == 1 {
		commits[0].Oids = g.oids
		return commits, nil
	}
	if err := g.histories(ctx, c); err != nil {
		return nil, err
	}
	for i, hist := range g.hists {
		found := false
		for _, r := range hist {
			if at, ok := slices.BinarySearch(g.tids, r.tid); ok {
				commits[at].Oids = append(commits[at].Oids, g.oids[i])
				found = true
			}
		}
		if !found { // packed away meanwhile
			return nil, errUnknown
		}
	}
	return commits, nil
}

// histories asks for the revisions of each object; it has at most one for each transaction.
func (g *gap) histories(ctx context.Context, c *conn) error {
	grp, ctx := errgroup.WithContext(ctx)
	grp.SetLimit(c.opt.Window)
	for i, oid := range g.oids {
		if g.hists[i] != nil {
			continue
		}
		grp.Go(func() error {
			// Commits made after the gap are told of first: ask for more until the gap is crossed.
			for size := len(g.tids) + 1; ; size *= 2 {
				v, err := c.call(ctx, "history", idBytes(oid), size)
				if err != nil {
					return err
				}
				hist, err := asHistory(v, size)
				if err != nil {
					return err
				}
				if len(hist) < size || hist[len(hist)-1].tid <= g.from {
					g.hists[i] = hist
					return nil
				}
			}
		})
	}
	return grp.Wait()
}

// fill completes commits that name no object. ZEO servers do not name objects that a client deletes
// or restores (as zc.zodbdgc and zodbcopy do), so that one of only these seems empty.
func fill(ctx context.Context, c *conn, commits []zodb.Commit) error {
	for i := range commits {
		if cm := &commits[i]; len(cm.Oids) == 0 && cm.Gap == 0 {
			oids, err := recordsOf(ctx, c, cm.Tid)
			if err != nil {
				return err
			}
			cm.Oids = oids
		}
	}
	return nil
}

// recordsOf reads which objects one transaction has records of. Their data comes along.
func recordsOf(ctx context.Context, c *conn, tid zodb.Tid) ([]zodb.Oid, error) {
	it, err := c.call(ctx, "iterator_start", idBytes(tid), idBytes(tid))
	if err != nil {
		return nil, err
	}
	t, err := c.call(ctx, "iterator_next", it)
	if err != nil || t == nil {
		return nil, err
	}
	records, err := c.call(ctx, "iterator_record_start", it, idBytes(tid))
	if err != nil {
		return nil, err
	}
	var list []any
	for {
		v, err := c.call(ctx, "iterator_record_next", records)
		if err != nil {
			return nil, err
		}
		if v == nil {
			break
		}
		r, _ := v.([]any)
		if len(r) == 0 || len(list) >= maxValues {
			return nil, badReply("iterator_record_next", v)
		}
		list = append(list, r[0])
	}
	if _, err := c.call(ctx, "iterator_next", it); err != nil { // to its end
		return nil, err
	}
	oids, ok := asOids(list)
	if !ok {
		return nil, badReply("iterator_record_next", list)
	}
	return oids, nil
}
