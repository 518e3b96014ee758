package fusesrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is what Close returns of a mount that is in use and is to be left in place then.
var ErrBusy = errors.New("the mount is in use and left in place")

// Close unmounts, waits for serving to end and returns nil. A mount with open files is, unless Options.KeepBusy, taken out
// of sight: those who have files open keep being served until the server's process ends. A copy of the mount in
// another mount namespace is nothing to wait for: it is dead when this process has ended.
func (s *Server) Close(ctx context.Context) error {
	err := s.Unmount()
	for try := 0; errors.Is(err, unix.EBUSY) && try < 10; try++ {
		time.Sleep(10 * time.Millisecond) // somebody may just be looking, as at /proc/PID/fd
		err = s.Unmount()
	}
	if errors.Is(err, unix.EBUSY) {
		who := pidList(within(func() []int { return holders(s.dir) }))
		if s.opts.KeepBusy {
			return fmt.Errorf("%s: %w; it is held by %s", s.dir, ErrBusy, who)
		}
		s.log.Warn("files are still open; unmounting lazily", "dir", s.dir, "held by", who)
		return detach(s.dir)
	}
	if err != nil {
		return err
	}
	return s.waitGone(ctx)
}

// waitGone waits until serving has ended, after an unmount.
func (s *Server) waitGone(ctx context.Context) error {
	const first = 500 * time.Millisecond
	look := time.NewTimer(first)
	defer look.Stop()
	for {
		select {
		case <-s.done:
			return nil // also when the connection was aborted
		case <-ctx.Done():
			return fmt.Errorf("%s was unmounted, but the kernel does not let the FUSE connection go: %w", s.dir, ctx.Err())
		case <-look.C:
		}
		if dirs := mountsOf(s.dev); len(dirs) > 0 {
			s.log.Warn("bind mounts of a part are left, and dead from now on; unmount them", "dir", s.dir, "left", dirs)
			return nil
		}
		if pids := within(func() []int { return copies(s.dev) }); len(pids) > 0 {
			s.log.Warn("another mount namespace has a copy of the mount, which is dead from now on", "dir", s.dir, "namespace of", pidList(pids))
			return nil
		}
		look.Reset(first)
	}
}

// Mounted tells whether the mount is still in the mount table.
func (s *Server) Mounted() bool { return mountedAs(s.dir, s.dev) }

// within runs a look through /proc, which a process that is stuck can hold up, for a moment at most.
func within(look func() []int) []int {
	found := make(chan []int, 1)
	go func() { found <- look() }()
	select {
	case pids := <-found:
		return pids
	case <-time.After(pidTimeout):
		return nil
	}
}

func pidList(pids []int) string {
	const most = 10
	if len(pids) == 0 {
		return "processes that cannot be seen from here"
	}
	text := "pid"
	for i, pid := range pids {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(pids)-most)
		}
		text += " " + strconv.Itoa(pid)
	}
	return text
}

// eachProcess lists the processes that fit.
func eachProcess(fits func(proc string) bool) []int {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil && pid != os.Getpid() && fits(filepath.Join("/proc", p.Name())) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// holders are the processes that have a file, mapping, directory or root below dir. It goes by names and
// touches nothing there.
func holders(dir string) []int {
	below := func(name string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }
	return eachProcess(func(proc string) bool {
		links := []string{"cwd", "root"}
		fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
		for _, fd := range fds {
			links = append(links, "fd/"+fd.Name())
		}
		for _, link := range links {
			if to, err := os.Readlink(filepath.Join(proc, link)); err == nil && below(to) {
				return true
			}
		}
		maps, _ := os.ReadFile(filepath.Join(proc, "maps"))
		for line := range bytes.Lines(maps) {
			if _, name, ok := strings.Cut(string(line), "/"); ok && below("/"+strings.TrimSuffix(name, "\n")) {
				return true
			}
		}
		return false
	})
}

// mountsOf are the directories where device minor is mounted, whole or in part.
func mountsOf(minor uint32) []string {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return mountsIn(raw, minor)
}

func mountsIn(raw []byte, minor uint32) (dirs []string) {
	for line := range bytes.Lines(raw) {
		if m, err := parseMount(strings.TrimSuffix(string(line), "\n")); err == nil && m.minor == minor && m.major == 0 && m.fsType == fsType {
			dirs = append(dirs, m.dir)
		}
	}
	return dirs
}

// copies are processes that see the mount of device minor.
func copies(minor uint32) []int {
	device := fmt.Appendf(nil, " 0:%d ", minor)
	return eachProcess(func(proc string) bool {
		raw, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
		if err != nil || !bytes.Contains(raw, device) {
			return false
		}
		return len(mountsIn(raw, minor)) > 0
	})
}
