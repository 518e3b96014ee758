package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wcfs/qemu"
	"wcfs/qemu/qemutest"
	"wcfs/t/wait"
)

// TestSmallGuest: a guest with an initramfs only; files, input, output byte for byte, exit status.
func TestSmallGuest(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i))
	}
	all = bytes.Repeat(all, 40)
	res := qemutest.Run(t, qemu.Spec{
		Kernel:  qemutest.Kernel(t, "6.1"),
		Program: []string{"/bin/sh", "-c", `uname -r; cat /data/f; echo "$A|$1" >&2; cat; exit 7`, "sh", "it's"},
		Env:     []string{"PATH=/bin", "A=b  c"},
		Files:   []qemu.File{{Path: "/data/f", Data: []byte("from the host\n"), Mode: 0o644}},
		Stdin:   bytes.NewReader(all),
		Timeout: wait.Patience,
	})
	out := string(res.Output)
	rel, rest, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(rel, "6.1.") {
		t.Errorf("kernel: %q", rel)
	}
	if want := "from the host\nb  c|it's\n" + string(all); rest != want {
		t.Errorf("output differs:\n%q", rest)
	}
	if res.Status != 7 {
		t.Errorf("status %d", res.Status)
	}
}

// TestPanic: a kernel that panics is an error that shows it.
func TestPanic(t *testing.T) {
	qemutest.Turn(t)
	_, err := qemu.Run(t.Context(), qemu.Spec{
		Kernel:  qemutest.Kernel(t, "6.1"),
		Program: []string{"/bin/sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"},
		Timeout: wait.Patience,
	})
	if !errors.Is(err, qemu.ErrPanic) || !strings.Contains(err.Error(), "sysrq triggered crash") {
		t.Errorf("%v", err)
	}
}

// TestEnds: a program that hangs is ended by the timeout, before that a guest that is stopped says
// nothing and goes on when it is continued; QEMU is gone in the end.
func TestEnds(t *testing.T) {
	qemutest.Turn(t)
	var out syncBuffer
	m, err := qemu.Start(t.Context(), qemu.Spec{
		Kernel:  qemutest.Kernel(t, "6.12"),
		Program: []string{"/bin/sh", "-c", "while :; do echo tick; sleep 0.1; done"},
		Stdout:  &out,
		Timeout: 15 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := m.Wait(context.Background())
		ended <- err
	}()
	<-m.Running()
	out.waitFor(t, "tick")
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := out.len()
	time.Sleep(500 * time.Millisecond) // five ticks, were it running
	if n := out.len() - before; n > len("tick\n") {
		t.Errorf("stopped guest wrote %d bytes", n)
	}
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	out.waitGrows(t, before+20)
	if err := <-ended; !errors.Is(err, qemu.ErrTimeout) {
		t.Errorf("%v", err)
	}
	if err := syscall.Kill(m.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("QEMU is still there: %v", err)
	}
}

// TestNoStart: a kernel that does not reach init in time, and one that has none.
func TestNoStart(t *testing.T) {
	qemutest.Turn(t)
	k := qemutest.Kernel(t, "6.1")
	_, err := qemu.Run(t.Context(), qemu.Spec{Kernel: k, Program: []string{"/bin/true"}, Accel: qemu.TCG, BootTimeout: 50 * time.Millisecond})
	if !errors.Is(err, qemu.ErrBoot) || !strings.Contains(err.Error(), "did not reach init within 50ms") {
		t.Errorf("%v", err)
	}
	k.Image = os.Args[0]
	_, err = qemu.Run(t.Context(), qemu.Spec{Kernel: k, Program: []string{"/bin/true"}, Accel: qemu.TCG, BootTimeout: time.Second})
	if !errors.Is(err, qemu.ErrBoot) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	k = qemutest.Kernel(t, "6.1")
	if _, err = qemu.Run(ctx, qemu.Spec{Kernel: k, Program: []string{"/bin/true"}, Accel: qemu.TCG}); err == nil {
		t.Error("a guest ran under a context that had ended")
	}
}

// TestParentDies: QEMU does not outlive the process that started it, however that ends.
func TestParentDies(t *testing.T) {
	qemutest.Turn(t)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "QEMU_TEST_HELPER=start")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("QEMU %d: %v", pid, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "QEMU outlived its parent", func() bool { return gone(pid) })
}

