// Package p9 tests what docs/9p.md says about serving over 9P.
package p9

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb/fswriter"
)

const page = "../../docs/9p.md"

// blocks returns the fenced blocks of the page whose fence says kind, by what follows it.
func blocks(t *testing.T, kind string) (names, texts []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+kind+" ?(\\S*)\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		names, texts = append(names, m[1]), append(texts, m[2])
	}
	if len(texts) == 0 {
		t.Fatalf("%s has no %s block", page, kind)
	}
	return names, texts
}

// workplace has a database Data.fs and a wcfs on the PATH.
func workplace(t *testing.T) (dir string, env []string) {
	t.Helper()
	dir = t.TempDir()
	w, err := fswriter.Create(filepath.Join(dir, "Data.fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tx := zgen.New(w, zgen.Options{NoModel: true}).Begin()
	oid := tx.NewFile(8192)
	tx.Write(oid, 0, []byte("some data"), zgen.Blk0)
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := served.Build(bin, false, ""); err != nil {
		t.Fatal(err)
	}
	return dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
}

// TestRecipes runs the shell of the page as it is written. It needs openssl and systemd-socket-activate.
func TestRecipes(t *testing.T) {
	dir, env := workplace(t)
	_, texts := blocks(t, "sh")
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-e")
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdin = strings.NewReader("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + strings.Join(texts, "\n"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if n := len(regexp.MustCompile(`(?m)^[0-9a-f]{16}$|[0-9a-f]{16}$`).FindAllString(out.String(), -1)); n < 2 {
		t.Errorf("head/at was not shown twice:\n%s", out.String())
	}
}

// TestUnits has systemd look at the units, with the paths of this machine.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	names, texts := blocks(t, "unit")
	var files []string
	for i, text := range texts {
		file := filepath.Join(dir, names[i])
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/local/bin/wcfs", "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify"}, files...)...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("wcfs")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFstab has mount look at the lines: fields, and options given once.
func TestFstab(t *testing.T) {
	_, texts := blocks(t, "fstab")
	for line := range strings.SplitSeq(strings.TrimSpace(texts[0]), "\n") {
		f := strings.Fields(line)
		if len(f) != 6 || f[2] != "9p" {
			t.Errorf("%q has %d fields", line, len(f))
			continue
		}
		seen := map[string]bool{}
		for o := range strings.SplitSeq(f[3], ",") {
			name, _, _ := strings.Cut(o, "=")
			if seen[name] {
				t.Errorf("%q: %s twice", line, name)
			}
			seen[name] = true
		}
		for _, must := range []string{"trans", "version", "cache", "uname"} {
			if !seen[must] {
				t.Errorf("%q: no %s", line, must)
			}
		}
	}
}

// TestLimits compares the table with what wcfs serve says of itself: every limit and its default.
func TestLimits(t *testing.T) {
	_, env := workplace(t)
	cmd := exec.Command("bash", "-c", "wcfs serve --help")
	cmd.Env = env
	help, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	defaults := map[string]string{}
	for _, m := range regexp.MustCompile(`(--9p-(?:max|[a-z]+-timeout)[a-z-]*)=(\S+)`).FindAllStringSubmatch(string(help), -1) {
		defaults[m[1]] = m[2]
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`--9p.*?) \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		values := strings.Split(m[2], ", ")
		for i, o := range strings.Split(m[1], ", ") {
			value := "missing"
			if i < len(values) {
				value = plain(values[i])
			}
			table[strings.Trim(o, "`")] = value
		}
	}
	if len(defaults) < 11 || !maps.Equal(defaults, table) {
		t.Errorf("wcfs serve has the limits %v,\n%s has %v", defaults, page, table)
	}
}

// plain writes a value of the table as an option: "32 MiB" is 32M, "60 s" is 1m0s, "5 of one" is 5.
func plain(value string) string {
	f := append(strings.Fields(value), "", "")
	n, _ := strconv.Atoi(f[0])
	switch f[1] {
	case "MiB":
		return strconv.Itoa(n) + "M"
	case "s":
		return (time.Duration(n) * time.Second).String()
	}
	return strconv.Itoa(n)
}
