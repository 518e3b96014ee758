package neo_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	neotest "wcfs/t/neo"
	"wcfs/t/wait"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/neo"
	"wcfs/zcore/zodb/storagetest"
)

// options are those of tests: what the driver logs goes to the test's log.
func options(t testing.TB) neo.Options {
	return neo.Options{Log: slog.New(slog.NewTextHandler(logWriter{t}, nil)), MaxBackoff: 300 * time.Millisecond}
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func open(t testing.TB, url string, opt neo.Options) *neo.Storage {
	t.Helper()
	s, err := neo.Open(context.Background(), url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// both runs a test with both protocols.
func both(t *testing.T, cfg neotest.Config, fn func(t *testing.T, cfg neotest.Config)) {
	t.Parallel()
	for _, p := range []int{6, 5} {
		cfg.Protocol = p
		t.Run(fmt.Sprintf("protocol%d", p), func(t *testing.T) {
			t.Parallel()
			fn(t, cfg)
		})
	}
}

// backend is a database for storagetest: a real cluster, and a client that writes.
type backend struct {
	cl *neotest.Cluster
	w  *neotest.Writer
}

func (b *backend) Open(t testing.TB) zodb.Storage {
	s, err := neo.Open(context.Background(), b.cl.URL(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid { return b.w.Commit(objs) }

func (b *backend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	objs := map[zodb.Oid][]byte{}
	for _, oid := range oids {
		objs[oid] = nil
	}
	return b.w.Commit(objs)
}

func (b *backend) Undo(t testing.TB, tid zodb.Tid) zodb.Tid { return b.w.Undo(tid) }
func (b *backend) Pack(t testing.TB, at zodb.Tid)           { b.w.Pack(at) }

// Many keeps the default run short; a soak makes ten thousand.
func (b *backend) Many() int {
	if os.Getenv("WCFS_SOAK") != "" {
		return 10000
	}
	return 200
}

func TestStoragetest(t *testing.T) {
	both(t, neotest.Config{Storages: 2, Partitions: 3}, func(t *testing.T, cfg neotest.Config) {
		fresh := func(t testing.TB) storagetest.PackBackend {
			cl := neotest.Start(t, cfg)
			return &backend{cl, cl.Writer()}
		}
		storagetest.Run(t, func(t testing.TB) storagetest.Backend { return fresh(t) })
		storagetest.RunPack(t, fresh)
	})
}

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

// many is what a Many of n commits is reported as.
func many(tids []zodb.Tid, oids []zodb.Oid) []zodb.Commit {
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

func data(s string) []byte { return storagetest.Record([]byte(s)) }
