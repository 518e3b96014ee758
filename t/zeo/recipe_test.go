package zeo_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	rel "wcfs/t/relstorage"
	"wcfs/t/served"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb/fswriter"
)

func doc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(zeotest.Root(t), "docs", "storages.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRecipes runs what docs/storages.md says of ZEO and DemoStorage, as written.
func TestRecipes(t *testing.T) {
	steps := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- recipe: (\\w+) -->\n```sh\n(.*?)```").FindAllStringSubmatch(doc(t), -1) {
		steps[m[1]] = m[2]
	}
	dir := t.TempDir()
	data, changes, mnt := filepath.Join(dir, "Data.fs"), filepath.Join(dir, "changes.fs"), filepath.Join(dir, "mnt")
	if err := served.Build(dir, false, ""); err != nil {
		t.Fatal(err)
	}
	oid, err := rel.BigFileOutput(t.Context(), "make", "file:"+data, "3")
	if err != nil {
		t.Fatal(err)
	}
	w, err := fswriter.Create(changes)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "DATA="+data, "CHANGES="+changes, "MNT="+mnt, "ZEO="+zeotest.FreeAddr(t),
		"PATH="+strings.Join([]string{dir, filepath.Dir(zeotest.Python(t, 6)), os.Getenv("PATH")}, ":"))
	script := func(step string) *exec.Cmd {
		if steps[step] == "" {
			t.Fatalf("docs/storages.md has no recipe %s", step)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+steps["zeo_names"]+steps[step])
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	run := func(step string) string {
		t.Helper()
		out, err := script(step).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", step, err, out)
		}
		return string(out)
	}
	server := script("zeo_server")
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()

	run("zeo_check")
	if out := run("demo"); strings.TrimSpace(out) != strings.TrimSpace(oid) {
		t.Errorf("demo lists %q; want %q", out, oid)
	}
	m := served.Serve(t, mnt, script("zeo_serve"))
	defer m.End()
	want, err := exec.CommandContext(context.Background(), filepath.Join(dir, "wcfs"), "cat", "file://"+data, "head/at").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(mnt, "head", "at")); err != nil || string(got) != strings.TrimSpace(string(want)) {
		t.Errorf("head/at is %q, %v; want %q", got, err, want)
	}
}

// TestMatrixNamesTests: what the fault matrices say is tested is a test, and each test of a fault is a row.
func TestMatrixNamesTests(t *testing.T) {
	tests := map[string]bool{}
	text := doc(t)
	for _, dir := range []string{"zcore/zodb/zeo", "zcore/zodb/relstorage", "zcore/zodb/neo", "t/relstorage", "t/neo"} {
		files, err := filepath.Glob(filepath.Join(zeotest.Root(t), dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(b, -1) {
				name := string(m[1])
				tests[name] = true
				if filepath.Base(f) == "fault_test.go" && !regexp.MustCompile(`\b`+name+`\b`).MatchString(text) {
					t.Errorf("%s of %s is in no row", name, dir)
				}
			}
		}
	}
	names := regexp.MustCompile(`\bTest\w+`).FindAllString(text, -1)
	if len(names) < 30 {
		t.Errorf("the matrices name %d tests", len(names))
	}
	for _, name := range names {
		if !tests[name] {
			t.Errorf("a matrix names %s, which is no test", name)
		}
	}
}
