package zeo_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"wcfs/t/rel"
	"wcfs/t/stamp"
	zeotest "wcfs/t/zeo"
)

// TestIsolation: six clients at views of their own while Python commits over ZEO without a pause. Once a
// second wcfs's connection is cut; every fourth time the server is killed between two commits and started again.
// WCFS_SOAK=1: for a minute.
func TestIsolation(t *testing.T) {
	long := 8 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long = time.Minute
	}
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	// Watches at tids that the server has forgotten would be refused.
	z := zeotest.Start(t, zeotest.Config{Version: 5, Queue: 100000})
	w := stamp.Start(t, "zeo:"+z.Addr, seed, "0")
	p := z.Proxy()
	dir, mnt := t.TempDir(), t.TempDir()
	wcfs, err := rel.BuildWCFS(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := rel.NewMount(t.Context(), exec.Command(wcfs, "serve", "--mount", mnt, p.URL()), mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	n, cut := 0, 0
	stamp.Check(t, mnt, w, seed, long, func() {
		if n++; n%4 == 0 {
			// Not in a commit: a FileStorage that cuts off the rest of one when it is opened gives that one's
			// tid as its last transaction, and there would be nothing to compare that head with.
			w.Pause(t, func() {
				z.Kill()
				z.Run()
			})
		}
		cut += p.Cut()
	})
	t.Logf("%d connections cut, %d restarts", cut, n/4)
	if !t.Failed() && (cut == 0 || n < 4) {
		t.Error("nothing was disturbed")
	}
}
