// Package served runs the real command for tests: builds it, starts it, waits until it serves, and ends it.
//
// It owns the processes that it starts and the mounts they leave, which are gone when the test has ended.
// It does not write databases, and looks at no file of the tree but .wcfs/zurl.
package served

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/output"
	"wcfs/t/py"
	"wcfs/t/wait"
)

// Patience is wait.Patience.
var Patience = wait.Patience

// Build builds programs of this module into dir: the command as "wcfs" for the package "", others under the last
// element of their path below the module. With the race detector, or static, as guests need them.
func Build(dir string, race bool, packages ...string) error {
	for _, p := range packages {
		exe := filepath.Join(dir, path.Base(p))
		if p == "" {
			exe = filepath.Join(dir, "wcfs")
		}
		cmd := exec.Command("go", "build", "-o", exe)
		if race {
			cmd.Args = append(cmd.Args, "-race")
		} else {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		cmd.Args = append(cmd.Args, "./"+p)
		cmd.Dir = py.Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// Main is TestMain for tests of the command: it builds it, with the race detector if the tests have it, tells set where
// it is, and runs the tests.
func Main(m *testing.M, set func(wcfs string)) int {
	dir, err := os.MkdirTemp("", "wcfs-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Else each of hundreds of processes with the race detector sleeps a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	if err := Build(dir, Race, ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	set(filepath.Join(dir, "wcfs"))
	return m.Run()
}

// Proc is a running command. Cmd may be used to signal its process and, after its end, for its state.
type Proc struct {
	Cmd  *exec.Cmd
	Log  *output.Buffer // stdout and stderr
	Done chan struct{}  // closed at its end
	t    *testing.T
}

// Start starts cmd. It is killed when the test ends; what it said is shown if the test failed, and fails it
// if it tells of a data race or a panic.
func Start(t *testing.T, cmd *exec.Cmd) *Proc {
	t.Helper()
	p := &Proc{t: t, Cmd: cmd, Log: new(output.Buffer), Done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.Done)
	}()
	t.Cleanup(func() {
		p.Kill()
		text := p.Log.String()
		switch {
		case strings.Contains(text, "DATA RACE"), strings.Contains(text, "panic"):
			t.Errorf("%q: a data race or a panic\n%s", cmd.Args, text)
		case t.Failed():
			t.Logf("%q:\n%s", cmd.Args, text)
		}
	})
	return p
}

// Serve starts cmd, which serves at mnt, and waits until it is ready.
func Serve(t *testing.T, mnt string, cmd *exec.Cmd) *Proc {
	t.Helper()
	t.Cleanup(func() { Detach(mnt) }) // runs after the process is gone
	p := Start(t, cmd)
	p.Ready(mnt)
	return p
}

// Detach takes away what is left of a mount.
func Detach(mnt string) { _ = syscall.Unmount(mnt, 2 /* MNT_DETACH */) }

// Ready waits until there is a server at mnt.
func (p *Proc) Ready(mnt string) {
	p.t.Helper()
	p.Until("ready at "+mnt, func() bool {
		f, err := os.Open(filepath.Join(mnt, ".wcfs/zurl")) // a stat may be answered from the cache of a dead mount
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}

// Until waits for cond, or fails when the process ends.
func (p *Proc) Until(what string, cond func() bool) {
	p.t.Helper()
	Eventually(p.t, what, func() bool {
		select {
		case <-p.Done:
			p.t.Fatalf("it ended before: %s: %v\n%s", what, p.Cmd.ProcessState, p.Log)
		default:
		}
		return cond()
	})
}

// Address waits until the log says where the process listens for connections of a kind, such as tcp, and
// returns the rest of the address.
func (p *Proc) Address(kind string) (rest string) {
	p.t.Helper()
	p.Until("an address of "+kind, func() bool {
		_, after, ok := strings.Cut(p.Log.String(), " 9p="+kind+":")
		rest, _, _ = strings.Cut(after, " ")
		return ok && strings.ContainsAny(after, " \n")
	})
	return strings.TrimSpace(rest)
}

// Wait waits for the end and returns the exit code.
func (p *Proc) Wait() int {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(Patience):
		p.t.Fatalf("%q does not end:\n%s", p.Cmd.Args, p.Log)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// End sends SIGTERM and expects success.
func (p *Proc) End() {
	p.t.Helper()
	_ = p.Cmd.Process.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		p.t.Errorf("exit code %d after SIGTERM\n%s", code, p.Log)
	}
}

// Kill ends it by SIGKILL, if it has not ended yet.
func (p *Proc) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.Done
}

// Eventually polls until cond holds.
func Eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	wait.Until(t, what, cond)
}
