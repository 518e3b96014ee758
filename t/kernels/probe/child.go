package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killChild starts a child of this program, kills it when ready returns, and waits two seconds for its end.
func killChild(ready func() error, args ...string) (took time.Duration, dead bool, err error) {
	cmd := Command("/proc/self/exe", append([]string{"child"}, args...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, false, err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	if err := ready(); err != nil {
		_ = cmd.Process.Kill()
		return 0, false, err
	}
	time.Sleep(20 * time.Millisecond) // its thread gets to where it waits
	began := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		return 0, false, err
	}
	select {
	case err := <-gone:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Success() || !exit.Sys().(syscall.WaitStatus).Signaled() {
			return 0, false, fmt.Errorf("the child ended by itself: %w", err)
		}
		return time.Since(began), true, nil
	case <-time.After(2 * time.Second):
		return time.Since(began), false, nil
	}
}

// child is a process that a probe kills ("fault FILE" touches page 5 of a file, "read FILE" reads it), or
// one that remapInFault or rereadLocked needs.
func child(args []string) int {
	if len(args) < 2 {
		return 2
	}
	f, err := os.Open(args[1])
	if err == nil {
		switch args[0] {
		case "fault":
			var m mapping
			if m, err = mapFile(f, 16*page); err == nil {
				err = m.random()
				m.touch(5)
			}
		case "read":
			_, err = unix.Pread(int(f.Fd()), make([]byte, page), 0)
		case "remap":
			if err = childRemap(f, args[2], args[3]); err == nil {
				return 0
			}
		case "reread":
			if err = childReread(f, args[2], args[3]); err == nil {
				return 0
			}
		}
	}
	fmt.Fprintln(os.Stderr, "child ends:", err)
	return 3
}
