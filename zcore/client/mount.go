package client

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountIs9p tells whether dir is on a 9p mount. statfs does not: behind QEMU's virtfs it shows the type of
// the host's file system.
func mountIs9p(dir string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // mount options may be long
	for lines.Scan() {
		mount, super, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); ok && len(fields) > 2 && fields[2] == dev {
			return strings.HasPrefix(super, "9p "), nil
		}
	}
	return false, lines.Err()
}
