package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManual: a page for the command and for each subcommand, with each of its options, which mandoc takes without
// an error or warning.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), []string{"manual", dir}, os.Stdout, os.Stderr); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "wcfs*.1"))
	if err != nil || len(pages) < 13 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	// The pages carry no date, so that building again gives the same bytes.
	out, err := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "missing date") {
			t.Errorf("%s", line)
		}
	}
	if len(out) == 0 && err != nil {
		t.Error(err)
	}
	serve, err := os.ReadFile(filepath.Join(dir, "wcfs-serve.1"))
	if err != nil || !bytes.Contains(serve, []byte(`\fB\-\-pintimeout\fR=\fI30s\fR`)) {
		t.Errorf("wcfs-serve.1 lacks an option: %v\n%s", err, serve)
	}
}

// TestCompletion: each shell takes its script, and bash completes by it.
func TestCompletion(t *testing.T) {
	for shell, check := range map[string]string{"bash": "-n", "zsh": "-n", "fish": "-n"} {
		var script, stderr bytes.Buffer
		if code := run(t.Context(), []string{"completion", shell}, &script, &stderr); code != 0 {
			t.Fatalf("%s: exit code %d: %s", shell, code, &stderr)
		}
		path := filepath.Join(t.TempDir(), shell)
		if err := os.WriteFile(path, script.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(shell, check, path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
		if shell != "bash" {
			continue
		}
		for _, c := range []struct{ words, want string }{
			{"wcfs sta", "status stat"}, {"wcfs serve --pint", "--pintimeout"}, {"wcfs serve --on-failure = e", "exit"}, {"wcfs man", ""},
		} {
			words := strings.Fields(c.words)
			program := `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _wcfs; echo "${COMPREPLY[*]}"`
			out, err := exec.Command("bash", append([]string{"-c", program, "bash", path}, words...)...).Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Errorf("%q is completed by %q, want %q; %v", c.words, got, c.want, err)
			}
		}
	}
}
