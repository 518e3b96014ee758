package zeo_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/storagetest"
	"wcfs/zcore/zodb/zeo"
)

// options are those of tests: what the driver logs goes to the test's log.
func options(t testing.TB) zeo.Options {
	return zeo.Options{Log: slog.New(slog.NewTextHandler(logWriter{t}, nil)), MaxBackoff: 300 * time.Millisecond}
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func open(t testing.TB, url string, opt zeo.Options) *zeo.Storage {
	t.Helper()
	s, err := zeo.Open(context.Background(), url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// backend is a database for storagetest: a real server, and a Python client that writes.
type backend struct {
	srv *zeotest.Server
	cl  *zeotest.Client
}

func (b *backend) Open(t testing.TB) zodb.Storage {
	s, err := zeo.Open(context.Background(), b.srv.URL(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	var list []zeotest.Object
	for oid, data := range objs {
		list = append(list, zeotest.Object{Oid: oid, Data: data})
	}
	return b.cl.Commit(list...)
}

func (b *backend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	var list []zeotest.Object
	for _, oid := range oids {
		list = append(list, zeotest.Object{Oid: oid})
	}
	return b.cl.Commit(list...)
}

// Many keeps the default run short; a soak makes ten thousand.
func (b *backend) Many() int {
	if os.Getenv("WCFS_SOAK") != "" {
		return 10000
	}
	return 200
}

// undoing and packing are not tested in one database: ZODB's packer, told to collect no garbage (and
// the suite's objects are all garbage), fails at an undo record whose original it packs away.
type undoing struct{ backend }

func (b *undoing) Undo(t testing.TB, tid zodb.Tid) zodb.Tid { return b.cl.Undo(tid) }

type packing struct{ backend }

func (b *packing) Pack(t testing.TB, at zodb.Tid) {
	b.cl.Pack(float64(at.Time().UnixNano())/1e9 + 1e-6)
}

// By default the two servers that differ in everything are tested; a soak tests all four.
func TestStoragetest(t *testing.T) {
	t.Parallel()
	for i, cfg := range zeotest.Matrix() {
		if i%3 != 0 && os.Getenv("WCFS_SOAK") == "" {
			continue
		}
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			fresh := func(t testing.TB) backend {
				srv := zeotest.Start(t, cfg)
				return backend{srv, srv.Client()}
			}
			storagetest.Run(t, func(t testing.TB) storagetest.Backend { return &undoing{fresh(t)} })
			storagetest.RunPack(t, func(t testing.TB) storagetest.PackBackend { return &packing{fresh(t)} })
		})
	}
}
