package qemu

import (
	"fmt"
	"io"
	"strings"
)

// cpioWriter writes an archive in the "newc" format, as the kernel takes it for an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioWriter struct {
	w    io.Writer
	ino  int
	dirs map[string]bool // folders written so far
	err  error           // first error; later calls do nothing
}

const (
	cpioDir  = 0o040000
	cpioReg  = 0o100000
	cpioChar = 0o020000
	cpioLink = 0o120000
)

func newCpio(w io.Writer) *cpioWriter { return &cpioWriter{w: w, dirs: map[string]bool{}} }

// entry writes one header with its name and data.
func (c *cpioWriter) entry(name string, mode uint32, data []byte, major, minor uint32) {
	if c.err != nil {
		return
	}
	c.ino++
	nlink := 1
	var b strings.Builder
	b.WriteString("070701")
	for _, v := range []uint32{uint32(c.ino), mode, 0, 0, uint32(nlink), 0, uint32(len(data)), 0, 0, major, minor,
		uint32(len(name) + 1), 0} {
		fmt.Fprintf(&b, "%08x", v)
	}
	b.WriteString(name)
	b.WriteByte(0)
	pad(&b, b.Len())
	if _, c.err = io.WriteString(c.w, b.String()); c.err != nil {
		return
	}
	if _, c.err = c.w.Write(data); c.err != nil {
		return
	}
	var tail strings.Builder
	pad(&tail, len(data))
	_, c.err = io.WriteString(c.w, tail.String())
}

// pad brings something of n bytes to a multiple of four.
func pad(b *strings.Builder, n int) {
	for ; n%4 != 0; n++ {
		b.WriteByte(0)
	}
}

// dir adds a folder and those above it; path is absolute or relative to the root.
func (c *cpioWriter) dir(path string) {
	path = strings.Trim(path, "/")
	if path == "" || c.dirs[path] {
		return
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		c.dir(path[:i])
	}
	c.dirs[path] = true
	c.entry(path, cpioDir|0o755, nil, 0, 0)
}

// file adds a regular file and the folders it is in.
func (c *cpioWriter) file(path string, perm uint32, data []byte) {
	path = strings.Trim(path, "/")
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		c.dir(path[:i])
	}
	c.entry(path, cpioReg|perm, data, 0, 0)
}

// symlink adds a symbolic link.
func (c *cpioWriter) symlink(path, target string) {
	path = strings.Trim(path, "/")
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		c.dir(path[:i])
	}
	c.entry(path, cpioLink|0o777, []byte(target), 0, 0)
}

// char adds a character device.
func (c *cpioWriter) char(path string, perm, major, minor uint32) {
	c.entry(strings.Trim(path, "/"), cpioChar|perm, nil, major, minor)
}

// close writes the end of the archive and returns the first error of all calls.
func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.err
}
