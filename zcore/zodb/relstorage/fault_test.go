package relstorage_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rel "wcfs/t/relstorage"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

// terminate ends every connection that relstorage has to the database.
func terminate(t testing.TB, url string) {
	t.Helper()
	newSQL(t, url).do(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'wcfs' AND datname = current_database()`)
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestTerminate: the server ends our connections over and over; loads and following go on.
func TestTerminate(t *testing.T) {
	b := newPostgres(t)
	rec := storagetest.Record([]byte("x"))
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: rec})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	var stop atomic.Bool
	var loads atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				r, err := s.LoadAt(context.Background(), 0x1000, first)
				if err != nil || r.Serial != first || !bytes.Equal(r.Data, rec) {
					t.Errorf("load: %v, serial %s", err, r.Serial)
					return
				}
				loads.Add(1)
			}
		})
	}
	var want []zodb.Tid
	for range 10 {
		terminate(t, b.url)
		want = append(want, b.Commit(t, map[zodb.Oid][]byte{0x1000: rec}))
		for n, end := loads.Load(), time.Now().Add(patience); loads.Load() < n+8 && time.Now().Before(end) && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	for _, tid := range want {
		if c := f.next(); c.Tid != tid || c.Gap != 0 {
			t.Fatalf("reported %+v; want %s", c, tid)
		}
	}
	stop.Store(true)
	wg.Wait()
}

// connected waits until the storage tells that there is a connection, or none and why.
func connected(t testing.TB, s zodb.Connector, want bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		c, ok := s.Connectivity()
		if ok && c.Connected == want && (c.Err == nil) == want && !c.Since.IsZero() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %v; want connected %v", c, ok, want)
		}
	}
}

// TestRestart: loads wait for a server that comes back in time, fail with a plain error when it does
// not, and following goes on.
func TestRestart(t *testing.T) {
	d, err := rel.NewDatabases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	name, w, err := d.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	rec := storagetest.Record([]byte("x"))
	tid, err := w.Commit(map[zodb.Oid][]byte{0x1000: rec})
	if err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	s := open(t, d.PG.URL(name), relstorage.Options{Log: log.logger()})
	short := open(t, d.PG.URL(name), relstorage.Options{Timeout: 300 * time.Millisecond})
	f := follow(t, s, mustHead(t, s))

	d.PG.Stop(stopCrash)
	res := make(chan error, 1)
	go func() {
		_, err := s.LoadAt(context.Background(), 0x1000, tid)
		res <- err
	}()
	began := time.Now()
	_, err = short.LoadAt(t.Context(), 0x1000, tid)
	if err == nil || zodb.IsAbsent(err) || !strings.Contains(err.Error(), "no answer within 300ms") {
		t.Fatalf("load from a stopped server: %v after %v", err, time.Since(began))
	}
	connected(t, s, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.LoadAt(ctx, 0x1000, tid); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled load: %v", err)
	}
	if err := d.PG.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-res; err != nil {
		t.Fatalf("load over a restart: %v", err)
	}
	connected(t, s, true)
	// RelStorage's connections are gone as well; a new storage of it writes.
	w, err = d.Py.Open("postgresql", d.PG.DSN(name), true)
	if err != nil {
		t.Fatal(err)
	}
	tid2, err := w.Commit(map[zodb.Oid][]byte{0x1001: rec})
	if err != nil {
		t.Fatal(err)
	}
	if c := f.next(); c.Tid != tid2 || c.Gap != 0 {
		t.Fatalf("reported %+v; want %s", c, tid2)
	}
	if down, up := log.count("does not answer"), log.count("answers again"); down == 0 || down > 3 || down != up {
		t.Fatalf("the outage was logged %d times, its end %d times", down, up)
	}
}

// TestSlowQuery: a query that does not end can be cancelled, ends by itself at Timeout, and hinders
// nothing afterwards.
func TestSlowQuery(t *testing.T) {
	b := newPostgres(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := open(t, b.url, relstorage.Options{Timeout: 500 * time.Millisecond, Conns: 2})
	mustHead(t, s)
	w := newSQL(t, b.url)
	w.do("BEGIN")
	w.do("LOCK TABLE object_state IN ACCESS EXCLUSIVE MODE")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.LoadAt(ctx, 0x1000, tid); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("interrupted load: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 { // more than there are connections
		wg.Go(func() {
			_, err := s.LoadAt(t.Context(), 0x1000, tid)
			if err == nil || zodb.IsAbsent(err) || !strings.Contains(err.Error(), "no answer within") {
				t.Errorf("load of a locked table: %v", err)
			}
		})
	}
	wg.Wait()
	w.do("ROLLBACK")
	patient := open(t, b.url, relstorage.Options{})
	if _, err := patient.LoadAt(t.Context(), 0x1000, tid); err != nil {
		t.Fatal(err)
	}
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err = s.LoadAt(t.Context(), 0x1000, tid); err == nil {
			return
		}
	}
	t.Fatalf("after the lock is gone: %v", err)
}

// TestConnections: however many loads there are, the server sees no more connections than told.
func TestConnections(t *testing.T) {
	b := newPostgres(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := open(t, b.url, relstorage.Options{Conns: 3})
	follow(t, s, mustHead(t, s))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 10 {
				if _, err := s.LoadAt(t.Context(), 0x1000, tid); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	err := newSQL(t, b.url).QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'wcfs' AND datname = current_database()`).Scan(&n)
	if err != nil || n < 2 || n > 4 {
		t.Fatalf("%d connections, %v; want at most 4", n, err)
	}
}

