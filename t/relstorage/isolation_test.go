package relstorage_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"wcfs/t/dbisolation"
	"wcfs/t/served"
)

// TestIsolation: six clients at views of their own while Python commits to PostgreSQL and the server
// ends wcfs's connections once a second. WCFS_SOAK=1: for a minute.
func TestIsolation(t *testing.T) {
	long := 3 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long = time.Minute
	}
	name, _, err := env.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	w := dbisolation.Start(t, "postgresql:"+env.PG.DSN(name), seed)
	mnt := t.TempDir()
	m := served.Serve(t, mnt, exec.Command(env.wcfs, "serve", "--mount", mnt, env.PG.URL(name)))
	defer m.End()
	dbisolation.Check(t, mnt, w, seed, long, func() {
		if err := env.PG.Exec(t.Context(), name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wcfs'"); err != nil {
			t.Error(err)
		}
	})
}
