// Package main_test runs the real command: processes, mounts, signals, exit codes and what it prints.
//
// It owns the binary it builds (with the race detector when the tests have it), and every process and
// mount that it makes.
package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/said"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb/fswriter"
)

// wcfsPath is the command under test; set by TestMain, then read only.
var wcfsPath string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wcfs-main-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	wcfsPath = filepath.Join(dir, "wcfs")
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else each of hundreds of processes sleeps a second at its end
	args := []string{"build", "-o", wcfsPath}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "wcfs")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is how long anything may take that should take a moment, on a busy machine.
const patience = 60 * time.Second

// run runs the command to its end.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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

// proc is a running command.
type proc struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *said.Buffer // stdout and stderr
	done chan struct{}
}

// spawn starts the command; it is killed when the test ends.
func spawn(t *testing.T, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(wcfsPath, args...), log: new(said.Buffer), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGCONT)
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("wcfs %q:\n%s", args, p.log)
		}
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("wcfs %q: a data race\n%s", args, p.log)
		}
	})
	return p
}

// serve starts a server at mnt and waits until it is ready.
func serve(t *testing.T, mnt string, args ...string) *proc {
	t.Helper()
	t.Cleanup(func() { detach(mnt) }) // runs after the process is gone
	p := spawn(t, args...)
	p.ready(mnt)
	return p
}

// ready waits until .wcfs/zurl can be opened.
func (p *proc) ready(mnt string) {
	p.t.Helper()
	eventually(p.t, "ready at "+mnt, func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("the server ended: %v\n%s", p.cmd.ProcessState, p.log)
		default:
		}
		f, err := os.Open(filepath.Join(mnt, ".wcfs/zurl"))
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}

// wait waits for the end and returns the exit code.
func (p *proc) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("still running:\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// end sends SIGTERM and expects success.
func (p *proc) end() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		p.t.Errorf("exit code %d after SIGTERM\n%s", code, p.log)
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
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

func detach(mnt string) { syscall.Unmount(mnt, 2 /* MNT_DETACH */) }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
