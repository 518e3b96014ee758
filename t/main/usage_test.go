package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What scripts rely on: exit codes, and one line on stderr that says what to do.
func TestBadUse(t *testing.T) {
	zurl, db := database(t)
	mnt, full, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "file")
	bad := filepath.Join(full, "x.fs")
	write(t, bad, "this is not a FileStorage at all, but longer than its header")
	write(t, file, "")
	busy := t.TempDir()
	serve(t, busy, zurl, busy)
	oid := manifest(zurl, db, false).Files[0].Oid.String()

	for _, c := range []struct {
		args string
		code int
		want string // in stderr
	}{
		{"", 2, "Usage"},
		{"-nosuch " + zurl + " " + mnt, 2, "nosuch"},
		{"-pintimeout x " + zurl + " " + mnt, 2, "pintimeout"},
		{"-nosuch " + zurl + " " + mnt, 2, "usage: wcfs [options] ZURL MNT"},
		{"-pintimeout -1s " + zurl + " " + mnt, 2, "usage: wcfs [options] ZURL MNT"},
		{"-pintimeout=0 " + zurl + " " + mnt, 2, "must be more than 0"},
		{"serve --pintimeout 0s --mount " + mnt + " " + zurl, 2, "must be more than 0"},
		{zurl, 2, "usage: wcfs [options] ZURL MNT"},
		{zurl + " " + mnt + " more", 2, "wcfs --help"},
		{"nosuch", 2, "no subcommand"},
		{"nosuch " + mnt, 2, "no subcommand"},
		{"serve " + zurl, 2, "--mount"},
		{"serve --nosuch " + zurl, 2, "--nosuch"},
		{"serve", 2, "zurl"},
		{"serve --mount " + mnt + " --9p unix: " + zurl, 2, "unix:PATH"},
		{"serve --9p tcp:0.0.0.0:0 " + zurl, 2, "--insecure"},
		{"serve --9p unix:/x --9p-map m " + zurl, 2, "tls:HOST:PORT only"},
		{"serve --mount " + mnt + " --read-ahead-kb=-1 " + zurl, 2, "--read-ahead-kb"},
		{"serve --mount " + mnt + " --pintimeout=-1s " + zurl, 2, "--pintimeout"},
		{"serve --mount " + mnt + " --storage-password-file /nonexistent/pw postgresql://127.0.0.1:1/db", 1, "password file"},
		{"serve --mount " + mnt + " postgresql://127.0.0.1:1/db", 1, "connection refused"},
		{"neo://127.0.0.1:1/c " + mnt, 2, "write neo://c@127.0.0.1:1"},
		{"neos://c@127.0.0.1:1/ " + mnt, 2, "$NEO_CA"},
		{"memory:// " + mnt, 2, "MappingStorage"},
		{"zope://x " + mnt, 2, "known are demo, file, neo, neos, postgres"},
		{bad + " " + mnt, 2, "file:///"},
		{"postgresql://u:hunter2@127.0.0.1/db " + mnt, 2, "PGPASSFILE"},
		{"demo:(file:///a)/(postgresql://u:hunter2@h/db) " + mnt, 2, "--storage-password-file"},
		{"xyz://u:hunter2@h/db " + mnt, 2, "known are"},
		{"file:///nonexistent/Data.fs " + mnt, 1, "/nonexistent/Data.fs"},
		{"file://" + bad + " " + mnt, 1, bad},
		{"file://" + file + " " + mnt, 1, file},
		{"file://" + full + " " + mnt, 1, full},
		{zurl + " /nonexistent/mnt", 1, "mkdir"},
		{zurl + " " + full, 1, "not empty"},
		{zurl + " " + file, 1, "not a directory"},
		{zurl + " " + busy, 1, "mounted already"},
		{"file:Data.fs " + mnt, 2, "file:///path"},
		{"zeo:foo " + mnt, 2, "zeo://host:port"},
		{"sqlite:foo " + mnt, 2, "sqlite:///path"},
		{"postgresql:foo " + mnt, 2, "postgresql://user@host"},
		{"demo:foo " + mnt, 2, "demo:(base"},
		{"status " + mnt, 1, ""},
		{"status memory://x", 2, "MappingStorage"},
		{"stop unix:/x", 1, "no server listens"},
		{"stop tcp:127.0.0.1:1", 2, "mount directory"},
		{"watch " + zurl + " " + oid, 2, "mount directory"},
		{"watch " + mnt + " " + oid, 1, "no wcfs is mounted"},
		{"dial tcp:127.0.0.1:1 --listen unix:/x", 2, "tls:HOST:PORT"},
		{"dial tls:127.0.0.1:1 --listen unix:/x", 2, "--tls-cert"},
		{"stop " + mnt, 1, "nothing is mounted"},
		{"cat " + zurl + " head/bigfile/0000000000000000", 1, "head/bigfile/0000000000000000: no bigfile has this oid"},
		{"cat " + busy + " head/bigfile/0000000000000000", 1, "head/bigfile/0000000000000000: no bigfile has this oid"},
		{"cat " + busy + " head/bigfile/0", 1, "16 hex digits"},
		{"cat --at fffffffffffffff0 " + busy + " " + oid, 1, "has not come to revision"},
		{"cat " + zurl + " nosuch", 1, "nosuch: there is no such file"},
		{"cat " + busy + " nosuch", 1, "nosuch: there is no such file"},
		{"cat " + busy + " head", 1, "wcfs ls"},
		{"ls " + mnt + " head", 1, "no wcfs is mounted there"},
		{"ls /nonexistent /", 1, "/nonexistent"},
		{"ls unix:/nonexistent/sock /", 1, "/nonexistent/sock"},
		{"ls tcp:127.0.0.1 /", 2, "HOST:PORT"},
		{"ls tls:127.0.0.1:1 /", 2, "--tls-cert"},
		{"history " + zurl + " 12", 2, "OID"},
		{"history --blocks 5-2 " + zurl + " " + oid, 2, "--blocks"},
		{"history " + zurl + " 0000000000000000", 1, "not a ZBigFile"},
	} {
		stdout, stderr, code := run(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("wcfs %s: exit %d, want %d, and %q in:\n%s", c.args, code, c.code, c.want, stderr)
		}
		if c.args != "" && c.want != "" && strings.Count(errorLines(stderr), "\n") != 1 {
			t.Errorf("wcfs %s: more than one line:\n%s", c.args, stderr)
		}
		if strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("wcfs %s: shows a password:\n%s", c.args, stderr)
		}
		if m := mountOf(t, mnt); m != nil {
			t.Fatalf("wcfs %s: left a mount: %q", c.args, m)
		}
	}
}

// errorLines drops log lines.
func errorLines(stderr string) string {
	var b strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "time=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"-h", "--help", "-debug -h", "serve --help", "history --help"} {
		stdout, stderr, code := run(t, strings.Fields(args)...)
		if code != 0 || !strings.Contains(strings.ToLower(stdout), "usage") || stderr != "" {
			t.Errorf("wcfs %s: exit %d\n%s\n%s", args, code, stdout, stderr)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
