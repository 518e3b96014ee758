package relstorage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	rel "wcfs/t/relstorage"
	"wcfs/t/served"
	"wcfs/t/wait"
)

var patience = wait.Patience

// recipe returns the commands that docs/storages.md gives, by name.
func recipe(t *testing.T) map[string]string {
	t.Helper()
	root, err := rel.Root()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs/storages.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- recipe: (\\w+) -->\n```sh\n(.*?)```").FindAllSubmatch(doc, -1) {
		steps[string(m[1])] = string(m[2])
	}
	return steps
}

// host is where steps of the recipe are run.
type host struct {
	t     *testing.T
	steps map[string]string
	dir   string
	env   []string
}

// script returns the text of a step after the names.
func (h *host) script(step string) string {
	h.t.Helper()
	if h.steps[step] == "" {
		h.t.Fatalf("docs/storages.md has no recipe step %s", step)
	}
	return "set -euo pipefail\n" + h.steps["names"] + h.steps[step]
}

func (h *host) run(cmd *exec.Cmd, env ...string) {
	h.t.Helper()
	cmd.Env = append(append(os.Environ(), h.env...), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func (h *host) step(step string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), "bash", "-c", h.script(step))
	cmd.Dir = h.dir
	h.run(cmd)
}

// serve runs the last step of a host, and returns where it serves.
func (h *host) serve(step string) (mnt string) {
	h.t.Helper()
	mnt = filepath.Join(h.dir, step)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", h.script(step))
	cmd.Env = append(append(os.Environ(), h.env...), "MNT="+mnt)
	h.t.Cleanup(served.Serve(h.t, mnt, cmd).End)
	return mnt
}

// TestRecipe runs what docs/storages.md says, as written: FileStorage, PostgreSQL, a standby, two hosts.
func TestRecipe(t *testing.T) {
	ctx := t.Context()
	h := &host{t: t, steps: recipe(t), dir: t.TempDir()}
	primary, err := rel.NewPostgres(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Close)
	py, err := rel.PythonPath()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(h.dir, "Data.fs")
	oid, err := rel.BigFileOutput(ctx, "make", "file:"+data, "3")
	if err != nil {
		t.Fatal(err)
	}
	oid = strings.TrimSpace(oid)
	standbyDir := filepath.Join(primary.Dir, "standby") // the server's user may write there
	h.env = []string{
		"PATH=" + strings.Join([]string{filepath.Dir(env.wcfs), filepath.Dir(py), primary.BinDir(), os.Getenv("PATH")}, ":"),
		"PGUSER=" + rel.User, "DATA=" + data,
		"PRIMARY=" + primary.Dir, "STANDBY=" + standbyDir, "STANDBY_DATA=" + filepath.Join(standbyDir, "data"),
		// Without these the standby would listen where the machine's own server does.
		"STANDBY_OPTIONS=-k " + standbyDir + " -c listen_addresses= -c fsync=off",
	}
	h.run(primary.AsServer(ctx, "mkdir", standbyDir))

	h.step("primary")
	h.step("convert")
	h.step("compare")
	h.run(primary.AsServer(ctx, "bash", "-c", h.script("standby")))
	t.Cleanup(func() {
		stop := primary.Tool(context.Background(), "pg_ctl", "-D", filepath.Join(standbyDir, "data"), "-m", "immediate", "-w", "stop")
		if out, err := stop.CombinedOutput(); err != nil {
			t.Errorf("stop of the standby: %v: %s", err, out)
		}
	})
	hosts := []string{h.serve("host1"), h.serve("host2")}

	before := contents(t, hosts[0], "head", oid)
	first := string(contents(t, hosts[0], "head/at"))
	storage := "postgresql:" + primary.DSN("zodb")
	checkPython(t, storage, before)
	tid, err := rel.BigFileOutput(ctx, "set", storage, "1", "changed")
	if err != nil {
		t.Fatal(err)
	}
	tid = strings.TrimSpace(tid)
	for i, mnt := range hosts {
		for end := time.Now().Add(patience); string(contents(t, mnt, "head/at")) != tid; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("host %d: head/at is %s, not %s", i+1, contents(t, mnt, "head/at"), tid)
			}
		}
		after := contents(t, mnt, "head", oid)
		checkPython(t, storage, after)
		if bytes.Equal(before, after) {
			t.Errorf("host %d: nothing changed", i+1)
		}
		if old := contents(t, mnt, "@"+first, oid); !bytes.Equal(old, before) {
			t.Errorf("host %d: @%s is not what it was", i+1, first)
		}
	}
}

// contents reads a file of a mount, or of a bigfile at a revision.
func contents(t *testing.T, mnt, rev string, oid ...string) []byte {
	t.Helper()
	path := filepath.Join(mnt, rev)
	if len(oid) > 0 {
		path = filepath.Join(path, "bigfile", oid[0])
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkPython compares with what Python reads.
func checkPython(t *testing.T, storage string, got []byte) {
	t.Helper()
	out, err := rel.BigFileOutput(t.Context(), "time", storage)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields(out)[1]; fmt.Sprintf("%x", sha256.Sum256(got)) != want {
		t.Errorf("%d bytes are not what Python reads", len(got))
	}
}
