package zeo

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// missed returns the commits in (from, to], which were made while nobody told us of them.
//
// The server names the objects changed since a tid, all together: which commit changed which is
// found by listing the transactions and asking for the objects' histories, neither of which moves
// any data. Where that fails (no iteration, a pack meanwhile) or the server does not remember so far
// back, the answer is one Commit that is a gap.
func missed(ctx context.Context, c *conn, from, to zodb.Tid) ([]zodb.Commit, error) {
	if from >= to {
		return nil, nil
	}
	gap := []zodb.Commit{{Tid: to, Gap: max(from, 1)}} // 0 would say that it is none; no commit has tid 1
	last, oids, err := changedSince(ctx, c, from)
	if isServerError(err) || err == nil && last < to {
		return gap, nil
	}
	if err != nil {
		return nil, err
	}
	// Commits made since are answered for as well: go up to the last of them, so that each object has
	// a revision there. Follow drops what is told of once more.
	tids, err := transactions(ctx, c, from+1, last)
	if err == nil && len(tids) > 0 {
		var commits []zodb.Commit
		if commits, err = attribute(ctx, c, oids, tids, from); err == nil {
			return commits, nil
		}
	}
	if err == nil || isServerError(err) || errors.Is(err, errUnattributed) {
		return gap, nil
	}
	return nil, err
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

var errUnattributed = errors.New("a changed object has no revision in the gap")

// attribute finds out which of the transactions tids, all those after from, changed which of oids.
func attribute(ctx context.Context, c *conn, oids []zodb.Oid, tids []zodb.Tid, from zodb.Tid) ([]zodb.Commit, error) {
	commits := make([]zodb.Commit, len(tids))
	for i, tid := range tids {
		commits[i].Tid = tid
	}
	if len(tids) == 1 {
		commits[0].Oids = oids
	} else {
		hists, err := histories(ctx, c, oids, len(tids), from)
		if err != nil {
			return nil, err
		}
		for i, hist := range hists {
			found := false
			for _, r := range hist {
				if at, ok := slices.BinarySearch(tids, r.tid); ok {
					commits[at].Oids = append(commits[at].Oids, oids[i])
					found = true
				}
			}
			if !found {
				return nil, errUnattributed
			}
		}
	}
	return commits, fill(ctx, c, commits)
}

// histories asks for the revisions after from of each of oids; an object has at most n in the gap.
func histories(ctx context.Context, c *conn, oids []zodb.Oid, n int, from zodb.Tid) ([][]revision, error) {
	hists := make([][]revision, len(oids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.opt.Window)
	for i, oid := range oids {
		g.Go(func() error {
			// Commits made after the gap are told of first: ask for more until the gap is crossed.
			for size := n + 1; ; size *= 2 {
				v, err := c.call(ctx, "history", idBytes(oid), size)
				if err != nil {
					return err
				}
				hist, err := asHistory(v, size)
				if err != nil {
					return err
				}
				if len(hist) < size || hist[len(hist)-1].tid <= from {
					hists[i] = hist
					return nil
				}
			}
		})
	}
	return hists, g.Wait()
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
