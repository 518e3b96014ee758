package zeo_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wcfs/t/wait"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/zeo"
)

// The tests of this file are the rows of the fault matrix in docs/storages.md.

var patience = wait.Patience

// followed collects what Follow reports.
type followed struct {
	t    testing.TB
	c    chan zodb.Commit
	done chan struct{} // closed when Follow has returned
	err  error         // valid after done
}

func follow(t testing.TB, s zodb.Storage, after zodb.Tid) *followed {
	ctx, cancel := context.WithCancel(context.Background())
	f := &followed{t: t, c: make(chan zodb.Commit, 1<<14), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.err = s.Follow(ctx, after, func(c zodb.Commit) error {
			slices.Sort(c.Oids)
			f.c <- c
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *followed) next() zodb.Commit {
	f.t.Helper()
	select {
	case c := <-f.c:
		return c
	case <-f.done:
		f.t.Fatalf("Follow returned: %v", f.err)
	case <-time.After(patience):
		f.t.Fatal("no commit is reported")
	}
	return zodb.Commit{}
}

// want reads exactly these commits.
func (f *followed) want(commits ...zodb.Commit) {
	f.t.Helper()
	for _, w := range commits {
		slices.Sort(w.Oids)
		if c := f.next(); c.Tid != w.Tid || c.Gap != w.Gap || !slices.Equal(c.Oids, w.Oids) {
			f.t.Fatalf("reported %v; want %v", c, w)
		}
	}
}

// ended waits for Follow to return.
func (f *followed) ended() error {
	f.t.Helper()
	select {
	case <-f.done:
		return f.err
	case <-time.After(patience):
		f.t.Fatal("Follow does not return")
	}
	return nil
}

func commit(tid zodb.Tid, oids ...zodb.Oid) zodb.Commit { return zodb.Commit{Tid: tid, Oids: oids} }

// burst is what a Burst of one object a commit is reported as.
func burst(tids []zodb.Tid, oids []zodb.Oid) []zodb.Commit {
	var list []zodb.Commit
	for i, tid := range tids {
		list = append(list, commit(tid, oids[i%len(oids)]))
	}
	return list
}

func head(t testing.TB, s zodb.Storage) zodb.Tid {
	t.Helper()
	h, err := s.Head(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mustLoad(t testing.TB, s zodb.Storage, oid zodb.Oid, at zodb.Tid, want []byte, serial zodb.Tid) {
	t.Helper()
	rec, err := s.LoadAt(context.Background(), oid, at)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Serial != serial || !bytes.Equal(rec.Data, want) {
		t.Fatalf("%s@%s: serial %s and %d bytes; want %s and %d bytes", oid, at, rec.Serial, len(rec.Data), serial, len(want))
	}
}

var oids = []zodb.Oid{1, 2, 3}

// A server that is killed and started again: reads wait for it, commits go on without a gap.
func TestKillRestart(t *testing.T) {
	t.Parallel()
	for _, cfg := range zeotest.Matrix()[1:3] {
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			srv := zeotest.Start(t, cfg)
			py := srv.Client()
			tids := py.Burst(3, oids, 100, 0)
			s := open(t, srv.URL(), options(t))
			f := follow(t, s, head(t, s))
			srv.Kill()
			read := make(chan error, 1)
			go func() {
				_, err := s.LoadAt(context.Background(), 1, tids[2])
				read <- err
			}()
			srv.Run()
			if err := <-read; err != nil {
				t.Errorf("a read that waits for the server: %v", err)
			}
			py2 := srv.Client()
			f.want(burst(py2.Burst(5, oids, 100, 10), oids)...)
		})
	}
}

// Whether there is a connection, since when, and why not, is told without a wait.
func TestConnectivity(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 6})
	before := time.Now()
	s := open(t, srv.URL(), options(t))
	wait := func(connected bool) zodb.Connectivity {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			c, ok := s.Connectivity()
			if ok && c.Connected == connected && (c.Err == nil) == connected {
				return c
			}
			if time.Now().After(end) {
				t.Fatalf("%+v, %v; want connected %v", c, ok, connected)
			}
		}
	}
	if c := wait(true); c.Since.Before(before) {
		t.Errorf("connected since %v, opened at %v", c.Since, before)
	}
	killed := time.Now()
	srv.Kill()
	lost := wait(false)
	time.Sleep(20 * time.Millisecond) // some attempts
	if c := wait(false); lost.Since.Before(killed) || !c.Since.Equal(lost.Since) {
		t.Errorf("away since %v, then since %v; killed at %v", lost.Since, c.Since, killed)
	}
	srv.Run()
	if c := wait(true); !c.Since.After(lost.Since) {
		t.Errorf("back since %v, lost at %v", c.Since, lost.Since)
	}
}

