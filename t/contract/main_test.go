package contract

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/said"
)

// wcfsPath is the command under test; set by TestMain, then read only.
var wcfsPath string

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		clientMain()
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wcfs-contract-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	wcfsPath = filepath.Join(dir, "wcfs")
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else each process sleeps a second at its end
	args := []string{"build", "-o", wcfsPath}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "wcfs")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience is how long anything may take that should take a moment, on a busy machine.
const patience = 30 * time.Second

// proc is a running server.
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
		p.kill()
		if t.Failed() {
			t.Logf("wcfs %q:\n%s", args, p.log)
		}
		if s := p.log.String(); strings.Contains(s, "DATA RACE") || strings.Contains(s, "panic") {
			t.Errorf("wcfs %q: a data race or a panic\n%s", args, s)
		}
	})
	return p
}

func (p *proc) kill() {
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.cmd.Process.Kill()
	<-p.done
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

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}
