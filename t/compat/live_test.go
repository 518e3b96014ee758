package compat

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/py"
	"wcfs/t/wait"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

var patience = wait.Patience

// followAll returns the commits that Follow reports, in order.
func followAll(t testing.TB, stor zodb.Storage, after zodb.Tid) <-chan zodb.Commit {
	ctx, cancel := context.WithCancel(context.Background())
	ch := make(chan zodb.Commit, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stor.Follow(ctx, after, func(c zodb.Commit) error {
			select {
			case ch <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return ch
}

func next(t testing.TB, ch <-chan zodb.Commit) zodb.Commit {
	t.Helper()
	select {
	case c := <-ch:
		return c
	case <-time.After(patience):
		t.Fatal("no commit is reported")
		panic("unreachable")
	}
}

// A Python process commits 250 times in a row while 8 readers read the object it writes: Follow tells
// each commit once and in order, and each read is one revision between the head before it and the
// head after it.
func TestCommitRate(t *testing.T) {
	w := py.StartWriter(t, py.Py5)
	b := newPyBackend(t, w, false)
	const oid, n = 1, 250
	first := b.Commit(t, map[zodb.Oid][]byte{oid: bytes.Repeat([]byte("00000000"), 512)})
	stor := b.Open(t)
	commits := followAll(t, stor, first)

	ctx := context.Background()
	var stop atomic.Bool
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[zodb.Tid]string{} // guarded by mu; number by serial
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				before, err1 := stor.Head(ctx)
				rec, err2 := stor.LoadAt(ctx, oid, before)
				after, err3 := stor.Head(ctx)
				if err1 != nil || err2 != nil || err3 != nil {
					t.Error(err1, err2, err3)
					return
				}
				num := string(rec.Data[:8])
				if !bytes.Equal(rec.Data, bytes.Repeat([]byte(num), 512)) {
					t.Error("a mix of two revisions")
					return
				}
				if rec.Serial > before || rec.Until <= before || before > after {
					t.Errorf("revision [%s, %s) at %s", rec.Serial, rec.Until, before)
					return
				}
				mu.Lock()
				if old, ok := seen[rec.Serial]; ok && old != num {
					t.Errorf("%s is %s and %s", rec.Serial, old, num)
				}
				seen[rec.Serial] = num
				mu.Unlock()
			}
		})
	}
	a := w.Do(t, "hammer", b.name, py.Request{"oid": zodb.Oid(oid).String(), "n": n})
	for i, tid := range a.Tids {
		if c := next(t, commits); c.Tid.String() != tid || !slices.Equal(c.Oids, []zodb.Oid{oid}) {
			t.Fatalf("commit %d: got %+v, want %s", i, c, tid)
		}
	}
	stop.Store(true)
	wg.Wait()
	for tid, num := range seen {
		i := slices.Index(a.Tids, tid.String())
		if tid != first && num != fmt.Sprintf("%08d", i) {
			t.Errorf("%s holds %s, it is commit %d", tid, num, i)
		}
	}
	t.Logf("readers saw %d of %d revisions", len(seen), n)
}

// nextReal passes over commits without objects: head takes the tid of a commit whose writer was killed, as Python does.
func nextReal(t *testing.T, commits <-chan zodb.Commit) zodb.Commit {
	t.Helper()
	for {
		if c := next(t, commits); len(c.Oids) > 0 || c.Gap != 0 {
			return c
		}
	}
}

// The writer is killed: once between writing a transaction and committing it, then at any moment of
// a row of commits. What is followed is what the next writer finds.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	start := func() *py.Writer {
		w := py.StartWriter(t, py.Py5)
		w.Do(t, "open", "x", py.Request{"path": path})
		return w
	}
	w := start()
	obj := func(n int) py.Request { return py.Objs(map[zodb.Oid][]byte{1: storagetest.Record(make([]byte, n))}) }
	first := w.Do(t, "commit", "x", obj(10)).TidOf(t)
	stor := openFS(t, path, filestorage.Options{})
	commits := followAll(t, stor, first)
	var got []zodb.Tid

	w.Do(t, "vote", "x", obj(100000))
	w.Kill()
	late := openFS(t, path, filestorage.Options{})
	if head, err := late.Head(context.Background()); err != nil || head != first {
		t.Fatalf("head of a database with an unfinished transaction: %s, %v", head, err)
	}
	w = start() // truncates
	for range 3 {
		w.Do(t, "vote", "x", obj(5000))
		w.Do(t, "abort", "x", nil)
		want := w.Do(t, "commit", "x", obj(200)).TidOf(t)
		c := nextReal(t, commits)
		if c.Tid != want {
			t.Fatalf("got %+v, want %s", c, want)
		}
		got = append(got, c.Tid)
	}
	for range 3 {
		hammered := make(chan error, 1)
		go func() {
			_, err := w.Try("hammer", "x", py.Request{"oid": "0000000000000002", "n": 1 << 30})
			hammered <- err
		}()
		for range 20 {
			got = append(got, nextReal(t, commits).Tid)
		}
		w.Kill()
		if err := <-hammered; err == nil {
			t.Fatal("the killed writer answered")
		}
		w = start()
		last := w.Do(t, "commit", "x", obj(1)).TidOf(t)
		for got[len(got)-1] != last {
			got = append(got, nextReal(t, commits).Tid)
		}
	}
	var want []zodb.Tid
	for _, txn := range w.Do(t, "iterate", "x", nil).Txns[1:] {
		want = append(want, txn.Tid)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("followed %d commits, Python finds %d", len(got), len(want))
	}
}

