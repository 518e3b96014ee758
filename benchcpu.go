package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cpu is the processor time used so far by this process and, where it is known, the server.
func (c *benchCmd) cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	own := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if c.pid == 0 || c.pid == os.Getpid() {
		return own
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
	if err != nil {
		return own
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // the name in parentheses may hold anything else
	f := strings.Fields(rest)
	if len(f) < 13 {
		return own
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	sys, _ := strconv.ParseInt(f[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
	return own + time.Duration(user+sys)*tick
}

// listenerPid is who listens at a Unix socket, 0 when that is not told.
func listenerPid(ctx context.Context, path string) int {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	}); err != nil {
		return 0
	}
	return pid
}

// pageMap tells what the page cache holds of a file; nil: of one that is not in a mount. The mapping is never touched.
type pageMap struct{ mem []byte }

func mapPages(path string, size int64) (*pageMap, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: mmap: %w", path, err)
	}
	return &pageMap{mem}, nil
}

func (m *pageMap) close() {
	if m != nil {
		_ = unix.Munmap(m.mem) // it is a mapping of ours
	}
}

// resident is how many bytes of n from off on are in the page cache, in whole pages but at the end.
func (m *pageMap) resident(off, n int64) int64 {
	if m == nil {
		return 0
	}
	page := int64(os.Getpagesize())
	from := off / page * page
	end := min(off+n, int64(len(m.mem)))
	if from >= end {
		return 0
	}
	vec := make([]byte, (end-from+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m.mem[from])), uintptr(end-from), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		return 0
	}
	in := int64(0)
	for i, v := range vec {
		if v&1 != 0 {
			at := from + int64(i)*page
			in += min(at+page, end) - max(at, off)
		}
	}
	return in
}

// percent is how much a part is of all, where m can tell.
func percent(part, all int64, m *pageMap) string {
	if m == nil || all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/all)
}
