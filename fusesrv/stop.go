package fusesrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// StopOptions of Stop; the zero value of each field means its default.
type StopOptions struct {
	// Step is how long each step may take before the next, rougher one; default 3 s.
	Step time.Duration
	// RemoveDir removes the mount point at the end; for who knows that the server's start made it.
	RemoveDir bool
	Log       *slog.Logger // default slog.Default()
}

// Stop ends the wcfs server that is mounted at dir, and returns when neither mount nor process is left.
// It goes from gentle to rough: unmount; when that is refused because files are open SIGTERM to the
// server; abort of the FUSE connection; SIGKILL; a lazy unmount. It never touches the mount itself,
// which may hang.
func Stop(ctx context.Context, dir string, opts StopOptions) error {
	if opts.Step <= 0 {
		opts.Step = 3 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	m, err := findOurs(dir)
	if err != nil {
		return err
	}
	pid := serverPid(m)
	if err := isBind(m, pid); err != nil {
		return err
	}
	s := &stopping{m: m, opts: opts}
	if pid != 0 && pid != os.Getpid() {
		if s.server, err = holdProcess(pid); err == nil {
			defer s.server.Close()
		}
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	if opts.RemoveDir {
		if err := os.Remove(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isBind refuses a mount that somebody else made of the server's, or of a part of it: that server serves others too.
func isBind(m *mountEntry, pid int) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var whole, original string
	for line := range bytes.Lines(raw) {
		o, err := parseMount(strings.TrimSuffix(string(line), "\n"))
		if err != nil || o.minor != m.minor || o.fsType != fsType || o.root != "/" {
			continue
		}
		if whole == "" {
			whole = o.dir
		}
		for arg := range bytes.SplitSeq(argv, []byte{0}) {
			if arg, err := filepath.Abs(string(arg)); err == nil && arg == o.dir {
				original = o.dir
			}
		}
	}
	if original == "" {
		original = whole
	}
	switch {
	case m.root == "/" && (original == "" || original == m.dir):
		return nil
	case original == "":
		return fmt.Errorf("%s is a bind mount of %s of a wcfs mount that is not seen from here: `umount %s` takes it away, and leaves its server alone", m.dir, m.root, m.dir)
	}
	return fmt.Errorf("%s is a bind mount of the wcfs mount %s: `umount %s` takes it away alone, `wcfs stop %s` ends the server", m.dir, original, m.dir, original)
}

// stopping is one Stop under way.
type stopping struct {
	m      *mountEntry
	server *process // nil when it is not seen
	opts   StopOptions
}

func (s *stopping) run(ctx context.Context) error {
	var errs []error
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"unmount", s.unmount},
		{"SIGTERM", func() error { return s.signal(unix.SIGTERM) }},
		{"abort of the FUSE connection", s.abort},
		{"unmount", s.unmount},
		{"SIGKILL", func() error { return s.signal(unix.SIGKILL) }},
		{"lazy unmount", func() error { return detach(s.m.dir) }},
	} {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stop %s: %w", s.m.dir, err)
		}
		if err := step.do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
			s.opts.Log.Debug("stop", "dir", s.m.dir, "step", step.name, "err", err)
			continue
		}
		if s.gone(ctx) {
			return nil
		}
	}
	return fmt.Errorf("stop %s: %w", s.m.dir, errors.Join(append(errs, errors.New("mount or server is still there"))...))
}

func (s *stopping) unmount() error {
	if !mountedAs(s.m.dir, s.m.minor) {
		return nil
	}
	return unmount(s.m.dir, 0)
}

// abort ends the connection of the mount while it is there: as soon as it is gone the kernel gives its
// number to another, which must not be touched.
func (s *stopping) abort() error {
	if !mountedAs(s.m.dir, s.m.minor) {
		return errors.New("the mount is gone")
	}
	return abort(s.m.minor)
}

func (s *stopping) signal(sig unix.Signal) error {
	if s.server == nil {
		return errors.New("its process is not seen")
	}
	return s.server.Signal(sig)
}

// gone waits, a step at most, until neither mount nor process is there.
func (s *stopping) gone(ctx context.Context) bool {
	for end := time.Now().Add(s.opts.Step); ; {
		ended := s.server == nil || s.server.ended(10*time.Millisecond)
		if ended && !mountedAs(s.m.dir, s.m.minor) {
			return true
		}
		if ctx.Err() != nil || time.Now().After(end) || ended && s.server != nil {
			return false // with the server gone, waiting changes nothing
		}
		time.Sleep(5 * time.Millisecond)
	}
}
