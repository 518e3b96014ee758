package neo_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	neotest "wcfs/t/neo"
	"wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/neo"
	"wcfs/zcore/zodb/storagetest"
)

// The tests of this file are the rows of the fault matrix in docs/storages.md.

// replicated is a cluster that survives the loss of a storage.
func replicated() neotest.Config { return neotest.Config{Storages: 2, Partitions: 3, Replicas: 1} }

// behind are options for a master that is behind a proxy, which is not to be gone round.
func behind(t testing.TB) neo.Options {
	opt := options(t)
	opt.GivenOnly = true
	return opt
}

// fill commits three objects and returns what each holds, and the tid.
func fill(w *neotest.Writer) (map[zodb.Oid][]byte, zodb.Tid) {
	objs := map[zodb.Oid][]byte{1: data("one"), 2: data(strings.Repeat("two", 100)), 3: data("three")}
	return objs, w.Commit(objs)
}

func loadAll(t testing.TB, s zodb.Storage, objs map[zodb.Oid][]byte, tid zodb.Tid) {
	t.Helper()
	for oid, want := range objs {
		mustLoad(t, s, oid, tid, want, tid)
	}
}

// A storage is killed and comes back: its copies are read elsewhere, no commit is missed.
func TestStorageKilled(t *testing.T) {
	both(t, replicated(), func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		loadAll(t, s, objs, tid)
		cl.Storages[0].Kill()
		loadAll(t, s, objs, tid)
		t1 := w.Commit(map[zodb.Oid][]byte{1: data("while it is away")})
		f.want(commit(t1, 1))
		mustLoad(t, s, 1, t1, data("while it is away"), t1)
		cl.Storages[0].Start()
		cl.WaitReplicated()
		cl.Storages[1].Kill()
		mustLoad(t, s, 1, t1, data("while it is away"), t1)
		loadAll(t, s, objs, tid)
		t2 := w.Commit(map[zodb.Oid][]byte{2: data("once more")})
		f.want(commit(t2, 2))
	})
}

// The last copy of a partition is lost: the cluster stops, a read waits and succeeds when it is back.
func TestLastCopyLost(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 2}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		loadAll(t, s, objs, tid)
		cl.Storages[0].Kill()
		cl.Storages[1].Kill()
		read := make(chan error, 1)
		go func() {
			_, err := s.LoadAt(context.Background(), 1, tid)
			read <- err
		}()
		zeo.Eventually(t, "the loss is noticed", func() bool {
			c, _ := s.Connectivity()
			return !c.Connected && c.Err != nil
		})
		cl.Storages[0].Start()
		cl.Storages[1].Start()
		if err := <-read; err != nil {
			t.Errorf("a read that waits for the cluster: %v", err)
		}
		t1 := w.Commit(map[zodb.Oid][]byte{2: data("after")})
		f.want(commit(t1, 2))
		loadAll(t, s, map[zodb.Oid][]byte{1: objs[1], 3: objs[3]}, tid)
	})
}

// The primary master is killed: another one is elected, no read fails and no commit is missed.
func TestPrimaryKilled(t *testing.T) {
	cfg := replicated()
	cfg.Masters = 2
	both(t, cfg, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		stop := reading(t, s, objs, tid)
		for range 2 {
			m := cl.Primary()
			m.Kill()
			t1 := w.Commit(map[zodb.Oid][]byte{9: data("x"), 10: data("y")})
			f.want(commit(t1, 9, 10))
			m.Start()
			t2 := w.Commit(map[zodb.Oid][]byte{9: nil})
			f.want(commit(t2, 9))
		}
		stop()
	})
}

// reading reads objects all the time, until what it returns is called. No read may fail.
func reading(t testing.TB, s zodb.Storage, objs map[zodb.Oid][]byte, tid zodb.Tid) (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				for oid, want := range objs {
					rec, err := s.LoadAt(context.Background(), oid, tid)
					if err != nil || rec.Serial != tid || string(rec.Data) != string(want) {
						t.Errorf("%s@%s: %d bytes of %s, %v", oid, tid, len(rec.Data), rec.Serial, err)
						return
					}
				}
			}
		})
	}
	return func() { done.Store(true); wg.Wait() }
}

