package neo_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	rel "wcfs/t/relstorage"
	"wcfs/t/served"
	"wcfs/t/zeo"
)

// hosts are three on one machine: addresses of the loopback interface.
type hosts struct {
	t     *testing.T
	steps map[string]string
	dir   string
	env   []string
}

func newHosts(t *testing.T) *hosts {
	t.Helper()
	root := zeo.Root(t)
	doc, err := os.ReadFile(filepath.Join(root, "docs/storages.md"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hosts{t: t, steps: map[string]string{}, dir: t.TempDir()}
	for _, m := range regexp.MustCompile("(?s)<!-- recipe: (\\w+) -->\n```sh\n(.*?)```").FindAllSubmatch(doc, -1) {
		h.steps[string(m[1])] = string(m[2])
	}
	port := func() string {
		_, port, _ := net.SplitHostPort(zeo.FreeAddr(t))
		return port
	}
	h.env = append(os.Environ(), "DATA="+filepath.Join(h.dir, "Data.fs"), "DB1=127.0.0.1", "DB2=127.0.0.2",
		"MASTER="+port(), "ADMIN="+port(),
		"PATH="+strings.Join([]string{filepath.Dir(wcfs), filepath.Join(root, ".deps/neo/servers/bin"), os.Getenv("PATH")}, ":"))
	return h
}

// on is a step on a host.
func (h *hosts) on(ctx context.Context, host, step string) *exec.Cmd {
	h.t.Helper()
	if h.steps[step] == "" {
		h.t.Fatalf("docs/storages.md has no recipe %s", step)
	}
	dir := filepath.Join(h.dir, host)
	if err := os.MkdirAll(filepath.Join(dir, "mnt"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -euo pipefail\n"+h.steps["neo_names"]+h.steps[step])
	cmd.Dir = dir
	cmd.Env = append(h.env, "HERE="+host, "STORE="+dir, "MNT="+filepath.Join(dir, "mnt"))
	return cmd
}

// stay starts a step that stays in the foreground, until the test ends or the returned function is called.
func (h *hosts) stay(host, step string) (kill func()) {
	h.t.Helper()
	cmd := h.on(context.Background(), host, step)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	h.t.Cleanup(func() {
		kill()
		if h.t.Failed() {
			h.t.Logf("%s on %s: %s", step, host, &said)
		}
	})
	return kill
}

func (h *hosts) run(host, step string) string {
	h.t.Helper()
	out, err := h.on(h.t.Context(), host, step).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", step, err, out)
	}
	return string(out)
}

// TestRecipe runs what docs/storages.md says of NEO, as written: two masters, three storages, one more copy of
// everything, wcfs on two hosts. Then db1 loses its master and its storage.
func TestRecipe(t *testing.T) {
	h := newHosts(t)
	var data string
	for _, v := range h.env {
		if s, ok := strings.CutPrefix(v, "DATA="); ok {
			data = s
		}
	}
	oid, err := rel.BigFileOutput(t.Context(), "make", "file:"+data, "3")
	if err != nil {
		t.Fatal(err)
	}
	oid = strings.TrimSpace(oid)
	db := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	killMaster := h.stay(db[0], "neo_master")
	h.stay(db[1], "neo_master")
	killStorage := h.stay(db[0], "neo_storage")
	h.stay(db[1], "neo_storage")
	h.stay(db[2], "neo_storage")
	h.stay(db[0], "neo_admin")
	if out := h.run(db[0], "neo_running"); strings.Count(out, "U") < 24 {
		t.Errorf("not all of 12 partitions have two copies:\n%s", out)
	}
	h.run(db[0], "neo_convert")
	var mnts []string
	for _, host := range db[:2] {
		mnt := filepath.Join(h.dir, host, "mnt")
		cmd := h.on(context.Background(), host, "neo_wcfs")
		defer served.Serve(t, mnt, cmd).End()
		mnts = append(mnts, mnt)
	}

	killMaster()
	killStorage()
	h.stay(db[1], "neo_admin")
	h.run(db[1], "neo_lost")
	var where string
	for _, v := range h.env {
		if port, ok := strings.CutPrefix(v, "MASTER="); ok {
			where = "neo:6:zope:127.0.0.1:" + port + ",127.0.0.2:" + port
		}
	}
	tid, err := rel.BigFileOutput(t.Context(), "set", where, "1", "changed")
	if err != nil {
		t.Fatal(err)
	}
	for _, mnt := range mnts {
		zeo.Eventually(t, mnt+" shows the commit", func() bool {
			at, err := os.ReadFile(filepath.Join(mnt, "head/at"))
			return err == nil && strings.TrimSpace(string(at)) == strings.TrimSpace(tid)
		})
		f, err := os.Open(filepath.Join(mnt, "head/bigfile", oid))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8)
		if _, err := f.ReadAt(got, 2<<20); err != nil || string(got) != "changed\x00" {
			t.Errorf("block 1 begins with %q, %v", got, err)
		}
		f.Close()
	}
}
