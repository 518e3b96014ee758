// Package bench measures the ZEO driver against the Python ZEO client, both on one real server.
package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/t/bench/kit"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/zeo"
)

// Rows measures. It takes about half a minute.
func Rows(ctx context.Context, kb *kit.Bench) (rows []kit.Row, err error) {
	if err := kit.Need(kit.Python, "py5"); err != nil {
		return nil, err
	}
	err = zeotest.Outside(func(b zeotest.TB) error {
		for _, msgpack := range []bool{false, true} {
			r, err := coldRead(ctx, kb, b, zeotest.Config{Version: 5, Msgpack: msgpack})
			if err != nil {
				return err
			}
			rows = append(rows, r...)
		}
		r, err := visible(ctx, b, zeotest.Config{Version: 5})
		if err != nil {
			return err
		}
		rows = append(rows, r)
		if r, err = shown(ctx, kb, b, zeotest.Config{Version: 5}); err == nil {
			rows = append(rows, r)
		}
		return err
	})
	return rows, err
}

const (
	nblocks = 64
	blksize = 2 << 20
	readers = 8 // loads at once, as read-ahead over FUSE makes them
	commits = 30
)

func open(ctx context.Context, srv *zeotest.Server) (*zeo.Storage, error) {
	return openURL(ctx, srv.URL())
}

func openURL(ctx context.Context, url string) (*zeo.Storage, error) {
	return zeo.Open(ctx, url, zeo.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// coldRead loads blocks of 2 MiB, none of which either client has cached; ours against Python's, and
// against one that does nothing with what it gets.
func coldRead(ctx context.Context, kb *kit.Bench, b zeotest.TB, cfg zeotest.Config) ([]kit.Row, error) {
	cfg.Data = filepath.Join(b.TempDir(), cfg.String()+".fs")
	w, err := fswriter.Create(cfg.Data)
	if err != nil {
		return nil, err
	}
	var oids []zodb.Oid
	tid := zodb.TidFromTime(time.Now())
	for i := range nblocks {
		oid := zodb.Oid(i + 1)
		oids = append(oids, oid)
		if err := w.Commit(tid+zodb.Tid(i), map[zodb.Oid][]byte{oid: zeotest.Content(uint64(oid), i, blksize)}); err != nil {
			return nil, err
		}
	}
	head := w.Last()
	if err := w.Close(); err != nil {
		return nil, err
	}
	srv := zeotest.Start(b, cfg)
	py := srv.Client()
	s, err := open(ctx, srv)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var total, busy time.Duration
	p, err := kb.Pair(ctx,
		func() (time.Duration, error) {
			cpu := srv.CPU()
			took, err := loadAll(ctx, s, oids, head)
			total, busy = total+took, busy+srv.CPU()-cpu
			return took, err
		},
		func() (time.Duration, error) {
			took, _ := py.BenchLoads(oids, head+1)
			return took, nil
		})
	if err != nil {
		return nil, err
	}
	sent, err := record(ctx, srv, oids, head)
	if err != nil {
		return nil, err
	}
	raw, err := kb.Pair(ctx,
		func() (time.Duration, error) { return loadAll(ctx, s, oids, head) },
		func() (time.Duration, error) { return replay(srv, sent, len(oids)) })
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("%d blocks of 2 MiB, %d loads at once against one after the other; the server, one thread of Python, "+
		"is at work for %.0f%% of our time", nblocks, readers, 100*busy.Seconds()/total.Seconds())
	return []kit.Row{
		p.Speed("cold read over ZEO, "+cfg.String(), nblocks*blksize, 3, note),
		raw.Speed("the same", nblocks*blksize, 0, "other: a client that asks the same and throws the answers away, "+
			"which is all that the server can give"),
	}, nil
}

func loadAll(ctx context.Context, s zodb.Storage, oids []zodb.Oid, at zodb.Tid) (time.Duration, error) {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, oid := range oids {
		g.Go(func() error {
			_, err := s.LoadAt(ctx, oid, at)
			return err
		})
	}
	err := g.Wait()
	return time.Since(start), err
}

// visible measures from the beginning of tpc_finish of one client until others are told: ours at
// Follow, a Python one at its invalidate, of the same commits. The server tells its clients in the
// order in which they came, so each is first in half of the commits.
func visible(ctx context.Context, b zeotest.TB, cfg zeotest.Config) (kit.Row, error) {
	srv := zeotest.Start(b, cfg)
	writer := srv.Client()
	after, _ := writer.CommitTimed(zeotest.Object{Oid: 1, Data: zeotest.Content(1, 0, 1000)})
	var p kit.Pair
	for half := range 2 {
		var py *zeotest.Client
		listen := func() { py = srv.Client(); py.Listen() }
		if half == 0 {
			listen()
		}
		s, err := open(ctx, srv)
		if err != nil {
			return kit.Row{}, err
		}
		if half == 1 {
			listen()
		}
		err = func() error {
			fctx, cancel := context.WithCancel(ctx)
			defer s.Close()
			defer cancel()
			told := make(chan time.Time, commits)
			var failed atomic.Pointer[error]
			go func() {
				err := s.Follow(fctx, after, func(zodb.Commit) error { told <- time.Now(); return nil })
				failed.Store(&err)
				close(told)
			}()
			for i := range commits {
				tid, at := writer.CommitTimed(zeotest.Object{Oid: 1, Data: zeotest.Content(1, i, 1000)})
				t, ok := <-told
				if !ok {
					return *failed.Load()
				}
				p.Ours, p.Other = append(p.Ours, t.Sub(at)), append(p.Other, py.Heard(tid).Sub(at))
				after = tid
			}
			return nil
		}()
		py.Close()
		if err != nil {
			return kit.Row{}, err
		}
	}
	return p.Cost("commit to being told of it, ZEO", 1, fmt.Sprintf("other: Python's ZEO client; %d commits", len(p.Ours))), nil
}
