package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// printed is what wcfs serve --print-config says, by key.
func printed(t *testing.T, args ...string) (values map[string]string, stderr string, code int) {
	t.Helper()
	var out, complaint bytes.Buffer
	code = run(t.Context(), append([]string{"serve", "--print-config"}, args...), &out, &complaint)
	values = map[string]string{}
	for line := range strings.Lines(out.String()) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		values[key] = value
	}
	return values, complaint.String(), code
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wcfs.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPrecedence: the command line counts before the environment, that before the file, that before the default,
// for options of each kind.
func TestPrecedence(t *testing.T) {
	for _, o := range []struct{ name, cli, env, file, def, inFile string }{
		{"pintimeout", "1s", "2s", "3s", `"30s"`, `"3s"`},
		{"read-ahead-kb", "1", "2", "3", "", "3"},
		{"debug", "true", "true", "true", "false", "true"},
		{"on-file-change", "mount", "mount", "mount", `"file"`, `"mount"`},
		{"9p", "unix:/1", "unix:/2", "unix:/3", "", `["unix:/3"]`},
		{"tls-cert", "/1", "/2", "/3", "", `"/3"`},
	} {
		quoted := func(v string) string {
			switch {
			case strings.HasPrefix(o.inFile, "["):
				return `["` + v + `"]`
			case strings.HasPrefix(o.inFile, `"`):
				return `"` + v + `"`
			}
			return v
		}
		path := configFile(t, "zurl = \"file:///d\"\n"+o.name+" = "+o.inFile+"\n")
		check := func(want, from string, args ...string) {
			t.Helper()
			got, stderr, code := printed(t, args...)
			if want != "" {
				want += "  # " + from
			}
			if code != 0 || got[o.name] != want {
				t.Errorf("%s from %s: %q, want %q; exit code %d, %s", o.name, from, got[o.name], want, code, stderr)
			}
		}
		check(o.def, "default", "file:///d")
		check(quoted(o.file), path, "--config", path)
		t.Setenv(envName(o.name), o.env)
		check(quoted(o.env), "$"+envName(o.name), "--config="+path)
		check(quoted(o.cli), "command line", "--config", path, "--"+o.name+"="+o.cli)
		t.Setenv("WCFS_CONFIG", path)
		check(quoted(o.env), "$"+envName(o.name))
		os.Unsetenv("WCFS_CONFIG")
		os.Unsetenv(envName(o.name))
	}
}

// TestConfigRefused: what a configuration file may not have is wrong use, and the message names file and key.
func TestConfigRefused(t *testing.T) {
	for text, say := range map[string]string{
		"pintimeuot = 1":         `"pintimeuot" is no option`,
		"[pintimeout]\nx = 1":    `"pintimeout" is no option`,
		"pintimeout = ":          "wcfs.toml",
		"pintimeout = \"long\"":  "pintimeout",
		"read-ahead-kb = \"x\"":  "read-ahead-kb",
		"on-failure = \"never\"": "on-failure",
	} {
		_, stderr, code := printed(t, "file:///d", "--config", configFile(t, text))
		if code != exitUsage || !strings.Contains(stderr, say) {
			t.Errorf("%q: exit code %d, %s", text, code, stderr)
		}
	}
	if _, stderr, code := printed(t); code != exitUsage || !strings.Contains(stderr, "no database") {
		t.Errorf("without a database: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := printed(t, "file:///d", "--config=/nonexistent/c.toml"); code != exitUsage || !strings.Contains(stderr, "/nonexistent/c.toml") {
		t.Errorf("without the file: exit code %d, %s", code, stderr)
	}
}

// TestPrintedConfig: what --print-config prints is a file that says the same.
func TestPrintedConfig(t *testing.T) {
	var out bytes.Buffer
	args := []string{"serve", "--print-config", "--mount", "/m", "--9p", "unix:/s", "--9p", "tcp:127.0.0.1:1", "--pintimeout=7s", "--debug", "file:///d"}
	if code := run(t.Context(), args, &out, os.Stderr); code != 0 {
		t.Fatal(code)
	}
	first, _, _ := printed(t, args[2:]...)
	again, stderr, code := printed(t, "--config", configFile(t, out.String()))
	if code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	for key, value := range first {
		want, _, _ := strings.Cut(value, "  #")
		if got, _, _ := strings.Cut(again[key], "  #"); got != want {
			t.Errorf("%s: %q became %q", key, want, got)
		}
	}
}
