package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func errWord(err error) string {
	if err == nil {
		return "ok"
	}
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// Clean ends and unmounts what a probe left mounted below dir, and removes dir.
func Clean(dir string) {
	endMount(filepath.Join(dir, "m"))
	_ = os.RemoveAll(dir)
}

// endMount aborts the connection of a FUSE mount, if it is one, and unmounts it.
func endMount(dir string) {
	_ = abort(dir)
	_ = unix.Unmount(dir, unix.MNT_DETACH)
}

// abort ends the connection of a FUSE mount, as the death of its server does.
func abort(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) < 5 || f[4] != dir {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		return withControl(dir+".ctl", func(ctl string) error {
			return os.WriteFile(filepath.Join(ctl, minor, "abort"), []byte("1"), 0o644)
		})
	}
	return fmt.Errorf("%s is not mounted", dir)
}

// withControl has the control files of FUSE connections for f: where they usually are, or mounted at dir meanwhile.
func withControl(dir string, f func(ctl string) error) error {
	const usual = "/sys/fs/fuse/connections"
	if list, err := os.ReadDir(usual); err == nil && len(list) > 0 {
		return f(usual)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	return f(dir)
}
