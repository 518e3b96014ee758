// Package bench measures the ZEO driver against the Python ZEO client, both on one real server.
package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/zeo"
)

// Row is one comparison. Ratio is how many times faster ours is where Target is at least 1 and means
// "at least"; where Note says "time", it is our time over theirs and Target means "at most".
type Row struct {
	What, Ours, Other string
	Ratio, Target     float64
	Note              string
}

// tb runs zeotest outside of a test. Fatal panics with a fatal, which Rows returns.
type tb struct {
	dir      string
	cleanups []func()
}

type fatal string

func (*tb) Helper()                           {}
func (*tb) Failed() bool                      { return false }
func (*tb) Logf(string, ...any)               {}
func (*tb) Fatal(args ...any)                 { panic(fatal(fmt.Sprint(args...))) }
func (*tb) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }
func (b *tb) Cleanup(fn func())               { b.cleanups = append(b.cleanups, fn) }
func (b *tb) TempDir() string                 { return b.dir }
func (b *tb) done() {
	for _, fn := range slices.Backward(b.cleanups) {
		fn()
	}
	os.RemoveAll(b.dir)
}

// Rows measures. It takes about half a minute.
func Rows(ctx context.Context) (rows []Row, err error) {
	dir, err := os.MkdirTemp("", "zeobench")
	if err != nil {
		return nil, err
	}
	b := &tb{dir: dir}
	defer b.done()
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			rows, err = nil, fmt.Errorf("zeo bench: %s", string(f))
		}
	}()
	for _, msgpack := range []bool{false, true} {
		r, err := coldRead(ctx, b, zeotest.Config{Version: 5, Msgpack: msgpack})
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	r, err := visible(ctx, b, zeotest.Config{Version: 5})
	if err != nil {
		return nil, err
	}
	return append(rows, r), nil
}

const (
	pairs   = 5
	nblocks = 64
	blksize = 2 << 20
	readers = 8 // loads at once, as read-ahead over FUSE makes them
	commits = 30
)

func open(ctx context.Context, srv *zeotest.Server) (*zeo.Storage, error) {
	return zeo.Open(ctx, srv.URL(), zeo.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// coldRead loads blocks of 2 MiB, none of which either client has cached.
func coldRead(ctx context.Context, b *tb, cfg zeotest.Config) (Row, error) {
	row := Row{What: "cold read over ZEO, " + cfg.String(), Target: 3}
	cfg.Data = filepath.Join(b.dir, cfg.String()+".fs")
	w, err := fswriter.Create(cfg.Data)
	if err != nil {
		return row, err
	}
	var oids []zodb.Oid
	tid := zodb.TidFromTime(time.Now())
	for i := range nblocks {
		oid := zodb.Oid(i + 1)
		oids = append(oids, oid)
		if err := w.Commit(tid+zodb.Tid(i), map[zodb.Oid][]byte{oid: zeotest.Content(uint64(oid), i, blksize)}); err != nil {
			return row, err
		}
	}
	head := w.Last()
	if err := w.Close(); err != nil {
		return row, err
	}
	srv := zeotest.Start(b, cfg)
	py := srv.Client()
	s, err := open(ctx, srv)
	if err != nil {
		return row, err
	}
	defer s.Close()
	var ours, other []time.Duration
	var ratios []float64
	var total, busy time.Duration
	for i := range pairs + 1 {
		cpu := srv.CPU()
		mine, err := loadAll(ctx, s, oids, head)
		if err != nil {
			return row, err
		}
		total, busy = total+mine, busy+srv.CPU()-cpu
		theirs, _ := py.BenchLoads(oids, head+1)
		if i == 0 { // warms the server's page cache
			continue
		}
		ours, other = append(ours, mine), append(other, theirs)
		ratios = append(ratios, float64(theirs)/float64(mine))
	}
	row.Ours, row.Other, row.Ratio = rate(ours), rate(other), median(ratios)
	row.Note = fmt.Sprintf("%d blocks of 2 MiB, %d loads at once against one after the other; the server, one thread of Python, "+
		"is at work for %.0f%% of our time", nblocks, readers, 100*busy.Seconds()/total.Seconds())
	return row, nil
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
func visible(ctx context.Context, b *tb, cfg zeotest.Config) (Row, error) {
	row := Row{What: "commit -> told of it, ZEO", Target: 1}
	srv := zeotest.Start(b, cfg)
	writer := srv.Client()
	after, _ := writer.CommitTimed(zeotest.Object{Oid: 1, Data: zeotest.Content(1, 0, 1000)})
	var ours, other []time.Duration
	for half := range 2 {
		var py *zeotest.Client
		listen := func() { py = srv.Client(); py.Listen() }
		if half == 0 {
			listen()
		}
		s, err := open(ctx, srv)
		if err != nil {
			return row, err
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
				ours, other = append(ours, t.Sub(at)), append(other, py.Heard(tid).Sub(at))
				after = tid
			}
			return nil
		}()
		py.Close()
		if err != nil {
			return row, err
		}
	}
	o, p := median(ours), median(other)
	row.Ours, row.Other, row.Ratio = o.String(), p.String(), float64(o)/float64(p)
	row.Note = fmt.Sprintf("time, at most; median of %d commits", len(ours))
	return row, nil
}

func rate(d []time.Duration) string {
	return fmt.Sprintf("%.0f MiB/s", float64(nblocks*blksize>>20)/median(d).Seconds())
}

func median[T time.Duration | float64](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
