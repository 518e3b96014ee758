package filestorage_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// goBackend is a database written by fswriter.
type goBackend struct {
	path string
	w    *fswriter.Writer
}

func newGoBackend(t testing.TB) *goBackend {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &goBackend{path, w}
}

func (b *goBackend) Open(t testing.TB) zodb.Storage { return open(t, b.path, filestorage.Options{}) }

// tid returns the id of the next transaction.
func (b *goBackend) tid() zodb.Tid {
	return max(b.w.Last()+1, zodb.TidFromTime(time.Now()))
}

func (b *goBackend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	t.Helper()
	if err := b.w.Commit(b.tid(), objs); err != nil {
		t.Fatal(err)
	}
	return b.w.Last()
}

func (b *goBackend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	objs := map[zodb.Oid][]byte{}
	for _, oid := range oids {
		objs[oid] = nil
	}
	return b.Commit(t, objs)
}

func (b *goBackend) Undo(t testing.TB, tid zodb.Tid) zodb.Tid {
	t.Helper()
	if err := b.w.Undo(b.tid(), tid); err != nil {
		t.Fatal(err)
	}
	return b.w.Last()
}

func open(t testing.TB, path string, opt filestorage.Options) *filestorage.Storage {
	t.Helper()
	stor, err := filestorage.Open(context.Background(), "file://"+path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stor.Close() })
	return stor
}

func TestSuite(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newGoBackend(t) })
}
