package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
)

// state is what a server is at when a signal comes.
type state struct {
	name string
	// enter brings a server that serves at mnt into it; held is a file that it leaves open.
	enter func(t *testing.T, p *served.Proc, path, mnt string) (held io.Closer)
	dead  bool // accesses to the mount fail
	busy  bool
}

func states() []state {
	none := func(*testing.T, *served.Proc, string, string) io.Closer { return nil }
	return []state{
		{name: "serving", enter: none},
		{name: "busy", busy: true, enter: func(t *testing.T, _ *served.Proc, _, mnt string) io.Closer {
			f, err := os.Open(filepath.Join(mnt, "head/at"))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}},
		{name: "database away", enter: func(t *testing.T, _ *served.Proc, path, _ string) io.Closer {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
		{name: "EIO mode", dead: true, enter: func(t *testing.T, _ *served.Proc, path, mnt string) io.Closer {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
			served.Eventually(t, "ENOTCONN", func() bool {
				_, err := os.Stat(filepath.Join(mnt, "head/at"))
				return errors.Is(err, syscall.ENOTCONN)
			})
			return nil
		}},
	}
}

// Every signal, in both forms of use, whatever the server is at.
func TestSignals(t *testing.T) {
	for _, dropIn := range []bool{false, true} {
		for _, st := range states() {
			for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTERM, syscall.SIGINT} {
				name := "serve/"
				if dropIn {
					name = "drop-in/"
				}
				t.Run(name+st.name+"/"+sig.String(), func(t *testing.T) { testSignal(t, dropIn, st, sig) })
			}
		}
	}
}

func testSignal(t *testing.T, dropIn bool, st state, sig syscall.Signal) {
	path, mnt := filepath.Join(t.TempDir(), "Data.fs"), t.TempDir()
	zurl, _ := databaseAt(t, path)
	args := []string{"serve", "--mount", mnt, zurl}
	if dropIn {
		args = []string{zurl, mnt}
	}
	p := serve(t, mnt, args...)
	held := st.enter(t, p, path, mnt)
	if held != nil {
		defer held.Close()
	}
	if err := p.Cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig != syscall.SIGTERM && sig != syscall.SIGINT {
		said := map[syscall.Signal]string{syscall.SIGHUP: "nothing to read anew", syscall.SIGUSR1: "level=DEBUG", syscall.SIGUSR2: "no meaning", syscall.SIGQUIT: "goroutine "}
		p.Until("it says what the signal does", func() bool { return strings.Contains(p.Log.String(), said[sig]) })
		if _, err := os.ReadFile(filepath.Join(mnt, "head/at")); (err != nil) != st.dead {
			t.Errorf("after %v: %v", sig, err)
		}
		sig = syscall.SIGTERM
		p.Cmd.Process.Signal(sig)
	}
	code, want := p.Wait(), 0
	if st.dead { // it had failed, and says so at its end
		want = 1
	}
	left := mountOf(t, mnt) != nil
	if keep := dropIn && st.busy; left != keep || code != want {
		t.Errorf("after %v: exit %d, a mount left: %v", sig, code, left)
	}
	if st.busy && !strings.Contains(p.Log.String(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("it does not tell who holds the mount: %s", p.Log)
	}
	if left { // dead, and for existing clients to see
		if _, err := os.Stat(filepath.Join(mnt, "head/at")); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("the mount that is left: %v, want ENOTCONN", err)
		}
	}
}

// A database server that does not answer: the command is still starting.
func TestSignalWhileStarting(t *testing.T) {
	silent := listenSilent(t)
	for _, dropIn := range []bool{false, true} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			mnt := t.TempDir()
			args := []string{"serve", "--mount", mnt, "zeo://" + silent}
			if dropIn {
				args = []string{"zeo://" + silent, mnt}
			}
			p := spawn(t, args...)
			p.Until("it starts", func() bool { return strings.Contains(p.Log.String(), "starting") })
			p.Cmd.Process.Signal(syscall.SIGHUP)
			p.Until("it goes on", func() bool { return strings.Contains(p.Log.String(), "SIGHUP") })
			p.Cmd.Process.Signal(sig)
			code := p.Wait()
			var said []string
			for line := range strings.Lines(p.Log.String()) {
				if strings.HasPrefix(line, "wcfs:") {
					said = append(said, line)
				}
			}
			if code != 1 || len(said) != 1 || !strings.Contains(said[0], "interrupted") || mountOf(t, mnt) != nil {
				t.Errorf("%v: exit %d, %q", sig, code, p.Log)
			}
		}
	}
}

