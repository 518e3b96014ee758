package relstorage_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	rel "wcfs/t/relstorage"
	"wcfs/t/wait"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

// env is what all tests of the package share: one server, one Python process.
var env *rel.Databases

func TestMain(m *testing.M) {
	var err error
	env, err = rel.NewDatabases(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	env.Close()
	os.Exit(code)
}

// backend is a database for storagetest.
type backend struct {
	url  string
	w    *rel.Writer
	many int
	objs map[zodb.Tid][]zodb.Oid
}

var (
	_ storagetest.PackBackend = (*backend)(nil)
	_ storagetest.Undoer      = (*backend)(nil)
	_ storagetest.Many        = (*backend)(nil)
)

func newPostgres(t testing.TB) *backend {
	t.Helper()
	db, w, err := env.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &backend{url: env.PG.URL(db), w: w, objs: map[zodb.Tid][]zodb.Oid{}, many: 600}
}

func newSQLite(t testing.TB) *backend {
	t.Helper()
	dir, w, err := env.SQLite(true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &backend{url: "sqlite://" + dir + "/main.sqlite3", w: w, objs: map[zodb.Tid][]zodb.Oid{}, many: 600}
}

func (b *backend) Many() int { return b.many }

func (b *backend) Open(t testing.TB) zodb.Storage {
	t.Helper()
	return open(t, b.url, relstorage.Options{})
}

func open(t testing.TB, url string, opt relstorage.Options) *relstorage.Storage {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	s, err := relstorage.Open(ctx, url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	t.Helper()
	tid, err := b.w.Commit(objs)
	if err != nil {
		t.Fatal(err)
	}
	for oid := range objs {
		b.objs[tid] = append(b.objs[tid], oid)
	}
	return tid
}

func (b *backend) Undo(t testing.TB, tid zodb.Tid) zodb.Tid {
	t.Helper()
	undo, err := b.w.Undo(tid, b.objs[tid])
	if err != nil {
		t.Fatal(err)
	}
	b.objs[undo] = b.objs[tid]
	return undo
}

func (b *backend) Pack(t testing.TB, at zodb.Tid) {
	t.Helper()
	if err := b.w.Pack(at); err != nil {
		t.Fatal(err)
	}
}

func TestStoragePostgres(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newPostgres(t) })
	storagetest.RunPack(t, func(t testing.TB) storagetest.PackBackend { return newPostgres(t) })
}

func TestStorageSQLite(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newSQLite(t) })
	storagetest.RunPack(t, func(t testing.TB) storagetest.PackBackend { return newSQLite(t) })
}