// TestHostRoot: `wcfs run` from a folder below /tmp: the host's root with all that is in it, written to only in the
// guest's memory, fresh folders, a writable share and folder, modules for modprobe, exit status of a signal.
func TestHostRoot(t *testing.T) {
	qemutest.Turn(t)
	dir, share, rw := t.TempDir(), t.TempDir(), t.TempDir()
	script := filepath.Join(dir, "prog")
	write(t, script, "#!/bin/bash\n"+`
[[ $PWD == "$1" ]] && echo "dir ok"
[[ $(cat /proc/sys/kernel/osrelease) == 6.12.* ]] && echo "kernel ok"
touch /usr/x /x "$1/x" && echo "root ok"
[[ ! -e $3 ]] && touch /tmp/x /run/x /dev/shm/x && echo "fresh ok"
ls -A / >"$4/names"
modprobe dummy && [[ -d /sys/module/dummy ]] && echo "modules ok"
echo "$HOME $TERM $EXTRA $HOSTNAME"
[[ -p /dev/stdin && -p /dev/stdout && -p /dev/stderr ]] && echo "pipes ok"
sh -c 'echo complaint >/dev/stderr' # which opens it once more
cat "$2/in"; echo from guest > "$2/out"
cat
kill -TERM $$
`)
	write(t, filepath.Join(share, "in"), "from host\n")
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, "not for the guest\n")
	cmd := command(t, qemu.RunOptions{Share: []string{"sh=" + share}, RW: []string{rw}, Env: []string{"EXTRA=a b"}}, script, dir, share, other, rw)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "HOME=/nowhere", "TERM=vt100")
	cmd.Stdin = strings.NewReader("typed\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	host, _ := os.Hostname()
	want := "dir ok\nkernel ok\nroot ok\nfresh ok\nmodules ok\n/nowhere vt100 a b " + host + "\npipes ok\nfrom host\ntyped\n"
	if string(out) != want {
		t.Errorf("output:\n%s", out)
	}
	if cmd.ProcessState.ExitCode() != 128+15 || stderr.String() != "complaint\n" {
		t.Errorf("%v, stderr: %q", err, stderr.String())
	}
	if b, err := os.ReadFile(filepath.Join(share, "out")); err != nil || string(b) != "from guest\n" {
		t.Errorf("share: %q %v", b, err)
	}
	for _, path := range []string{"/x", "/usr/x", filepath.Join(dir, "x")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was written on the host", path)
		}
	}
	checkNames(t, filepath.Join(rw, "names"))
}

// checkNames: a guest that wrote `ls -A /` to the file saw everything that is in the host's root.
func checkNames(t *testing.T, list string) {
	t.Helper()
	names, err := os.ReadFile(list)
	if err != nil {
		t.Error(err)
		return
	}
	host, err := os.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	seen := strings.Fields(string(names))
	for _, e := range host {
		if !strings.ContainsAny(e.Name(), " \n") && !slices.Contains(seen, e.Name()) {
			t.Errorf("/%s of the host is not in the guest, which has %q", e.Name(), seen)
		}
	}
}

// TestReadOnlyRoot: with --ro nothing in the root can be written, and it has the same names; another user, without
// network, on a host with more mounts than a bus has slots.
func TestReadOnlyRoot(t *testing.T) {
	qemutest.Turn(t)
	rw := t.TempDir()
	if err := os.Chmod(rw, 0o777); err != nil {
		t.Fatal(err)
	}
	o := qemu.RunOptions{RO: true, RW: []string{rw}, User: "nobody", NoNet: true}
	for i := range 40 {
		o.Share = append(o.Share, fmt.Sprintf("many%d=%s", i, t.TempDir()))
	}
	script := `touch /usr/x /x 2>/dev/null || echo "root ok"; id -un; echo "$HOME"; ls -A / >"$1/names"; ls /sys/class/net; mount | grep -c ^many; echo again >/dev/stderr`
	cmd := command(t, o, "/bin/sh", "-c", script, "sh", rw)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	u, uerr := user.Lookup("nobody")
	if uerr != nil {
		t.Fatal(uerr)
	}
	if want := "root ok\nnobody\n" + u.HomeDir + "\nlo\n40\nagain\n"; err != nil || string(out) != want {
		t.Errorf("%v, output:\n%s", err, out)
	}
	checkNames(t, filepath.Join(rw, "names"))
}

// TestOutputLost: what the program wrote and could not be written here is an error, whatever the program's status.
func TestOutputLost(t *testing.T) {
	qemutest.Turn(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, stream := range []string{"stdout", "stderr"} {
		cmd := command(t, qemu.RunOptions{Kernel: "6.1", NoNet: true}, "/bin/sh", "-c", "echo foo >/dev/"+stream)
		var other bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &other
		if stream == "stderr" {
			cmd.Stdout, cmd.Stderr = &other, full
		}
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != qemu.StatusFailed {
			t.Errorf("%s: %v", stream, err)
		}
		if stream == "stdout" && !strings.Contains(other.String(), "stdout: write /dev/stdout: no space left on device") {
			t.Errorf("stderr: %q", &other)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait.Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// syncBuffer collects what a guest writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) len() int { return len(s.text()) }

func (s *syncBuffer) waitFor(t *testing.T, what string) {
	t.Helper()
	eventually(t, fmt.Sprintf("no %q", what), func() bool { return strings.Contains(s.text(), what) })
}

func (s *syncBuffer) waitGrows(t *testing.T, n int) {
	t.Helper()
	eventually(t, "guest does not go on", func() bool { return s.len() >= n })
}