// The only master is killed and started again.
func TestMasterRestart(t *testing.T) {
	both(t, neotest.Config{Storages: 1, Partitions: 2}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		cl.Masters[0].Kill()
		zeo.Eventually(t, "the loss is noticed", func() bool { c, _ := s.Connectivity(); return !c.Connected })
		cl.Masters[0].Start()
		loadAll(t, s, objs, tid)
		t1 := w.Commit(map[zodb.Oid][]byte{4: data("after")})
		f.want(commit(t1, 4))
	})
}

// Storages are added and all copies move to them, while objects are read.
func TestTweak(t *testing.T) {
	both(t, neotest.Config{Storages: 1, Partitions: 6}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs := map[zodb.Oid][]byte{}
		for oid := range zodb.Oid(30) {
			objs[oid] = data(strings.Repeat("x", int(oid)*100))
		}
		tid := w.Commit(objs)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		stop := reading(t, s, objs, tid)
		cl.AddStorage()
		cl.WaitPending()
		cl.Ctl("add", "all")
		cl.Ctl("tweak", "S1")
		zeo.Eventually(t, "S2 has everything", func() bool {
			for _, row := range cl.Cells() {
				if row[2] != neotest.UpToDate {
					return false
				}
			}
			return true
		})
		t1 := w.Commit(map[zodb.Oid][]byte{5: data("moved")})
		f.want(commit(t1, 5))
		cl.Storages[0].Kill()
		cl.Ctl("drop", "S1")
		t2 := w.Commit(map[zodb.Oid][]byte{6: data("moved")})
		f.want(commit(t2, 6))
		mustLoad(t, s, 5, t2, data("moved"), t1)
		stop()
		got := 0
		all := make([]zodb.Oid, 0, len(objs))
		for oid := range objs {
			all = append(all, oid)
		}
		err := s.LoadBatch(context.Background(), all, tid, func(i int, rec zodb.Record, err error) error {
			if err != nil || string(rec.Data) != string(objs[all[i]]) {
				t.Errorf("%s in a batch: %d bytes, %v", all[i], len(rec.Data), err)
			}
			got++
			return nil
		})
		if err != nil || got != len(all) {
			t.Errorf("a batch of %d had %d: %v", len(all), got, err)
		}
	})
}

// A cluster that is truncated serves another database from then on, though it is written to again.
func TestTruncate(t *testing.T) {
	both(t, neotest.Config{Storages: 1, Partitions: 2}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		_, t1 := fill(w)
		t2 := w.Commit(map[zodb.Oid][]byte{1: data("lost")})
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, t1)
		f.want(commit(t2, 1))
		cl.Ctl("truncate", "0x"+t1.String())
		if err := f.ended(); !errors.Is(err, neo.ErrOtherDatabase) || zodb.KindOf(err) != zodb.KindOtherDatabase ||
			!strings.Contains(err.Error(), "truncated") {
			t.Errorf("Follow returned %v", err)
		}
		for _, err := range []error{
			func() error { _, err := s.LoadAt(context.Background(), 1, t1); return err }(),
			func() error { _, err := s.Head(context.Background()); return err }(),
		} {
			if zodb.KindOf(err) != zodb.KindOtherDatabase {
				t.Errorf("afterwards: %v", err)
			}
		}
	})
}

// What is committed is reported exactly: deleted objects, those that were only checked not, undone creations.
func TestExactCommits(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 3}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		_, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		f := follow(t, s, tid)
		f.want(odd(t, w)...)
	})
}

// odd makes transactions of all kinds, and returns what is to be reported of them.
func odd(t testing.TB, w *neotest.Writer) []zodb.Commit {
	t.Helper()
	make := func(x neotest.Txn) zodb.Tid {
		tid, err := w.Make(x)
		if err != nil {
			t.Fatal(err)
		}
		return tid
	}
	var list []zodb.Commit
	add := func(tid zodb.Tid, oids ...zodb.Oid) { list = append(list, commit(tid, oids...)) }
	add(make(neotest.Txn{Objects: map[zodb.Oid][]byte{1: data("a"), 7: data("b")}, Checked: []zodb.Oid{2, 3}}), 1, 7)
	add(make(neotest.Txn{Objects: map[zodb.Oid][]byte{7: nil}}), 7)
	add(make(neotest.Txn{Objects: map[zodb.Oid][]byte{1: nil, 2: data("c")}, Checked: []zodb.Oid{3}}), 1, 2)
	created := make(neotest.Txn{Objects: map[zodb.Oid][]byte{8: data("new"), 9: {}}})
	add(created, 8, 9)
	add(w.Undo(created), 8, 9)
	return append(list, many(w.Many([]zodb.Oid{2, 3}, 5, 50), []zodb.Oid{2, 3})...)
}

