// Package bench measures the NEO driver on real clusters: against what their storages can give at all, against
// ZEO of the same data, and how soon commits are seen and a master that was lost is found again.
package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/t/bench/kit"
	neotest "wcfs/t/neo"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/neo"
	"wcfs/zcore/zodb/zeo"
)

const (
	nblocks  = 32
	blksize  = 2 << 20
	readers  = 8 // loads at once, as read-ahead over FUSE makes them
	commits  = 30
	restarts = 5
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// Rows measures. It takes about a minute.
func Rows(ctx context.Context, kb *kit.Bench) (rows []kit.Row, err error) {
	for env, python := range map[string]string{"py5": kit.Python, "neo": ".deps/neo/bin/python"} {
		if err := kit.Need(python, env); err != nil {
			return nil, err
		}
	}
	err = zeotest.Outside(func(b zeotest.TB) error {
		d := newData()
		other, closeZEO, err := d.zeo(ctx, b)
		if err != nil {
			return err
		}
		defer closeZEO()
		for n := 1; n <= 3; n++ {
			r, err := d.coldRead(ctx, kb, b, n, other)
			if err != nil {
				return err
			}
			rows = append(rows, r...)
		}
		for _, measure := range []func(context.Context, *kit.Bench, zeotest.TB) (kit.Row, error){shown, reconnect} {
			r, err := measure(ctx, kb, b)
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
		return nil
	})
	return rows, err
}

// data is what is read: blocks that do not compress.
type data struct {
	oids []zodb.Oid
	recs map[zodb.Oid][]byte
}

func newData() *data {
	d := &data{recs: map[zodb.Oid][]byte{}}
	rnd := rand.NewChaCha8([32]byte{1})
	for oid := zodb.Oid(1); oid <= nblocks; oid++ {
		block := make([]byte, blksize)
		rnd.Read(block)
		d.oids, d.recs[oid] = append(d.oids, oid), zeotest.Record(block)
	}
	return d
}

// zeo serves the same data with ZEO and returns how long a load of all of it takes.
func (d *data) zeo(ctx context.Context, b zeotest.TB) (load func() (time.Duration, error), closeAll func(), err error) {
	path := filepath.Join(b.TempDir(), "same.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		return nil, nil, err
	}
	tid := zodb.TidFromTime(time.Now())
	if err := w.Commit(tid, d.recs); err != nil {
		return nil, nil, err
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	srv := zeotest.Start(b, zeotest.Config{Version: 5, Msgpack: true, Data: path})
	s, err := zeo.Open(ctx, srv.URL(), zeo.Options{Log: quiet})
	if err != nil {
		return nil, nil, err
	}
	return func() (time.Duration, error) { return d.loadAll(ctx, s, tid) }, func() { s.Close() }, nil
}

func (d *data) loadAll(ctx context.Context, s zodb.Storage, at zodb.Tid) (time.Duration, error) {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, oid := range d.oids {
		g.Go(func() error {
			_, err := s.LoadAt(ctx, oid, at)
			return err
		})
	}
	err := g.Wait()
	return time.Since(start), err
}

func open(ctx context.Context, c *neotest.Cluster) (*neo.Storage, error) {
	return neo.Open(ctx, c.URL(), neo.Options{Log: quiet})
}

// coldRead loads the blocks from n storages that share them.
func (d *data) coldRead(ctx context.Context, kb *kit.Bench, b zeotest.TB, n int, zeo func() (time.Duration, error)) ([]kit.Row, error) {
	c := neotest.Start(b, neotest.Config{Protocol: 6, Storages: n, Partitions: 12})
	w := c.Writer()
	var tid zodb.Tid
	for _, oid := range d.oids {
		tid = w.Commit(map[zodb.Oid][]byte{oid: d.recs[oid]})
	}
	s, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	ours := func() (time.Duration, error) { return d.loadAll(ctx, s, tid) }
	p, err := kb.Pair(ctx, ours, zeo)
	if err != nil {
		return nil, err
	}
	raw, err := newRaw(c)
	if err != nil {
		return nil, err
	}
	defer raw.close()
	limit, err := kb.Pair(ctx, ours, func() (time.Duration, error) { return raw.read(d.oids, tid) })
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("cold read over NEO, storages: %d", n)
	return []kit.Row{
		p.Speed(name, nblocks*blksize, 0, fmt.Sprintf("other: ours over ZEO 5, of the same data; %d blocks of 2 MiB, %d loads at once", nblocks, readers)),
		limit.Speed("the same", nblocks*blksize, 0, "other: a client that asks the same and throws the answers away, which is all that the storages can give"),
	}, nil
}

// shown measures from when a commit begins to be final until head/at of a mount shows it, and until its client knows.
func shown(ctx context.Context, kb *kit.Bench, b zeotest.TB) (kit.Row, error) {
	c := neotest.Start(b, neotest.Config{Protocol: 5, Storages: 2, Partitions: 12, Replicas: 1})
	w := c.Writer()
	w.CommitTimed(1, zeotest.Content(1, 0, 1000))
	m, err := kb.Mount(ctx, ".wcfs/zurl", kb.WCFS, "serve", c.URL(), "--mount")
	if err != nil {
		return kit.Row{}, err
	}
	defer m.Close()
	var p kit.Pair
	for i := range commits {
		x := w.CommitTimed(1, zeotest.Content(1, i, 1000))
		moved, err := until(ctx, filepath.Join(m.Dir, "head/at"), x.Tid)
		if err != nil {
			return kit.Row{}, err
		}
		p.Ours, p.Other = append(p.Ours, moved.Sub(x.Began)), append(p.Other, x.Ended.Sub(x.Began))
	}
	return p.Cost("commit to head/at, NEO", 0, fmt.Sprintf("other: until the client that commits has its answer; %d commits; "+
		"head/at is read after that", commits)), nil
}

// until waits until a file has a tid.
func until(ctx context.Context, path string, tid zodb.Tid) (time.Time, error) {
	for ctx.Err() == nil {
		text, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, err
		}
		if string(text) == tid.String() {
			return time.Now(), nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	return time.Time{}, context.Cause(ctx)
}

// reconnect measures from the loss of the only master, which is started again at once, until head is known again.
func reconnect(ctx context.Context, _ *kit.Bench, b zeotest.TB) (kit.Row, error) {
	c := neotest.Start(b, neotest.Config{Protocol: 5, Storages: 1, Partitions: 2})
	w := c.Writer()
	w.CommitTimed(1, zeotest.Content(1, 0, 1000))
	s, err := open(ctx, c)
	if err != nil {
		return kit.Row{}, err
	}
	defer s.Close()
	var p kit.Pair
	for range restarts {
		c.Masters[0].Kill()
		start := time.Now()
		c.Masters[0].Start()
		back := make(chan time.Time, 1)
		go func() {
			w.Head()
			back <- time.Now()
		}()
		if _, err := s.Head(ctx); err != nil {
			return kit.Row{}, err
		}
		p.Ours, p.Other = append(p.Ours, time.Since(start)), append(p.Other, (<-back).Sub(start))
	}
	return p.Cost("master killed and started to head known, NEO", 0, fmt.Sprintf(
		"other: a Python client that tries every 50 ms; %d times; the cluster takes most of it", restarts)), nil
}
