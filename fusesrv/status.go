package fusesrv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wcfs/zcore"
)

// Report is what can be told of a mount from outside.
type Report struct {
	Dir        string           `json:"dir"`                  // mount point
	ZURL       string           `json:"zurl"`                 // database
	Head       string           `json:"head"`                 // announced head, as head/at shows it
	PinTimeout string           `json:"pintimeout,omitempty"` // seconds
	Stats      map[string]int64 `json:"stats"`                // of .wcfs/stats
	Pid        int              `json:"pid,omitempty"`        // of the server, when it can be seen
	Health     *zcore.Health    `json:"health,omitempty"`     // of .wcfs/health
}

// Status looks at the wcfs mount dir. It never hangs: what touches the mount is done by a child process (see
// Helper). The error matches os.ErrNotExist when nothing of ours is mounted there, ErrHangs when the server
// does not answer, syscall.ENOTCONN when it is gone or in EIO mode. Dir and Pid are known without the server's
// help and always set.
func Status(ctx context.Context, dir string) (Report, error) {
	m, err := findOurs(dir)
	if err != nil {
		return Report{Dir: dir}, err
	}
	st := Report{Dir: m.dir, Pid: serverPid(m)}
	s, err := probe(ctx, m.dir)
	st.Health = s.Health
	if err != nil {
		return st, err
	}
	st.ZURL, st.Head, st.PinTimeout, st.Stats = s.ZURL, s.Head, s.PinTimeout, s.Stats
	return st, nil
}

// MountType tells of what type the mount at dir is, without touching it.
func MountType(dir string) (string, error) {
	abs, err := resolve(dir)
	if err != nil {
		return "", err
	}
	m, err := findMount(abs)
	if err != nil {
		return "", err
	}
	return m.fsType, nil
}

// findOurs finds the wcfs mount at dir without touching it.
func findOurs(dir string) (*mountEntry, error) {
	abs, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	m, err := findMount(abs)
	if err == nil && m.fsType != fsType {
		err = absent(fmt.Sprintf("%s is a mount of type %s, not one of wcfs", abs, m.fsType))
	}
	return m, err
}

// serverPid finds the process that holds the FUSE connection of m, 0 if none is seen. Kernels before
// 6.16 do not tell which connection a process holds: there the mount point must be among its arguments.
//
// Reading a process's arguments waits while that process is stuck in a page fault and another of its
// threads wants to map: so nobody waits here for longer than pidTimeout.
func serverPid(m *mountEntry) int {
	found := make(chan int, 1)
	go func() { found <- findServer(m) }()
	select {
	case pid := <-found:
		return pid
	case <-time.After(pidTimeout):
		return 0
	}
}

// pidTimeout is how long looking through all processes may take.
const pidTimeout = time.Second

func findServer(m *mountEntry) int {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil && holds(pid, m) {
			return pid
		}
	}
	return 0
}

func holds(pid int, m *mountEntry) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err != nil || to != "/dev/fuse" {
			continue
		}
		info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if err != nil {
			continue
		}
		if _, conn, ok := strings.Cut(string(info), "fuse_connection:"); ok {
			if conn, _, _ = strings.Cut(conn, "\n"); strings.TrimSpace(conn) == fmt.Sprint(m.minor) {
				return true
			}
			continue
		}
		if argv, err := os.ReadFile(filepath.Join(proc, "cmdline")); err == nil {
			for arg := range bytes.SplitSeq(argv, []byte{0}) {
				if filepath.Clean(string(arg)) == m.dir {
					return true
				}
			}
		}
	}
	return false
}
