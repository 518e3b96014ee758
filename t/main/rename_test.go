package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wcfs/t/py"
)

// TestRename builds and vets a copy of the module under another path: only import lines may depend on it.
func TestRename(t *testing.T) {
	root, dir := py.Root(), t.TempDir()
	module := strings.TrimSpace(output(t, root, "go", "list", "-m"))
	const other = "example.org/team/bigfiles"
	imports := regexp.MustCompile(`(?m)^((?:import)?\s*(?:[\w.]+ )?")` + regexp.QuoteMeta(module) + `/`)
	for _, path := range strings.Split(strings.TrimSuffix(output(t, root, "git", "ls-files", "-z"), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue // deleted and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case path == "go.mod":
			text = bytes.Replace(text, []byte("module "+module+"\n"), []byte("module "+other+"\n"), 1)
		case strings.HasSuffix(path, ".go"):
			text = imports.ReplaceAll(text, []byte("${1}"+other+"/"))
			if i := bytes.Index(text, []byte(`"`+module+`/`)); i >= 0 {
				line, _, _ := bytes.Cut(text[i:], []byte("\n"))
				t.Errorf("%s names the module outside an import: %s", path, line)
			}
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"build", "-o", filepath.Join(dir, "wcfs"), "."}, {"list", "-test", "-deps", "./..."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s as %s: %v\n%s", args[0], other, err, out)
		} else if bytes.Contains(out, []byte("\n"+module+"/")) {
			t.Errorf("as %s it still uses packages of %s", other, module)
		}
	}
}

// output is what a program prints.
func output(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return string(out)
}
