package main

import (
	"fmt"
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

// cached tells how much of what is to be read the page cache of the mount holds.
func (c *benchCmd) cached() string {
	if c.local == "" {
		return "-"
	}
	f, err := os.Open(c.local)
	if err != nil {
		return "?"
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, int(c.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return "?"
	}
	defer unix.Munmap(mem)
	page := os.Getpagesize()
	vec := make([]byte, (len(mem)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&vec[0])))
	if errno != 0 {
		return "?"
	}
	in := 0
	for _, v := range vec {
		in += int(v & 1)
	}
	return fmt.Sprintf("%d%%", in*100/len(vec))
}
