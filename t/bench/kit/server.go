package kit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zodb"
)

// Server is a process that is measured.
type Server struct {
	Dir  string // where it is mounted, if it is
	cmd  *exec.Cmd
	said bytes.Buffer  // what it wrote; whole when done is closed
	done chan struct{} // closed when it has ended
}

// startTimeout is how long a server may take to get ready: an index may have to be made first.
const startTimeout = 3 * time.Minute

// Start starts a program and waits until ready says so. When ctx ends, so does the program.
func Start(ctx context.Context, ready func() error, name string, args ...string) (*Server, error) {
	s := &Server{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 10 * time.Second
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(time.Millisecond) {
		err := ready()
		if err == nil {
			return s, nil
		}
		ended := ctx.Err() != nil || time.Now().After(deadline)
		select {
		case <-s.done:
			ended = true
		default:
		}
		if ended {
			s.Close()
			return nil, fmt.Errorf("%s did not get ready: %w: %s", filepath.Base(name), err, strings.TrimSpace(s.said.String()))
		}
	}
}

// Mount starts a program whose last argument is a mount point, and waits until probe is there.
func (b *Bench) Mount(ctx context.Context, probe, name string, args ...string) (*Server, error) {
	dir, err := os.MkdirTemp(b.Dir, "mnt")
	if err != nil {
		return nil, err
	}
	s, err := Start(ctx, func() error { _, err := os.Stat(filepath.Join(dir, probe)); return err }, name, append(args, dir)...)
	if err != nil {
		return nil, errors.Join(err, ignore(unix.Unmount(dir, unix.MNT_DETACH), unix.EINVAL))
	}
	s.Dir = dir
	return s, nil
}

// Serve mounts a FileStorage; options go before it.
func (b *Bench) Serve(ctx context.Context, database string, options ...string) (*Server, error) {
	args := append([]string{"serve", "file://" + database}, options...)
	return b.Mount(ctx, ".wcfs/zurl", b.WCFS, append(args, "--mount")...)
}

// Head is the path of a bigfile as of head.
func (s *Server) Head(oid zodb.Oid) string { return filepath.Join(s.Dir, "head/bigfile", oid.String()) }

// Close ends the program, and its mount.
func (s *Server) Close() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	if s.Dir != "" {
		_ = unix.Unmount(s.Dir, unix.MNT_DETACH) // when it was killed
	}
}

// RSS is the resident memory in bytes.
func (s *Server) RSS() (int64, error) {
	f, err := s.proc("statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// CPU is the processor time used so far, in steps of 10 ms; 0 when it is not known.
func (s *Server) CPU() time.Duration {
	f, err := s.proc("stat")
	if err != nil || len(f) < 15 {
		return 0
	}
	user, _ := strconv.ParseInt(f[13], 10, 64)
	sys, _ := strconv.ParseInt(f[14], 10, 64)
	return time.Duration(user+sys) * 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
}

// Stat is a number of .wcfs/stats.
func (s *Server) Stat(name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(s.Dir, ".wcfs/stats"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == name {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in .wcfs/stats", name)
}

// proc are the words of a file of /proc about the process.
func (s *Server) proc(file string) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, file))
	return strings.Fields(string(text)), err
}

func ignore(err, known error) error {
	if errors.Is(err, known) {
		return nil
	}
	return err
}
