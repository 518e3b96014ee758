package zeo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"wcfs/t/dbisolation"
	"wcfs/t/served"
	zeotest "wcfs/t/zeo"
)

// TestIsolation: six clients at views of their own while Python commits over ZEO without a pause, over both
// versions of the server and both encodings. Once a second wcfs's connection is cut; every fourth time the
// server is killed between two commits and started again. WCFS_SOAK=1: for a minute, one server after the other.
func TestIsolation(t *testing.T) {
	soak := os.Getenv("WCFS_SOAK") != ""
	dir := t.TempDir()
	if err := served.Build(dir, false, ""); err != nil {
		t.Fatal(err)
	}
	wcfs := filepath.Join(dir, "wcfs")
	for i, cfg := range zeotest.Matrix() {
		if i == 2 && !soak { // its version and its encoding are tested with the others
			continue
		}
		cfg.Unix = false // for the writer
		t.Run(cfg.String(), func(t *testing.T) {
			if soak {
				isolation(t, wcfs, cfg, time.Minute)
				return
			}
			t.Parallel()
			isolation(t, wcfs, cfg, 5*time.Second)
		})
	}
}

func isolation(t *testing.T, wcfs string, cfg zeotest.Config, long time.Duration) {
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	cfg.Queue = 100000 // watches at tids that the server has forgotten would be refused
	z := zeotest.Start(t, cfg)
	w := dbisolation.Start(t, "zeo:"+z.Addr, seed, "0")
	p := z.Proxy()
	mnt := t.TempDir()
	m := served.Serve(t, mnt, exec.Command(wcfs, "serve", "--mount", mnt, p.URL()))
	defer m.End()
	n, cut := 0, 0
	dbisolation.Check(t, mnt, w, seed, long, func() {
		if n++; n%4 == 0 {
			// Not in a commit: Python would not learn whether it was made, nor know what to compare with.
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
