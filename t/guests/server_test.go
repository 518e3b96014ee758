package guests

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

	"wcfs/t/py"
	"wcfs/t/said"
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
	serverArgs := []string{"build", "-o", filepath.Join(built, "wcfs"), "wcfs"}
	server := exec.Command("go", serverArgs...)
	server.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{
		server,
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

	cmd  *exec.Cmd
	said *said.Buffer
	done chan struct{} // closed when it has ended
}

// startServer serves the writer's database.
func startServer(t *testing.T, w *writer, pintimeout time.Duration) *server {
	t.Helper()
	s := &server{t: t, w: w, pintimeout: pintimeout, mnt: t.TempDir(), port: "0", said: new(said.Buffer)}
	t.Cleanup(func() {
		s.end()
		if text := s.said.String(); t.Failed() || strings.Contains(text, "panic") {
			t.Errorf("the server said:\n%s", text)
		}
	})
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.said.Reset()
	s.cmd = exec.Command(filepath.Join(built, "wcfs"), "serve", "--mount", s.mnt, "--9p", "tcp:127.0.0.1:"+s.port,
		"--pintimeout", s.pintimeout.String(), "file://"+s.w.path())
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	eventually(s.t, "the server", func() bool {
		select {
		case <-done:
			s.t.Fatalf("the server ended:\n%s", s.said)
		default:
		}
		_, rest, ok := strings.Cut(s.said.String(), "9p=tcp:")
		if ok {
			addr, _, _ := strings.Cut(rest, " ")
			_, s.port, _ = net.SplitHostPort(strings.TrimSpace(addr))
		}
		f, err := os.Open(filepath.Join(s.mnt, ".wcfs/zurl"))
		if err == nil {
			f.Close()
		}
		return ok && err == nil
	})
}

// end ends the server and waits for it.
func (s *server) end() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Error("the server does not end")
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	_ = syscall.Unmount(s.mnt, 2 /* MNT_DETACH */) // when it was killed
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
const patience = 90 * time.Second

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
