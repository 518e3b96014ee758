// Package main_test runs the real command: processes, mounts, signals, exit codes and what it prints.
//
// It owns every process and mount that it makes; wcfs/t/served builds and runs the command.
package main_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb/fswriter"
)

// wcfsPath is the command under test; set by TestMain, then read only.
var wcfsPath string

func TestMain(m *testing.M) { os.Exit(served.Main(m, func(wcfs string) { wcfsPath = wcfs })) }

// run runs the command to its end.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), served.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, wcfsPath, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // shows where it hangs
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("wcfs %q: %v\n%s", args, errors.Join(err, ctx.Err()), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustRun runs the command, which must succeed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := run(t, args...)
	if code != 0 {
		t.Fatalf("wcfs %q: exit %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// spawn starts the command; it is killed when the test ends.
func spawn(t *testing.T, args ...string) *served.Proc {
	t.Helper()
	return served.Start(t, exec.Command(wcfsPath, args...))
}

// serve starts a server at mnt and waits until it is ready.
func serve(t *testing.T, mnt string, args ...string) *served.Proc {
	t.Helper()
	return served.Serve(t, mnt, exec.Command(wcfsPath, args...))
}

// database writes the usual database and returns its URL and what it holds.
func database(t *testing.T) (zurl string, db *zgen.DB) {
	t.Helper()
	return databaseAt(t, filepath.Join(t.TempDir(), "Data.fs"))
}

func databaseAt(t *testing.T, path string) (zurl string, db *zgen.DB) {
	t.Helper()
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if db, err = fixture.Make(w); err != nil {
		t.Fatal(err)
	}
	return "file://" + path, db
}

func manifest(zurl string, db *zgen.DB, debug bool) *treetest.Manifest {
	return fixture.Manifest(db, zurl, "30.0", debug)
}

// mounts lists the mounts of wcfs: fields of the mount table.
func mounts(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var list [][]string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "fuse.wcfs" {
			list = append(list, f)
		}
	}
	return list
}

// mountOf returns the entry of mnt, nil if there is none.
func mountOf(t *testing.T, mnt string) []string {
	t.Helper()
	for _, m := range mounts(t) {
		if m[1] == mnt {
			return m
		}
	}
	return nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