// What was committed while the connection was away is reported commit by commit, as exactly.
func TestGapClosed(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 3}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		proxy := zeo.NewProxy(t, "tcp", cl.Masters[0].Addr)
		_, tid := fill(w)
		s := open(t, strings.Replace(cl.URL(), cl.Masters[0].Addr, proxy.Addr, 1), behind(t))
		f := follow(t, s, tid)
		for range 2 {
			proxy.Refuse(true)
			proxy.Cut()
			want := odd(t, w)
			proxy.Refuse(false)
			f.want(want...)
		}
		f.want(many(w.Many([]zodb.Oid{9}, 2, 50), []zodb.Oid{9})...)
		if _, err := s.LoadAt(context.Background(), 7, head(t, s)); !errors.Is(err, zodb.ErrDeleted) {
			t.Errorf("load of a deleted object: %v", err)
		}
	})
}

// More transactions than are to be asked about are a gap.
func TestGapTooLarge(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 5})
	w := cl.Writer()
	proxy := zeo.NewProxy(t, "tcp", cl.Masters[0].Addr)
	_, tid := fill(w)
	opt := behind(t)
	opt.MaxGap = 20
	s := open(t, strings.Replace(cl.URL(), cl.Masters[0].Addr, proxy.Addr, 1), opt)
	f := follow(t, s, tid)
	proxy.Refuse(true)
	proxy.Cut()
	tids := w.Many([]zodb.Oid{1, 2}, 21, 50)
	proxy.Refuse(false)
	f.want(zodb.Commit{Tid: tids[20], Gap: tid})
	f.want(many(w.Many([]zodb.Oid{1, 2}, 3, 50), []zodb.Oid{1, 2})...)
}

// A follower that lags behind farther than commits are queued is given the rest all the same.
func TestSlowFollower(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 3}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		_, tid := fill(w)
		opt := options(t)
		opt.MaxQueue = 8 // a commit of one object counts two
		s := open(t, cl.URL(), opt)
		tids := w.Many([]zodb.Oid{1, 2, 3}, 30, 50)
		for head(t, s) < tids[29] {
		}
		f := follow(t, s, tid)
		f.want(many(tids, []zodb.Oid{1, 2, 3})...)
		f.want(many(w.Many([]zodb.Oid{4}, 2, 50), []zodb.Oid{4})...)
	})
}

// A cluster that backs up another one is followed though it announces nothing.
func TestBackup(t *testing.T) {
	both(t, neotest.Config{Storages: 1, Partitions: 2}, func(t *testing.T, cfg neotest.Config) {
		up := neotest.Start(t, cfg)
		w := up.Writer()
		objs, tid := fill(w)
		cfg.Upstream = up
		cl := neotest.Start(t, cfg)
		cl.Backup()
		s := open(t, cl.URL(), options(t))
		zeo.Eventually(t, "the backup has what there was", func() bool { return head(t, s) >= tid })
		loadAll(t, s, objs, tid)
		f := follow(t, s, tid)
		// Without deletions: this peer's backups sometimes never get them.
		var wants []zodb.Commit
		for i := range 5 {
			tid, err := w.Make(neotest.Txn{Objects: map[zodb.Oid][]byte{1: data("a"), zodb.Oid(10 + i): data("b")}, Checked: []zodb.Oid{2, 3}})
			if err != nil {
				t.Fatal(err)
			}
			wants = append(wants, commit(tid, 1, zodb.Oid(10+i)))
		}
		wants = append(wants, many(w.Many([]zodb.Oid{2, 3}, 10, 50), []zodb.Oid{2, 3})...)
		for _, want := range wants {
			for {
				c := f.next()
				if len(c.Oids) == 0 && c.Gap == 0 && c.Tid < want.Tid {
					continue // the cluster was there, and it is no transaction
				}
				if c.Tid != want.Tid || c.Gap != 0 || !slices.Equal(c.Oids, want.Oids) {
					t.Fatalf("reported %v; want %v", c, want)
				}
				mustServe(t, s, c)
				break
			}
		}
	})
}

