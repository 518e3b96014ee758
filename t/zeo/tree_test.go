package zeo_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"wcfs/t/served"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb/fswriter"
)

// TestTree mounts a database from ZEO servers, and as the base of a DemoStorage whose changes a ZEO
// server has, and runs the suite of the tree over each.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	data, changes := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "changes.fs")
	w, err := fswriter.Create(data)
	if err != nil {
		t.Fatal(err)
	}
	model, err := fixture.Make(w)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := served.Build(dir, false, ""); err != nil {
		t.Fatal(err)
	}
	z5 := zeotest.Start(t, zeotest.Config{Version: 5, Data: data})
	m5 := zeotest.Start(t, zeotest.Config{Version: 6, Msgpack: true, Unix: true, Data: changes})
	for name, url := range map[string]string{
		"zeo":  z5.URL(),
		"demo": "demo:(" + z5.URL() + ")/(" + m5.URL() + ")",
	} {
		t.Run(name, func(t *testing.T) {
			mnt := t.TempDir()
			m := served.Serve(t, mnt, exec.Command(filepath.Join(dir, "wcfs"), "serve", "--debug", "--allow-other", "--mount", mnt, url))
			defer m.End()
			treetest.Run(t, &treetest.Env{
				FS:       treetest.Path{Dir: mnt},
				Manifest: fixture.Manifest(model, url, "30.0", true),
			})
		})
	}
}
