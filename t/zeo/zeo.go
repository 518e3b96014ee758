// Package zeo runs real ZEO servers and Python clients of them for tests and benchmarks.
//
// It owns the processes it starts, ends them when the test does, and writes only below the test's
// temporary directory. The servers are runzeo of ZEO 5 and 6 as t/setup installs them.
package zeo

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wcfs/t/wait"
)

// TB is what of testing.TB is used here, so that benchmarks that are no tests can be run as well.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(fn func())
	TempDir() string
}

// Config says how a server is to be run.
type Config struct {
	Version  int    // 5 or 6
	Msgpack  bool   // protocol M5 instead of Z5
	Unix     bool   // a Unix socket instead of TCP
	Storage  string // name of the storage; "1" if empty
	Data     string // path of the FileStorage; made if empty
	ReadOnly bool   // the server's read-only switch
	Queue    int    // invalidation-queue-size; 0 for the server's own default
	Certs    *Certs // TLS with client certificates
	Section  string // what is served, as ZODB configuration; a FileStorage of Data if empty
}

func (c Config) String() string {
	s := fmt.Sprintf("ZEO%d-%s", c.Version, map[bool]string{false: "Z5", true: "M5"}[c.Msgpack])
	if c.Unix {
		s += "-unix"
	}
	if c.Certs != nil {
		s += "-TLS"
	}
	return s
}

// Matrix is both versions with both protocols.
func Matrix() []Config {
	return []Config{
		{Version: 5}, {Version: 5, Msgpack: true, Unix: true},
		{Version: 6, Unix: true}, {Version: 6, Msgpack: true},
	}
}

// Server is a ZEO server in a process of its own.
type Server struct {
	t    TB
	cfg  Config
	dir  string
	Data string // path of the FileStorage
	Addr string // host:port or path of a socket
	log  *os.File
	cmd  *exec.Cmd
}

// Root returns the root of the repository.
func Root(t TB) string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("no go.mod above the working directory: %v", err)
	return ""
}

// Python returns the interpreter of the environment that has this version of ZEO.
func Python(t TB, version int) string {
	p := filepath.Join(Root(t), ".deps", fmt.Sprintf("py%d", version), "bin", "python")
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run t/setup first", err)
	}
	return p
}

// Start runs a server and waits until it can be connected to.
func Start(t TB, cfg Config) *Server {
	t.Helper()
	if cfg.Storage == "" {
		cfg.Storage = "1"
	}
	// Not t.TempDir: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "zeo")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, cfg: cfg, dir: dir, Data: cfg.Data}
	if s.Data == "" {
		s.Data = filepath.Join(dir, "Data.fs")
	}
	s.Addr = filepath.Join(dir, "zeo.sock")
	if !cfg.Unix {
		s.Addr = FreeAddr(t)
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "zeo.conf"), []byte(s.config()), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			if b, err := os.ReadFile(s.log.Name()); err == nil {
				t.Logf("end of the log of %s:\n%s", cfg, b[max(0, len(b)-4000):])
			}
		}
		s.log.Close()
		os.RemoveAll(dir)
	})
	s.Run()
	return s
}

func (s *Server) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<zeo>\n address %s\n", s.Addr)
	fmt.Fprintf(&b, " pid-filename %s\n", filepath.Join(s.dir, "pid"))
	if s.cfg.ReadOnly {
		fmt.Fprintf(&b, " read-only true\n")
	}
	if s.cfg.Queue != 0 {
		fmt.Fprintf(&b, " invalidation-queue-size %d\n", s.cfg.Queue)
	}
	if c := s.cfg.Certs; c != nil {
		fmt.Fprintf(&b, " <ssl>\n  certificate %s\n  key %s\n  authenticate %s\n </ssl>\n", c.Cert, c.Key, c.CA)
	}
	section := s.cfg.Section
	if section == "" {
		section = fmt.Sprintf("<filestorage %s>\n path %s\n pack-gc false\n</filestorage>\n", s.cfg.Storage, s.Data)
	}
	fmt.Fprintf(&b, "</zeo>\n%s", section)
	return b.String()
}

// Run starts the server again after Kill.
func (s *Server) Run() {
	s.t.Helper()
	s.cmd = exec.Command(Python(s.t, s.cfg.Version), "-m", "ZEO.runzeo", "-C", filepath.Join(s.dir, "zeo.conf"))
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Env = os.Environ()
	if s.cfg.Msgpack {
		s.cmd.Env = append(s.cmd.Env, "ZEO_MSGPACK=1")
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, "the server listens", func() bool {
		nc, err := net.Dial(s.network(), s.Addr)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

func (s *Server) network() string {
	if s.cfg.Unix {
		return "unix"
	}
	return "tcp"
}

// URL returns the database URL; more are further parameters.
func (s *Server) URL(more ...string) string {
	return URL(s.network(), s.Addr, append([]string{"storage=" + s.cfg.Storage}, more...)...)
}

// URL makes a database URL.
func URL(network, addr string, params ...string) string {
	if network == "unix" {
		return "zeo://" + addr + "?" + strings.Join(params, "&")
	}
	return "zeo://" + addr + "/?" + strings.Join(params, "&")
}

// Kill ends the server at once, with SIGKILL.
func (s *Server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// Signal sends sig to the server: SIGSTOP, SIGCONT.
func (s *Server) Signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// CPU returns the processor time that the server has used.
func (s *Server) CPU() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	// The fields after the name in parentheses; user and system time are the 14th and 15th of all, in
	// hundredths of a second (USER_HZ).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// FreeAddr returns a loopback address that nobody listens on, and that stays free for this process.
func FreeAddr(t TB) string {
	port, err := wait.FindPort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Eventually waits for a condition, for a time that is enough on a slow machine.
func Eventually(t TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(wait.Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain: %s", what)
		}
	}
}

// Content is the object record that the Python client stores as revision i of oid in a burst.
func Content(oid uint64, i, size int) []byte {
	head := fmt.Appendf(nil, "%d %d ", oid, i)
	return Record(bytes.Repeat(head, size/len(head)+1)[:size])
}

// Record is an object record whose state is these bytes.
func Record(state []byte) []byte {
	b := []byte("\x80\x03cpersistent\nPersistent\n.\x80\x03B")
	b = append(b, byte(len(state)), byte(len(state)>>8), byte(len(state)>>16), byte(len(state)>>24))
	return append(append(b, state...), '.')
}