// A server that is killed in the middle of a commit tells the tid of that one as its last transaction when
// it is started again, and no longer when it is started once more.
func TestKillInCommit(t *testing.T) {
	t.Parallel()
	for _, cfg := range zeotest.Matrix()[2:] {
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			srv := zeotest.Start(t, cfg)
			py := srv.Client()
			tids := py.Burst(3, oids, 100, 0)
			s := open(t, srv.URL(), options(t))
			f := follow(t, s, tids[1])
			f.want(commit(tids[2], 3))
			py.Vote(zeotest.Object{Oid: 1, Data: zeotest.Content(1, 9, 100)})
			srv.Kill()
			py.Close()
			srv.Run()
			phantom := f.next()
			py = srv.Client()
			if phantom.Tid <= tids[2] || phantom.Gap != 0 || len(phantom.Oids) != 0 || phantom.Tid != py.Head() || head(t, s) != phantom.Tid {
				t.Fatalf("reported %v after %s; want nothing at Python's head, %s", phantom, tids[2], py.Head())
			}
			mustLoad(t, s, 1, phantom.Tid, zeotest.Content(1, 0, 100), tids[0])
			from := open(t, srv.URL(), options(t)) // one that begins there
			f2 := follow(t, from, head(t, from))
			srv.Kill()
			srv.Run()
			py2 := srv.Client()
			if py2.Head() != tids[2] {
				t.Errorf("Python is at %s; want %s", py2.Head(), tids[2])
			}
			want := burst(py2.Burst(3, oids, 100, 20), oids)
			f.want(want...)
			f2.want(want...)
		})
	}
}

// What was committed while the connection was away is reported commit by commit.
func TestGapClosed(t *testing.T) {
	t.Parallel()
	for i, cfg := range zeotest.Matrix() {
		if i%3 != 0 && os.Getenv("WCFS_SOAK") == "" {
			continue
		}
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			srv := zeotest.Start(t, cfg)
			py, proxy := srv.Client(), srv.Proxy()
			py.Burst(5, []zodb.Oid{1, 2, 3, 7, 8}, 100, 0)
			s := open(t, proxy.URL(), options(t))
			f := follow(t, s, head(t, s))
			proxy.Refuse(true)
			proxy.Cut()
			want := burst(py.Burst(20, oids, 100, 10), oids)
			want = append(want, commit(py.Undo(want[19].Tid), oids[19%3]))
			d := func(s string) []byte { return zeotest.Record([]byte(s)) }
			want = append(want, commit(py.Commit(zeotest.Object{Oid: 1, Data: d("a")}, zeotest.Object{Oid: 9, Data: d("b")}), 1, 9))
			want = append(want, commit(py.Commit(zeotest.Object{Oid: 2}), 2)) // deleted
			want = append(want, commit(py.Commit(zeotest.Object{Oid: 7}, zeotest.Object{Oid: 8}), 7, 8))
			proxy.Refuse(false)
			f.want(want...)
			f.want(burst(py.Burst(2, []zodb.Oid{9}, 100, 0), []zodb.Oid{9})...)
			if _, err := s.LoadAt(context.Background(), 2, head(t, s)); !errors.Is(err, zodb.ErrDeleted) {
				t.Errorf("load of a deleted object: %v", err)
			}
		})
	}
}

// A server that was restarted meanwhile answers for what it did before, and an empty database that is
// no longer empty is a gap too.
func TestGapOverRestart(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 6})
	proxy := srv.Proxy()
	s := open(t, proxy.URL(), options(t))
	f := follow(t, s, 0)
	outage := func(seed int) []zodb.Tid {
		proxy.Refuse(true)
		proxy.Cut()
		py := srv.Client()
		tids := py.Burst(5, oids, 100, seed)
		py.Close()
		srv.Kill()
		srv.Run()
		proxy.Refuse(false)
		return tids
	}
	f.want(zodb.Commit{Tid: outage(0)[4], Gap: 1})
	f.want(burst(outage(10), oids)...)
	f.want(burst(srv.Client().Burst(2, oids, 100, 0), oids)...)
}