// mustServe checks that what a commit changed is read as of it, in that revision.
func mustServe(t testing.TB, s zodb.Storage, c zodb.Commit) {
	t.Helper()
	for _, oid := range c.Oids {
		if rec, err := s.LoadAt(context.Background(), oid, c.Tid); err != nil || rec.Serial != c.Tid {
			t.Errorf("%s@%s: revision %s, %v", oid, c.Tid, rec.Serial, err)
		}
	}
}

// A storage that hangs is left for another that has the partition, within the timeout.
func TestFrozenStorage(t *testing.T) {
	both(t, replicated(), func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		opt := options(t)
		opt.Timeout = 8 * time.Second
		s := open(t, cl.URL(), opt)
		for range 20 { // both storages are connected to
			loadAll(t, s, objs, tid)
		}
		cl.Storages[0].Freeze()
		loadAll(t, s, objs, tid)
		cl.Storages[0].Thaw()
		loadAll(t, s, objs, tid)
	})
}

// A load never waits longer than the timeout, and says what it waited for.
func TestFrozen(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 5, Storages: 1})
	w := cl.Writer()
	objs, tid := fill(w)
	opt := options(t)
	opt.Timeout = time.Second
	s := open(t, cl.URL(), opt)
	f := follow(t, s, tid)
	loadAll(t, s, objs, tid)
	for _, n := range []*neotest.Node{cl.Storages[0], cl.Masters[0]} {
		n.Freeze()
		for range 2 {
			start := time.Now()
			if _, err := s.LoadAt(context.Background(), 1, tid); err == nil && n == cl.Masters[0] {
				continue // until it is noticed
			} else if !errors.Is(err, neo.ErrTimeout) || zodb.KindOf(err) != zodb.KindOutage || !strings.Contains(err.Error(), "0000000000000001@"+tid.String()) {
				t.Errorf("load with %s frozen: %v", n.Name, err)
			}
			if took := time.Since(start); took > opt.Timeout+patience/4 {
				t.Errorf("a load took %v", took)
			}
		}
		n.Thaw()
		zeo.Eventually(t, "reads work again", func() bool {
			_, err := s.LoadAt(context.Background(), 1, tid)
			return err == nil
		})
	}
	t1 := w.Commit(map[zodb.Oid][]byte{2: data("after")})
	f.want(commit(t1, 2))
}

// The connection to the master stays open and passes nothing.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 6})
	w := cl.Writer()
	_, tid := fill(w)
	proxy := zeo.NewProxy(t, "tcp", cl.Masters[0].Addr)
	opt := behind(t)
	opt.Timeout = 4 * time.Second
	s := open(t, strings.Replace(cl.URL(), cl.Masters[0].Addr, proxy.Addr, 1), opt)
	f := follow(t, s, tid)
	proxy.Freeze()
	t1 := w.Commit(map[zodb.Oid][]byte{2: data("unheard")})
	f.want(commit(t1, 2))
}

// The connection to the master is cut again and again, while others write and read: no commit is missed.
func TestFlaky(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 3}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		proxy := zeo.NewProxy(t, "tcp", cl.Masters[0].Addr)
		s := open(t, strings.Replace(cl.URL(), cl.Masters[0].Addr, proxy.Addr, 1), behind(t))
		f := follow(t, s, tid)
		stop := reading(t, s, objs, tid)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				proxy.Cut()
				time.Sleep(150 * time.Millisecond)
			}
		})
		var want []zodb.Commit
		for range 10 {
			want = append(want, many(w.Many([]zodb.Oid{10, 11, 12}, 10, 50), []zodb.Oid{10, 11, 12})...)
			want = append(want, commit(w.Commit(map[zodb.Oid][]byte{11: nil}), 11))
		}
		cancel()
		wg.Wait()
		f.want(want...)
		stop()
	})
}

// Objects as large as they come, several at once.
func TestLargeObjects(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 2}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs := map[zodb.Oid][]byte{1: storagetest.Record(make([]byte, 16<<20)), 2: data(strings.Repeat("ab", 4<<20))}
		tid := w.Commit(objs)
		opt := options(t)
		opt.Timeout = patience
		s := open(t, cl.URL(), opt)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { loadAll(t, s, objs, tid) })
		}
		wg.Wait()
	})
}
