package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopCmd is `wcfs stop MNT`.
type stopCmd struct {
	Mount   string        `arg:"" name:"mnt" help:"Mount directory."`
	Timeout time.Duration `default:"3s" help:"How long each step may take."`
}

// Run goes from gentle to rough: unmount; when busy SIGTERM, abort of the FUSE connection, SIGKILL, and
// at last a lazy unmount. Nothing here touches the mount itself, which may hang.
func (c *stopCmd) Run(p *program) error {
	m, err := findMount(c.Mount)
	if err != nil {
		return err
	}
	pid := serverPid(m)
	var argv []string
	if pid != 0 {
		argv = cmdline(fmt.Sprintf("/proc/%d", pid))
	}
	gone := func() bool { return !m.mounted() && !alive(pid) }

	steps := []struct {
		name string
		do   func() error
	}{
		{"unmount", func() error { return unmount(p.ctx, m.Dir, false) }},
		{"SIGTERM", func() error { return kill(pid, unix.SIGTERM) }},
		{"abort of the connection", m.abort},
		{"SIGKILL", func() error { return kill(pid, unix.SIGKILL) }},
		{"lazy unmount", func() error { return unmount(p.ctx, m.Dir, true) }},
	}
	var errs []error
	for _, step := range steps {
		if err := step.do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
			continue
		}
		if waitFor(p.ctx, c.Timeout, gone) {
			removeSockets(argv)
			return nil
		}
		p.log.Debug("still there", "mount", m.Dir, "after", step.name)
	}
	return fmt.Errorf("%s could not be stopped: %w", c.Mount, errors.Join(errs...))
}

// mounted tells whether this very mount is still there.
func (m *mountEntry) mounted() bool {
	now, err := findMount(m.Dir)
	return err == nil && now.Minor == m.Minor
}

// abort makes every request of the connection fail.
func (m *mountEntry) abort() error {
	return os.WriteFile("/sys/fs/fuse/connections/"+strconv.Itoa(m.Minor)+"/abort", []byte("1"), 0)
}

// unmount asks fusermount, which users may; root needs none.
func unmount(ctx context.Context, dir string, lazy bool) error {
	flags, args := unix.UMOUNT_NOFOLLOW, []string{"-u", "--", dir}
	if lazy {
		flags, args = flags|unix.MNT_DETACH, []string{"-u", "-z", "--", dir}
	}
	err := unix.Unmount(dir, flags)
	if err != unix.EPERM {
		return err
	}
	out, err := exec.CommandContext(ctx, "fusermount3", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func kill(pid int, sig syscall.Signal) error {
	if pid == 0 {
		return errors.New("the server's process is not known")
	}
	if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

// alive tells whether a process is there; one that waits for its parent to ask for its status is not.
func alive(pid int) bool {
	if pid == 0 {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// waitFor polls until cond holds.
func waitFor(ctx context.Context, timeout time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return cond()
		case <-tick.C:
		}
	}
	return true
}

// removeSockets removes what a server that was killed could not: sockets that it was told to serve at.
func removeSockets(argv []string) {
	for _, arg := range argv {
		_, path, ok := strings.Cut(arg, "unix:")
		if !ok {
			continue
		}
		if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
			os.Remove(path)
		}
	}
}