// A gap that the server does not remember is reported as one.
func TestGapTooOld(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 5, Queue: 5})
	py, proxy := srv.Client(), srv.Proxy()
	before := py.Burst(3, oids, 100, 0)[2]
	s := open(t, proxy.URL(), options(t))
	f := follow(t, s, before)
	proxy.Refuse(true)
	proxy.Cut()
	tids := py.Burst(20, oids, 100, 10)
	proxy.Refuse(false)
	f.want(zodb.Commit{Tid: tids[19], Gap: before})
	f.want(burst(py.Burst(2, oids, 100, 0), oids)...)
}

// A follower that lags behind farther than commits are queued is given the rest all the same.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 6, Msgpack: true})
	py := srv.Client()
	before := py.Burst(1, oids, 100, 0)[0]
	opt := options(t)
	opt.MaxQueue = 8 // a commit of one object counts two
	s := open(t, srv.URL(), opt)
	tids := py.Burst(30, oids, 100, 1)
	for head(t, s) < tids[29] {
	}
	f := follow(t, s, before)
	f.want(burst(tids, oids)...)
	f.want(burst(py.Burst(2, oids, 100, 0), oids)...)
}

// A server that is stopped for longer than the timeout: reads fail in time, and all is well after.
func TestStopped(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 5})
	py := srv.Client()
	tids := py.Burst(3, oids, 100, 0)
	opt := options(t)
	opt.Timeout = time.Second
	s := open(t, srv.URL(), opt)
	f := follow(t, s, tids[2])
	srv.Signal(syscall.SIGSTOP)
	start := time.Now()
	_, err := s.LoadAt(context.Background(), 1, tids[2])
	if took := time.Since(start); !errors.Is(err, zeo.ErrTimeout) || zodb.IsAbsent(err) || took < opt.Timeout {
		t.Errorf("read from a stopped server: %v after %v; want ErrTimeout after %v", err, took, opt.Timeout)
	}
	if !strings.Contains(err.Error(), "0000000000000001@"+tids[2].String()) {
		t.Errorf("the error does not name the object: %v", err)
	}
	srv.Signal(syscall.SIGCONT)
	f.want(burst(py.Burst(3, oids, 100, 0), oids)...)
	zeotest.Eventually(t, "reads work again", func() bool {
		_, err := s.LoadAt(context.Background(), 1, tids[2])
		return err == nil
	})
}

// A connection that stays open and passes nothing is given up soon enough for a read to be repeated.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 6})
	py, proxy := srv.Client(), srv.Proxy()
	tids := py.Burst(3, oids, 100, 0)
	opt := options(t)
	opt.Timeout = 6 * time.Second
	s := open(t, proxy.URL(), opt)
	f := follow(t, s, tids[2])
	proxy.Freeze()
	want := burst(py.Burst(3, oids, 100, 7), oids)
	mustLoad(t, s, 1, tids[2], zeotest.Content(1, 0, 100), tids[0])
	f.want(want...)
}

// An idle half-open connection is found out as well, though nobody reads.
func TestHalfOpenIdle(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 5, Msgpack: true})
	py, proxy := srv.Client(), srv.Proxy()
	tids := py.Burst(3, oids, 100, 0)
	opt := options(t)
	opt.Timeout = 2 * time.Second
	s := open(t, proxy.URL(), opt)
	f := follow(t, s, tids[2])
	proxy.Freeze()
	f.want(burst(py.Burst(3, oids, 100, 7), oids)...)
}

