package lint

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rules are patterns that no file of the project has. Patterns are put together from pieces, so that
// this file does not have them either.
var rules = []struct {
	name  string
	files *regexp.Regexp // paths looked at
	bad   *regexp.Regexp
	why   string
}{
	{"unfinished", anyFile, regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`),
		"work that is left belongs into an issue"},
	{"machine path", anyFile, regexp.MustCompile(`(^|[\s"'=(:])/(wo` + `rk|ro` + `ot|ho` + `me)/`),
		"the project builds and runs wherever it is cloned"},
	{"skip", regexp.MustCompile(`_test\.go$`), regexp.MustCompile(`\bt\.Skip(f|Now)?\(`),
		"a missing prerequisite is a failure: t/setup installs it, and says what it installs"},
	{"outside", regexp.MustCompile(`\.(go|py|sh)$|^Makefile$|^\.ci/|^t/(run|setup)$`), regexp.MustCompile(`\.\./sha` + `red|"sha` + `red"`),
		"a clone has nothing beside it: test data belongs into a testdata folder"},
	{"old random", regexp.MustCompile(`\.go$`), regexp.MustCompile(`"math/` + `rand"`),
		"math/rand/v2 has seeds that replay"},
}

var anyFile = regexp.MustCompile(`.`)

func TestRules(t *testing.T) {
	root := repoRoot(t)
	for _, path := range trackedFiles(t, root) {
		for _, r := range path {
			if r > 126 {
				t.Errorf("%s: file names are ASCII", path)
				break
			}
		}
		if path == "LICENSE" || path == "go.sum" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue // deleted and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(text, []byte("\x7fELF")) {
			t.Errorf("%s: binaries are built, not kept", path)
		}
		for _, rule := range rules {
			if !rule.files.MatchString(path) {
				continue
			}
			for i, line := range strings.Split(string(text), "\n") {
				if rule.bad.MatchString(line) {
					t.Errorf("%s:%d: %s: %s", path, i+1, rule.name, rule.why)
				}
			}
		}
	}
}

// Every rule must be able to fail.
func TestRulesMatch(t *testing.T) {
	for name, line := range map[string]string{
		"unfinished":   "// TO" + "DO: later",
		"machine path": `open("/wo` + `rk/x")`,
		"skip":         "\tt.Sk" + `ip("no qemu")`,
		"outside":      "\t" + `filepath.Join(root, "..", "sha` + `red", "data")`,
		"old random":   "\t" + `"math/` + `rand"`,
	} {
		found := false
		for _, rule := range rules {
			found = found || rule.name == name && rule.bad.MatchString(line)
		}
		if !found {
			t.Errorf("rule %q does not find %q", name, line)
		}
	}
}

func repoRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatalf("git rev-parse: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func trackedFiles(t *testing.T, root string) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}
