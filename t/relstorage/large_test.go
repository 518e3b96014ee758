package relstorage_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rel "wcfs/t/relstorage"
)

// TestLarge reads a file of 32 MiB over a mount, WCFS_SOAK=1: of 1 GiB, and compares it with what Python reads.
// The server's memory does not grow with the file.
func TestLarge(t *testing.T) {
	blocks, bound := 16, int64(300)
	if os.Getenv("WCFS_SOAK") != "" {
		blocks = 512
	}
	name, _, err := env.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	storage := "postgresql:" + env.PG.DSN(name)
	oid, err := rel.BigFileOutput(t.Context(), "make", storage, fmt.Sprint(blocks))
	if err != nil {
		t.Fatal(err)
	}
	mnt := t.TempDir()
	m, err := rel.NewMount(t.Context(), exec.Command(env.wcfs, "serve", "--mount", mnt, env.PG.URL(name)), mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Open(filepath.Join(mnt, "head/bigfile", strings.TrimSpace(oid)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest := sha256.New()
	n, err := io.Copy(digest, f)
	if err != nil || n != int64(blocks)<<21 {
		t.Fatalf("%d bytes read, %v", n, err)
	}
	kb, err := m.RSS()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB read, %d MiB resident", n>>20, kb>>10)
	if kb>>10 > bound {
		t.Errorf("%d MiB resident; want no more than %d", kb>>10, bound)
	}
	out, err := rel.BigFileOutput(t.Context(), "time", storage)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x", digest.Sum(nil)); !strings.HasSuffix(strings.TrimSpace(out), want) {
		t.Errorf("SHA-256 is %s; Python's %s", want, out)
	}
}