// TestPackServing: what a pack removed is ErrNoData with one line in the log, however often it is asked
// for; head goes on; who follows from before the pack is told of a gap.
func TestPackServing(t *testing.T) {
	for name, b := range map[string]*backend{"postgres": newPostgres(t), "sqlite": newSQLite(t)} {
		t.Run(name, func(t *testing.T) {
			var tids []zodb.Tid
			commit := func() zodb.Tid {
				tids = append(tids, b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record([]byte{byte(len(tids))})}))
				return tids[len(tids)-1]
			}
			for range 5 {
				commit()
			}
			var log logBuffer
			s := open(t, b.url, relstorage.Options{Log: log.logger()})
			f := follow(t, s, mustHead(t, s))
			b.Pack(t, tids[3])
			for range 3 {
				for _, at := range tids[:3] {
					if _, err := s.LoadAt(t.Context(), 0x1000, at); !errors.Is(err, zodb.ErrNoData) || !strings.Contains(err.Error(), tids[3].String()) {
						t.Fatalf("packed revision: %v", err)
					}
				}
			}
			if n := log.count("packed"); n == 0 || log.count("\n") != 1 {
				t.Fatalf("log: %s", log.buf.String())
			}
			for _, at := range tids[3:] {
				if r, err := s.LoadAt(t.Context(), 0x1000, at); err != nil || r.Serial != at {
					t.Fatalf("kept revision: %v, %s", err, r.Serial)
				}
			}
			if _, err := s.LoadAt(t.Context(), 0x1001, tids[0]); !errors.Is(err, zodb.ErrNoObject) {
				t.Fatal(err)
			}
			if last := commit(); f.next().Tid != last {
				t.Fatal("head does not go on")
			}
			late := open(t, b.url, relstorage.Options{})
			g := follow(t, late, tids[0])
			if c := g.next(); c.Gap != tids[0] || c.Tid != tids[3] || c.Oids != nil {
				t.Fatalf("from before the pack: %+v", c)
			}
			for _, tid := range tids[4:] {
				if c := g.next(); c.Tid != tid || c.Gap != 0 || len(c.Oids) != 1 {
					t.Fatalf("after the gap: %+v; want %s", c, tid)
				}
			}
		})
	}
}
