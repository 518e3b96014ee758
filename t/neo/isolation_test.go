package neo_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"wcfs/t/dbisolation"
	"wcfs/t/neo"
	"wcfs/t/served"
)

// TestIsolation: six clients at views of their own while Python commits to a cluster without a pause, over
// each protocol. Once a second something happens to the cluster: a storage is killed or comes back, the primary
// master is killed, a storage is silent for a second. WCFS_SOAK=1: for a minute.
func TestIsolation(t *testing.T) {
	long := 10 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long = time.Minute
	}
	for _, protocol := range []int{6, 5} {
		cfg := neo.Config{Protocol: protocol, Masters: 2, Storages: 2, Partitions: 3, Replicas: 1}
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			isolation(t, cfg, long)
		})
	}
}

func isolation(t *testing.T, cfg neo.Config, long time.Duration) {
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	c := neo.Start(t, cfg)
	w := dbisolation.Start(t, c.Bigfile(), seed, "0")
	mnt := t.TempDir()
	m := served.Serve(t, mnt, exec.Command(wcfs, "serve", "--mount", mnt, c.URL()))
	defer m.End()
	n := 0
	dbisolation.Check(t, mnt, w, seed, long, func() {
		switch n++; n % 5 {
		case 1:
			c.Storages[0].Kill()
		case 2:
			c.Storages[0].Start()
		case 3:
			m := c.Primary()
			m.Kill()
			m.Start()
		case 4:
			c.WaitReplicated()
			c.Storages[1].Freeze()
		case 0:
			c.Storages[1].Thaw()
		}
	})
	if !t.Failed() && n < 3 {
		t.Error("nothing was disturbed")
	}
}
