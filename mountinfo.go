package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mountEntry is a wcfs mount as the kernel knows it.
type mountEntry struct {
	Dir    string // absolute, without symbolic links
	Source string // the database URL
	Minor  int    // number of the FUSE connection
}

// fsType is what a wcfs mount is called in the mount table.
const fsType = "fuse.wcfs"

// findMount finds the wcfs mount at dir, without touching the mount itself, which may hang.
func findMount(dir string) (*mountEntry, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// symbolic links above the mount point are resolved; the mount point itself is not looked at
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	mounts, err := wcfsMounts()
	if err != nil {
		return nil, err
	}
	// the last one is on top
	for _, m := range slices.Backward(mounts) {
		if m.Dir == abs {
			return &m, nil
		}
	}
	return nil, fmt.Errorf("%s is not a wcfs mount", dir)
}

// wcfsMounts lists all mounts of wcfs that this process sees.
func wcfsMounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mountEntry
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		// 36 35 0:41 / /mnt rw,nosuid shared:1 - fuse.wcfs file:///Data.fs rw,...
		left, right, ok := strings.Cut(scan.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 2 || r[0] != fsType {
			continue
		}
		_, minor, _ := strings.Cut(l[2], ":")
		n, err := strconv.Atoi(minor)
		if err != nil {
			continue
		}
		list = append(list, mountEntry{unescape(l[4]), unescape(r[1]), n})
	}
	return list, scan.Err()
}

// unescape undoes the octal escapes of the mount table.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}

// serverPid finds the process that serves m: it holds /dev/fuse open and was told of the mount point. 0
// when it cannot be found, or is gone.
func serverPid(m *mountEntry) int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		pid, _ := strconv.Atoi(filepath.Base(proc))
		if pid == os.Getpid() || !holdsConnection(proc, m) {
			continue
		}
		return pid
	}
	return 0
}

// holdsConnection tells whether a process has the FUSE connection of m open. Newer kernels tell the
// number of the connection; on older ones the mount point must be among the arguments.
func holdsConnection(proc string, m *mountEntry) bool {
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, fd := range fds {
		if link, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name())); link != "/dev/fuse" {
			continue
		}
		info, _ := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if _, conn, ok := strings.Cut(string(info), "fuse_connection:"); ok {
			f := strings.Fields(conn)
			return len(f) > 0 && f[0] == strconv.Itoa(m.Minor)
		}
		return namesMount(proc, m)
	}
	return false
}

// namesMount tells whether an argument of a process is the mount point of m.
func namesMount(proc string, m *mountEntry) bool {
	cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
	for _, arg := range cmdline(proc) {
		arg = strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-mount=")
		if !filepath.IsAbs(arg) {
			arg = filepath.Join(cwd, arg)
		}
		if parent, err := filepath.EvalSymlinks(filepath.Dir(arg)); err == nil {
			arg = filepath.Join(parent, filepath.Base(arg))
		}
		if arg == m.Dir {
			return true
		}
	}
	return false
}

func cmdline(proc string) []string {
	text, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