// The reader of stderr goes away, or is there and reads nothing: lines of the log are lost and nothing else.
func TestStderrLost(t *testing.T) {
	for _, c := range []struct {
		name string
		how  func(r *os.File)
		wrap []string
	}{
		{"gone", func(r *os.File) { r.Close() }, nil},
		{"gone, SIGPIPE ignored", func(r *os.File) { r.Close() }, []string{"sh", "-c", `trap "" PIPE; exec "$@"`, "sh"}},
		{"not read", func(*os.File) {}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			zurl, _ := database(t)
			mnt := t.TempDir()
			t.Cleanup(func() { served.Detach(mnt) })
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			line := append(c.wrap, wcfsPath, "serve", "--mount", mnt, zurl)
			cmd := exec.Command(line[0], line[1:]...)
			cmd.Stderr = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			served.Eventually(t, "it serves", func() bool { _, err := os.ReadFile(filepath.Join(mnt, "head/at")); return err == nil })
			c.how(r)
			// more than a pipe takes
			for range 40 {
				for range 50 {
					cmd.Process.Signal(syscall.SIGQUIT)
				}
				if _, err := os.ReadFile(filepath.Join(mnt, "head/at")); err != nil {
					t.Fatal(err)
				}
			}
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(served.Patience):
				t.Error("it does not end")
			}
		})
	}
}

// SIGTERM while another mount namespace has a copy of the mount: the server ends and says so.
func TestEndWithCopyInAnotherNamespace(t *testing.T) {
	zurl, _ := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, zurl)
	other := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "echo ready; exec cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.End()
	if !strings.Contains(p.Log.String(), "another mount namespace") {
		t.Errorf("it does not say that a copy is left: %s", p.Log)
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

// The demo never removes what is below a mount that it could not unmount.
func TestDemoOnHangup(t *testing.T) {
	tmp := t.TempDir()
	cmd := exec.Command(wcfsPath, "demo", "--stay", "--every=10ms")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	p := served.Start(t, cmd)
	p.Until("it shows commits", func() bool { return strings.Contains(p.Log.String(), "@") })
	cmd.Process.Signal(syscall.SIGHUP)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit %d: %s", code, p.Log)
	}
	if list, _ := os.ReadDir(tmp); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

// listenSilent is the address of a server that takes connections and says nothing.
func listenSilent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// stop of a bind mount, of all or of a part: the server is everybody's.
func TestStopBindMount(t *testing.T) {
	zurl, _ := database(t)
	mnt, all, part := t.TempDir(), t.TempDir(), t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, zurl)
	for from, to := range map[string]string{mnt: all, mnt + "/head": part} {
		if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { served.Detach(to) })
	}
	for _, dir := range []string{all, part} {
		_, stderr, code := run(t, "stop", dir)
		if code != 1 || !strings.Contains(stderr, "wcfs stop "+mnt) || mountOf(t, dir) == nil {
			t.Errorf("stop of a bind mount: exit %d, %s", code, stderr)
		}
	}
	read(t, filepath.Join(mnt, "head/at"))
	mustRun(t, "stop", "--timeout", "2s", mnt)
	if code := p.Wait(); code != 0 || !strings.Contains(p.Log.String(), part) {
		t.Errorf("exit %d; it does not name the bind mounts that are left: %s", code, p.Log)
	}
}
