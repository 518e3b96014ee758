package neo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
)

// oidsPage is how many objects are asked for at once, over all partitions.
const oidsPage = 1 << 12

// Oids implements zodb.Lister. Protocol 5 has a question for that; protocol 6 has not, there the objects are those
// that any transaction is about.
func (s *Storage) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	head, err := s.Head(ctx)
	if err != nil || head == 0 {
		return err
	}
	x, err := s.session(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: list: %w", s.place.normal, err)
	}
	l := &lister{s: s, at: min(at, head), fn: fn}
	if x.c.gen == packed {
		known, err := x.knowsOIDs(ctx, l.at)
		if err != nil {
			return l.failed(err)
		}
		if known {
			return l.failed(l.byPartition(ctx, x.partitions()))
		}
	}
	return l.failed(l.byTransaction(ctx, x))
}

type lister struct {
	s     *Storage
	at    zodb.Tid
	fn    func(zodb.Oid) error
	fnErr error
}

func (l *lister) failed(err error) error {
	if err == nil || l.fnErr != nil {
		return l.fnErr
	}
	return fmt.Errorf("%s: list: %w", l.s.place.normal, kind(err))
}

func (l *lister) tell(oid zodb.Oid) error {
	l.fnErr = l.fn(oid)
	return l.fnErr
}

// knowsOIDs tells whether the storages know the question for objects. One that does not closes the connection.
func (x *session) knowsOIDs(ctx context.Context, at zodb.Tid) (bool, error) {
	for try := 0; ; try++ {
		var lost error
		for _, l := range x.cells(0) {
			c, err := x.storage(ctx, l.node)
			if err == nil {
				_, err = c.ask(ctx, &askOIDsFrom{length: 1, at: at})
			}
			if err == nil {
				return true, nil
			}
			if lost = err; codeIs(err, codeProtocolError) {
				return false, nil
			}
		}
		if ctx.Err() != nil || x.c.cause() != nil {
			return false, lost
		}
		if try == 2 {
			return false, nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// byPartition merges what the partitions have.
func (l *lister) byPartition(ctx context.Context, np int) error {
	parts := make([]*partitionList, np)
	length := uint32(max(oidsPage/np, 16))
	for {
		grp, gctx := errgroup.WithContext(ctx)
		grp.SetLimit(64)
		for p := range parts {
			if parts[p] == nil {
				parts[p] = &partitionList{}
			}
			grp.Go(func() error { return parts[p].fill(gctx, l, uint32(p), length) })
		}
		if err := grp.Wait(); err != nil {
			return err
		}
		// Up to the least of the ends of what is known, all is known.
		end := zodb.Oid(none)
		var oids []zodb.Oid
		for _, q := range parts {
			end = min(end, q.next)
		}
		for _, q := range parts {
			n, _ := slices.BinarySearch(q.oids, end)
			oids = append(oids, q.oids[:n]...)
			q.oids = q.oids[n:]
		}
		slices.Sort(oids)
		for _, oid := range oids {
			if err := l.tell(oid); err != nil {
				return err
			}
		}
		if end == none {
			return nil
		}
	}
}

// partitionList is what is known of the objects of a partition and not told yet.
type partitionList struct {
	begun bool
	next  zodb.Oid // where to go on, none at the end
	oids  []zodb.Oid
}

// fill asks for more, if nothing is left. The storage leaves out what is deleted after it has counted: an answer may be
// empty though there is more.
func (q *partitionList) fill(ctx context.Context, l *lister, p, length uint32) error {
	for len(q.oids) == 0 && (!q.begun || q.next != none) {
		from := q.next
		m, err := l.s.askOIDs(ctx, &askOIDsFrom{partition: p, length: length, from: from, at: l.at})
		if err != nil {
			return err
		}
		q.begun, q.next, q.oids = true, m.next, m.oids
	}
	return nil
}

// askOIDs asks for objects.
func (s *Storage) askOIDs(ctx context.Context, req *askOIDsFrom) (*answerOIDsFrom, error) {
	m, err := s.ask(ctx, uint64(req.partition), req, func(m message) error {
		a := m.(*answerOIDsFrom)
		last := req.from
		for i, oid := range a.oids {
			if oid < last || i > 0 && oid == last {
				return badAnswer("object %s after %s", oid, last)
			}
			last = oid
		}
		if a.next != none && (a.next <= req.from && req.from != 0 || a.next < last) {
			return badAnswer("to go on at %s after %s", a.next, last)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m.(*answerOIDsFrom), nil
}

// byTransaction asks each transaction for its objects, and each of those for whether it has data.
func (l *lister) byTransaction(ctx context.Context, x *session) error {
	f := &follower{s: l.s}
	g := &gap{f: f, x: x, to: l.at}
	seen := map[zodb.Oid]struct{}{}
	for p := range x.partitions() {
		for from := zodb.Tid(1); from <= l.at; {
			page, err := x.list(ctx, from, l.at, 1000, p)
			if err != nil {
				return err
			}
			if err := g.objects(ctx, page, seen); err != nil {
				return err
			}
			if len(page) < 1000 {
				break
			}
			from = page[len(page)-1] + 1
		}
	}
	oids := make([]zodb.Oid, 0, len(seen))
	for oid := range seen {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	for part := range slices.Chunk(oids, 256) {
		if err := l.withData(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// objects adds the objects that transactions are about.
func (g *gap) objects(ctx context.Context, tids []zodb.Tid, seen map[zodb.Oid]struct{}) error {
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(together)
	for _, tid := range tids {
		grp.Go(func() error {
			oids, err := g.f.objectsOf(gctx, tid)
			if err != nil {
				return err
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, oid := range oids {
				seen[oid] = struct{}{}
			}
			return nil
		})
	}
	return grp.Wait()
}

// withData tells those of oids that have data.
func (l *lister) withData(ctx context.Context, oids []zodb.Oid) error {
	there := make([]bool, len(oids))
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(together)
	for i, oid := range oids {
		grp.Go(func() error {
			_, _, err := l.s.SerialAt(gctx, oid, l.at)
			there[i] = !zodb.IsAbsent(err) // so is what is damaged
			if zodb.KindOf(err) == zodb.KindAnswer {
				return nil
			}
			return err
		})
	}
	if err := grp.Wait(); err != nil {
		return err
	}
	for i, oid := range oids {
		if there[i] {
			if err := l.tell(oid); err != nil {
				return err
			}
		}
	}
	return nil
}
