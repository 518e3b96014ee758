package qemu_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/qemu/qemutest"
	"wcfs/t/wait"
)

// TestInteractive: `wcfs run -- bash` at a terminal: its size, also when it changes, Ctrl-C, job
// control, exit status, and the terminal as it was in the end.
func TestInteractive(t *testing.T) {
	qemutest.Turn(t)
	ptmx, tty := openPty(t)
	setSize(t, ptmx, 33, 101)
	cmd := exec.Command(os.Args[0], "/bin/bash", "--norc", "-i")
	cmd.Env = append(os.Environ(), "QEMU_TEST_HELPER=command", "TERM=dumb")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := termios(t, tty)
	var out syncBuffer
	go func() { _, _ = io.Copy(&out, ptmx) }()
	step := func(keys, want string) {
		t.Helper()
		if _, err := io.WriteString(ptmx, keys); err != nil {
			t.Fatal(err)
		}
		if want != "" {
			defer func() {
				if t.Failed() {
					t.Logf("terminal: %q", out.text())
				}
			}()
			out.waitFor(t, want)
		}
	}
	step("", "bash-")
	// the words are put together by the shell, so that the echo of the keys is not taken for the output
	step("echo s''ize $(stty size)\r", "size 33 101")
	setSize(t, ptmx, 44, 77)
	if err := cmd.Process.Signal(syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	step("until [[ $(stty size) == '44 77' ]]; do sleep 0.1; done; echo re''sized $(tty)\r", "resized /dev/hvc0")
	step("sh -c 'trap \"echo int\"\"errupted; exit\" INT; echo wa\"\"iting; while :; do sleep 0.1; done'\r", "waiting")
	step("\x03", "interrupted")
	step("sh -c 'echo run\"\"ning; sleep 1000'\r", "running")
	step("\x1a", "Stopped")
	step("jobs; echo li''sted\r", "listed")
	// bash's wait does not wait for what it still takes for stopped, and then exit would refuse
	step("kill %1; while kill -0 %1; do sleep 0.1; done 2>/dev/null; echo ki''lled\r", "killed")
	step("exit 9\r", "")
	err := waitFor(t, cmd, &out)
	if cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%v; terminal: %q", err, out.text())
	}
	if after := termios(t, tty); after != before {
		t.Errorf("terminal is left as\n%+v, was\n%+v", after, before)
	}
	if text := out.text(); !strings.Contains(text, "[1]+") {
		t.Errorf("no job control: %q", text)
	}
}

// TestInterrupt: without a terminal, SIGINT at the command is Ctrl-C in the guest.
func TestInterrupt(t *testing.T) {
	qemutest.Turn(t)
	cmd := exec.Command(os.Args[0], "/bin/sh", "-c", "trap 'echo caught; exit 5' INT; echo waiting; while :; do sleep 0.1; done")
	cmd.Env = append(os.Environ(), "QEMU_TEST_HELPER=command")
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "waiting")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := waitFor(t, cmd, &out)
	if cmd.ProcessState.ExitCode() != 5 || !strings.Contains(out.text(), "caught") {
		t.Errorf("%v: %q", err, out.text())
	}
}

// waitFor waits for the end of a `wcfs run` that was told to end.
func waitFor(t *testing.T, cmd *exec.Cmd, out *syncBuffer) error {
	t.Helper()
	late := time.AfterFunc(wait.Patience, func() {
		t.Errorf("does not end; it said %q", out.text())
		_ = cmd.Process.Signal(syscall.SIGQUIT) // ends the guest too
	})
	defer late.Stop()
	return cmd.Wait()
}

// TestCommandDies: no QEMU is left when `wcfs run` is killed, told to end, or loses its terminal.
func TestCommandDies(t *testing.T) {
	qemutest.Turn(t)
	for how, end := range map[string]func(*exec.Cmd, *os.File){
		"SIGKILL":            func(c *exec.Cmd, _ *os.File) { _ = c.Process.Kill() },
		"SIGTERM":            func(c *exec.Cmd, _ *os.File) { _ = c.Process.Signal(syscall.SIGTERM) },
		"terminal is closed": func(_ *exec.Cmd, ptmx *os.File) { ptmx.Close() },
	} {
		ptmx, tty := openPty(t)
		cmd := exec.Command(os.Args[0], "/bin/sleep", "1000")
		cmd.Env = append(os.Environ(), "QEMU_TEST_HELPER=command")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		tty.Close()
		var qemu int
		eventually(t, how+": no QEMU", func() bool { qemu = childOf(cmd.Process.Pid, "qemu"); return qemu != 0 })
		end(cmd, ptmx)
		_ = cmd.Wait()
		eventually(t, how+": QEMU is left", func() bool { return gone(qemu) })
	}
}

// childOf finds a child of a process by the beginning of its name; 0: there is none.
func childOf(pid int, name string) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			if comm, _ := os.ReadFile("/proc/" + f + "/comm"); strings.HasPrefix(string(comm), name) {
				n, _ := strconv.Atoi(f)
				return n
			}
		}
	}
	return 0
}

// gone tells whether a process has ended. Whoever adopts orphans here may be slow to reap it.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func openPty(t *testing.T) (ptmx, tty *os.File) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ptmx.Close()
		tty.Close()
	})
	return ptmx, tty
}

func setSize(t *testing.T, f *os.File, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	v, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *v
}
