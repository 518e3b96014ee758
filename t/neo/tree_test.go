package neo_test

import (
	"os/exec"
	"testing"

	"wcfs/t/neo"
	"wcfs/t/served"
	"wcfs/t/zeo"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb"
)

// importer writes what the fixture makes under the tids that it wants, as neomigrate does.
type importer struct{ *neo.Writer }

func (w importer) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	_, err := w.Make(neo.Txn{Objects: objs, Tid: tid})
	return err
}

// TestTree mounts a database in a cluster of each protocol, one of them with TLS, and runs the suite of the
// tree over it.
func TestTree(t *testing.T) {
	for _, cfg := range []neo.Config{
		{Protocol: 6, Storages: 3, Partitions: 5, Replicas: 1},
		{Protocol: 5, Storages: 2, Partitions: 3, Certs: zeo.NewCerts(t)},
	} {
		t.Run(cfg.String(), func(t *testing.T) {
			c := neo.Start(t, cfg)
			model, err := fixture.Make(importer{c.Writer()})
			if err != nil {
				t.Fatal(err)
			}
			mnt := t.TempDir()
			m := served.Serve(t, mnt, exec.Command(wcfs, "serve", "--debug", "--allow-other", "--mount", mnt, c.URL()))
			defer m.End()
			treetest.Run(t, &treetest.Env{
				FS:       treetest.Path{Dir: mnt},
				Manifest: fixture.Manifest(model, c.Normal(), "30.0", true),
			})
		})
	}
}
