package relstorage_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	rel "wcfs/t/relstorage"
	"wcfs/t/served"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb"
)

// importer writes what the fixture makes as zodbconvert would.
type importer struct{ *rel.Writer }

func (w importer) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error { return w.Restore(tid, objs) }

// TestTree mounts a database in PostgreSQL, and one in SQLite, and runs the suite of the tree over it.
func TestTree(t *testing.T) {
	name, pg, err := env.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	dir, lite, err := env.SQLite(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []struct {
		name, url string
		w         *rel.Writer
	}{
		{"postgresql", env.PG.URL(name), pg},
		{"sqlite", "sqlite://" + filepath.Join(dir, "main.sqlite3"), lite},
	} {
		t.Run(db.name, func(t *testing.T) {
			model, err := fixture.Make(importer{db.w})
			if err != nil {
				t.Fatal(err)
			}
			mnt := t.TempDir()
			m := served.Serve(t, mnt, exec.Command(env.wcfs, "serve", "--debug", "--allow-other", "--mount", mnt, db.url))
			defer m.End()
			treetest.Run(t, &treetest.Env{
				FS:       treetest.Path{Dir: mnt},
				Manifest: fixture.Manifest(model, db.url, "30.0", true),
			})
		})
	}
}
