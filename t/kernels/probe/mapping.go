package probe

import (
	"fmt"
	"os"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a mapped file, without the bookkeeping of package unix, so that parts can be mapped anew.
type mapping struct {
	addr uintptr
	b    []byte
}

// mapFile maps n bytes of a file, shared and read-only.
func mapFile(f *os.File, n int) (mapping, error) {
	return mapAt(0, f, n, unix.PROT_READ, unix.MAP_SHARED)
}

// mapAt maps n bytes; with MAP_FIXED in flags at addr. f may be nil for anonymous memory.
func mapAt(addr uintptr, f *os.File, n, prot, flags int) (mapping, error) {
	fd := ^uintptr(0)
	if f != nil {
		fd = f.Fd()
	}
	got, _, errno := unix.Syscall6(unix.SYS_MMAP, addr, uintptr(n), uintptr(prot), uintptr(flags), fd, 0)
	if errno != 0 {
		return mapping{}, fmt.Errorf("mmap: %w", errno)
	}
	return mapping{got, bytesAt(got, n)}, nil
}

// anonymous is n bytes of memory of its own.
func anonymous(n int) (mapping, error) {
	return mapAt(0, nil, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func (m mapping) unmap() { _, _, _ = unix.Syscall(unix.SYS_MUNMAP, m.addr, uintptr(len(m.b)), 0) }

// pointer turns an address the kernel gave into a pointer. It is not memory of Go's heap.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// random turns read-ahead off.
func (m mapping) random() error { return unix.Madvise(m.b, unix.MADV_RANDOM) }

// touch reads the first byte of a page.
//
//go:noinline
func (m mapping) touch(pg int) byte { return m.b[pg*page] }

// touchable reads the first byte of a page, if there is one.
func (m mapping) touchable(pg int) (v byte, ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { _ = recover() }()
	return m.touch(pg), true
}

// touchAsync reads it in the background, as the read may be held. Nothing comes when it fails.
func (m mapping) touchAsync(pg int) <-chan byte {
	c := make(chan byte, 1)
	go func() {
		debug.SetPanicOnFault(true)
		defer func() { _ = recover() }() // the mount was given up
		c <- m.touch(pg)
	}()
	return c
}

// resident tells which pages are in the page cache and mapped or mappable.
func (m mapping) resident() ([]bool, error) {
	vec := make([]byte, len(m.b)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, m.addr, uintptr(len(m.b)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		return nil, fmt.Errorf("mincore: %w", errno)
	}
	out := make([]bool, len(vec))
	for i, v := range vec {
		out[i] = v&1 != 0
	}
	return out, nil
}

// plainFile is a file of n bytes of value v in dir, to be mapped over something.
func plainFile(dir string, n int, v byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, "plain-*")
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = v
	}
	_, err = f.Write(b)
	return f, err
}

// bytesAt is the memory at an address.
func bytesAt(addr uintptr, n int) []byte { return unsafe.Slice((*byte)(pointer(addr)), n) }
