package guestisolation

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/output"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/t/wait"
)

// built is where TestMain puts programs; read only afterwards.
var built string

func TestMain(m *testing.M) {
	code, err := 1, build()
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(built)
	os.Exit(code)
}

// build builds the server, and the checker with the C client: static, as guests have no libraries.
func build() (err error) {
	if built, err = os.MkdirTemp("", "wcfs-guests-"); err != nil {
		return err
	}
	client := filepath.Join(py.Root(), "zcore/client/c")
	if err := served.Build(built, false, ""); err != nil {
		return err
	}
	for _, cmd := range []*exec.Cmd{
		exec.Command("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", "-I", client,
			"checker/checker.c", filepath.Join(client, "wcfs.c"), "-o", checker()),
		exec.Command("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", "probes/probes.c",
			"-o", filepath.Join(built, "probes")),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w\n%s", cmd.Args, err, out)
		}
	}
	return nil
}

func checker() string { return filepath.Join(built, "checker") }

// server is a wcfs with both fronts.
type server struct {
	t          *testing.T
	w          *writer
	pintimeout time.Duration
	mnt, port  string // the port stays the same when it is started again

	proc *served.Proc
	said *output.Buffer // by proc
}

// startServer serves the writer's database.
func startServer(t *testing.T, w *writer, pintimeout time.Duration) *server {
	t.Helper()
	s := &server{t: t, w: w, pintimeout: pintimeout, mnt: t.TempDir(), port: "0"}
	s.start()
	t.Cleanup(func() { s.end() })
	return s
}

func (s *server) start() {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(built, "wcfs"), "serve", "--mount", s.mnt, "--9p", "tcp:127.0.0.1:"+s.port,
		"--pintimeout", s.pintimeout.String(), "file://"+s.w.path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.proc = served.Serve(s.t, s.mnt, cmd)
	s.said = s.proc.Log
	_, s.port, _ = net.SplitHostPort(s.proc.Address("tcp"))
}

// end ends the server and waits for it.
func (s *server) end() {
	_ = s.proc.Cmd.Process.Signal(syscall.SIGTERM)
	s.proc.Wait()
	served.Detach(s.mnt) // when it was killed
}

// stat is a number of .wcfs/stats.
func (s *server) stat(name string) int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.mnt, ".wcfs/stats"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(line, "\t: "); k == name {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	s.t.Fatalf("no %s in the statistics", name)
	return 0
}

// check runs the checker on the host.
func (s *server) check(seconds, seed int) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(checker(), checkArgs(s.w, s.mnt, filepath.Join(s.w.logDir(), "log"), seconds, seed)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func checkArgs(w *writer, mnt, log string, seconds, seed int) []string {
	args := []string{"check", mnt, log, strconv.Itoa(seconds), strconv.Itoa(seed)}
	for _, oid := range w.oids {
		args = append(args, oid.String())
	}
	return args
}

// patience is how long may take what should take a moment, on a busy machine.
var patience = wait.Patience

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