// A database that is behind what was seen, or another one, is never read again.
func TestOtherDatabase(t *testing.T) {
	t.Parallel()
	for why, swap := range map[string]func(t *testing.T, srv *zeotest.Server){
		"its last transaction is": func(t *testing.T, srv *zeotest.Server) {
			srv.Run()
		},
		"is not there any more": func(t *testing.T, srv *zeotest.Server) {
			// Elsewhere, where nobody follows it, commits are made on top of the backup.
			other := zeotest.Start(t, zeotest.Config{Version: 5, Data: srv.Data})
			cl := other.Client()
			cl.Burst(5, oids, 100, 50)
			cl.Close()
			other.Kill()
			srv.Run()
		},
	} {
		t.Run(why, func(t *testing.T) {
			srv := zeotest.Start(t, zeotest.Config{Version: 5})
			py := srv.Client()
			tids := py.Burst(3, oids, 100, 0)
			backup, err := os.ReadFile(srv.Data)
			if err != nil {
				t.Fatal(err)
			}
			tids = append(tids, py.Burst(3, oids, 100, 10)...)
			s := open(t, srv.URL(), options(t))
			f := follow(t, s, tids[5])
			mustLoad(t, s, 1, tids[5], zeotest.Content(1, 10, 100), tids[3])
			py.Close()
			srv.Kill()
			os.Remove(srv.Data + ".index")
			if err := os.WriteFile(srv.Data, backup, 0o666); err != nil {
				t.Fatal(err)
			}
			swap(t, srv)
			if err := f.ended(); !errors.Is(err, zeo.ErrOtherDatabase) || !strings.Contains(err.Error(), why) {
				t.Errorf("Follow returned %v", err)
			}
			if _, err := s.LoadAt(context.Background(), 1, tids[0]); !errors.Is(err, zeo.ErrOtherDatabase) {
				t.Errorf("load: %v", err)
			}
			if _, err := s.Head(context.Background()); !errors.Is(err, zeo.ErrOtherDatabase) {
				t.Errorf("head: %v", err)
			}
		})
	}
}

// Objects as large as they come, several at once. Python takes long to store one, so that is not done
// through the server.
func TestHugeObject(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	want := zeotest.Content(1, 0, size)
	data := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(data)
	if err != nil {
		t.Fatal(err)
	}
	tid := zodb.TidFromTime(time.Now())
	if err := errors.Join(w.Commit(tid, map[zodb.Oid][]byte{1: want}), w.Close()); err != nil {
		t.Fatal(err)
	}
	opt := options(t)
	opt.Timeout = patience
	s := open(t, zeotest.Start(t, zeotest.Config{Version: 5, Msgpack: true, Data: data}).URL(), opt)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			rec, err := s.LoadAt(context.Background(), 1, tid)
			if err != nil || !bytes.Equal(rec.Data, want) {
				t.Errorf("%d bytes, %v", len(rec.Data), err)
			}
		})
	}
	wg.Wait()
}

// Loads equal those of the Python client, at every tid and between any two.
func TestEqualsPython(t *testing.T) {
	t.Parallel()
	for _, cfg := range zeotest.Matrix() {
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			srv := zeotest.Start(t, cfg)
			py := srv.Client()
			tids := py.Burst(12, oids, 200, 0)
			tids = append(tids, py.Undo(tids[11]))
			tids = append(tids, py.Undo(tids[12]), py.Undo(tids[10]), py.Commit(zeotest.Object{Oid: 2}))
			tids = append(tids, py.Burst(7, []zodb.Oid{2, 5}, 200, 50)...)
			// A loadBefore of Python is asked for the tid after; its cache must not matter.
			s := open(t, srv.URL(), options(t))
			var before []zodb.Tid
			for _, tid := range tids {
				before = append(before, tid, tid+1)
			}
			before = append(before, zodb.TidMax)
			all := []zodb.Oid{1, 2, 3, 4, 5}
			for i, want := range srv.Client().LoadsBefore(all, before) {
				oid, at := all[i/len(before)], before[i%len(before)]-1
				rec, err := s.LoadAt(context.Background(), oid, at)
				end := ""
				if rec.Until != zodb.TidMax {
					end = rec.Until.String()
				}
				switch {
				case want.Err == "None" && errors.Is(err, zodb.ErrNoData):
				case want.Err == "POSKeyError" && (errors.Is(err, zodb.ErrNoObject) || errors.Is(err, zodb.ErrDeleted)):
				case want.Err == "" && err == nil && rec.Serial.String() == want.Tid && end == want.End && bytes.Equal(rec.Data, want.Data):
				default:
					t.Errorf("%s@%s: serial %s until %s, %v; Python has %s until %s %s",
						oid, at, rec.Serial, end, err, want.Tid, want.End, want.Err)
				}
			}
		})
	}
}