// Python reads what the Go writer writes and the other way round, by turns, and each uses the index
// of the other.
func TestTurns(t *testing.T) {
	for _, env := range []string{py.Py5, py.Py6} {
		t.Run(env, func(t *testing.T) { turns(t, py.StartWriter(t, env)) })
	}
}

func turns(t *testing.T, p *py.Writer) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	var want []py.Txn
	revs := map[zodb.Oid]map[zodb.Tid][]byte{} // as the writers were told
	add := func(tid zodb.Tid, objs map[zodb.Oid][]byte) {
		x := py.Txn{Tid: tid}
		for oid, data := range objs {
			x.Oids = append(x.Oids, oid)
			if revs[oid] == nil {
				revs[oid] = map[zodb.Tid][]byte{}
			}
			revs[oid][tid] = data
		}
		slices.Sort(x.Oids)
		want = append(want, x)
	}
	objs := func(i int) map[zodb.Oid][]byte {
		m := map[zodb.Oid][]byte{1: storagetest.Record([]byte{byte(i)}), zodb.Oid(i) << 20: storagetest.Record(nil)}
		if i%4 == 3 {
			m[zodb.Oid(i-1)<<20] = nil
		}
		return m
	}
	for turn := range 4 {
		w, err := fswriter.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			tid, m := max(w.Last()+1, zodb.TidFromTime(time.Now())), objs(turn*12+i+2)
			if err := w.Commit(tid, m); err != nil {
				t.Fatal(err)
			}
			add(tid, m)
		}
		// Undo one commit: both objects go back to what they were.
		last, m := w.Last(), objs(turn*12+5+2)
		before := objs(turn*12 + 4 + 2)
		if err := w.Undo(last+1, last); err != nil {
			t.Fatal(err)
		}
		for oid := range m {
			m[oid] = before[oid]
		}
		add(last+1, m)
		if turn%2 == 0 {
			if err := w.WriteIndex(); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()

		a := p.Do(t, "open", "x", py.Request{"path": path})
		if !a.UsedIndex {
			t.Fatalf("turn %d: Python does not use the index", turn)
		}
		for i := range 6 {
			m := objs(turn*12 + i + 8)
			add(p.Do(t, "commit", "x", py.Objs(m)).TidOf(t), m)
		}
		if got := p.Do(t, "iterate", "x", nil).Txns; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("turn %d: Python finds %v, want %v", turn, got, want)
		}
		for oid, byTid := range revs {
			for tid, data := range byTid {
				a := p.Do(t, "load", "x", py.Request{"oid": oid.String(), "at": tid.String()})
				if !bytes.Equal(a.Data, data) || data != nil && a.Serial != tid.String() {
					t.Fatalf("turn %d: Python reads %s@%s as %q, serial %s; want %q", turn, oid, tid, a.Data, a.Serial, data)
				}
			}
		}
		p.Do(t, "close", "x", nil) // writes the index

		var log bytes.Buffer
		stor := openFS(t, path, filestorage.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		for oid, byTid := range revs {
			for tid, data := range byTid {
				rec, err := stor.LoadAt(context.Background(), oid, tid)
				if data == nil && !zodb.IsAbsent(err) || data != nil && (err != nil || rec.Serial != tid || !bytes.Equal(rec.Data, data)) {
					t.Fatalf("turn %d: %s@%s: %q, serial %s, %v; want %q", turn, oid, tid, rec.Data, rec.Serial, err, data)
				}
			}
		}
		stor.Close()
		if _, err := os.Stat(path + ".index"); err != nil || strings.Contains(log.String(), "index") {
			t.Fatalf("turn %d: Python's index is not used: %v %s", turn, err, log.String())
		}
	}
}
