package neo_test

import (
	"context"
	"testing"
	"time"

	neotest "wcfs/t/neo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/neo"
	"wcfs/zcore/zodb/storagetest"
)

// backend is a NEO cluster of its own and a client that writes to it.
type backend struct {
	c *neotest.Cluster
	*neotest.Writer
}

func newBackend(t testing.TB, cfg neotest.Config) *backend {
	c := neotest.Start(t, cfg)
	return &backend{c, c.Writer()}
}

func (b *backend) Open(t testing.TB) zodb.Storage {
	t.Helper()
	return open(t, b.c.URL(), neo.Options{})
}

func open(t testing.TB, url string, o neo.Options) *neo.Storage {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := neo.Open(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	t.Helper()
	return b.Writer.Commit(objs)
}

func (b *backend) Undo(t testing.TB, tid zodb.Tid) zodb.Tid {
	t.Helper()
	return b.Writer.Undo(tid)
}

func (b *backend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	t.Helper()
	objs := map[zodb.Oid][]byte{}
	for _, oid := range oids {
		objs[oid] = nil
	}
	return b.Writer.Commit(objs)
}

func (b *backend) Pack(t testing.TB, at zodb.Tid) {
	t.Helper()
	b.Writer.Pack(at)
}

// Many bounds the commits of the ordering test: each takes some milliseconds in Python.
func (b *backend) Many() int { return 1000 }

// TestSuite: a struct cluster of two storages that share the data, and a msgpack one with TLS where both have it.
func TestSuite(t *testing.T) {
	for _, cfg := range []neotest.Config{
		{Protocol: 6, Storages: 2, Partitions: 3},
		{Protocol: 5, Storages: 2, Partitions: 3, Replicas: 1},
	} {
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newBackend(t, cfg) })
		})
	}
}
