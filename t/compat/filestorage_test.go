package compat

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/storagetest"
)

// pyBackend is a FileStorage that Python writes. One Python process serves many databases.
type pyBackend struct {
	w    *py.Writer
	name string
	path string
}

func newPyBackend(t testing.TB, w *py.Writer, zlib bool) *pyBackend {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	b := &pyBackend{w, path, path}
	w.Do(t, "open", path, py.Request{"path": path, "zlib": zlib})
	t.Cleanup(func() { w.Try("close", path, nil) })
	// Python keeps the magic of a new file to itself until the first commit.
	b.Commit(t, map[zodb.Oid][]byte{0: storagetest.Record(nil)})
	return b
}

func (b *pyBackend) Open(t testing.TB) zodb.Storage { return openFS(t, b.path, filestorage.Options{}) }

func (b *pyBackend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	t.Helper()
	return b.w.Do(t, "commit", b.name, py.Objs(objs)).TidOf(t)
}

func (b *pyBackend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	objs := map[zodb.Oid][]byte{}
	for _, oid := range oids {
		objs[oid] = nil
	}
	return b.Commit(t, objs)
}

func (b *pyBackend) Undo(t testing.TB, tid zodb.Tid) zodb.Tid {
	t.Helper()
	return b.w.Do(t, "undo", b.name, py.Request{"tid": tid.String()}).TidOf(t)
}

// ForgetsDeletions is what the pack of FileStorage does.
func (*pyBackend) ForgetsDeletions() {}

func (b *pyBackend) Pack(t testing.TB, at zodb.Tid) {
	t.Helper()
	b.w.Do(t, "pack", b.name, py.Request{"tid": at.String()})
}

// Many implements storagetest.Many: each commit of Python waits for the disk.
func (b *pyBackend) Many() int { return 500 }

func openFS(t testing.TB, path string, opt filestorage.Options) *filestorage.Storage {
	t.Helper()
	stor, err := filestorage.Open(context.Background(), "file://"+path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stor.Close() })
	return stor
}

// TestFileStorageSuite runs the suite of all drivers over databases that Python writes, undoes and packs.
func TestFileStorageSuite(t *testing.T) {
	for _, env := range []string{py.Py5, py.Py6} {
		for _, zlib := range []bool{false, true} {
			if zlib && env == py.Py6 {
				continue // zc.zlibstorage is the same package in both; one of them tells enough
			}
			t.Run(fmt.Sprintf("%s zlib=%v", env, zlib), func(t *testing.T) {
				w := py.StartWriter(t, env)
				storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newPyBackend(t, w, zlib) })
				storagetest.RunPack(t, func(t testing.TB) storagetest.PackBackend { return newPyBackend(t, w, zlib) })
			})
		}
	}
}
