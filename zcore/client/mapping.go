package client

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is address space in which a session's file is mapped. Guarded by session.mu.
type mapping struct {
	addr unsafe.Pointer // nil: none yet
	room uintptr        // bytes reserved
}

// newMapping only checks that such blocks can be mapped.
func newMapping(blksize int64) (*mapping, error) {
	if blksize%int64(os.Getpagesize()) != 0 {
		return nil, fmt.Errorf("blocks of %d bytes are no whole pages: they can be read, not mapped", blksize)
	}
	return &mapping{}, nil
}

// reserve has room for size bytes; what was mapped may move.
func (m *mapping) reserve(size int64) error {
	const step = 64 << 20
	if uintptr(size) <= m.room {
		return nil
	}
	room := (uintptr(size)+uintptr(size)/2)/step*step + step
	addr, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("no address space for %d bytes: %w", room, err)
	}
	m.unmap()
	m.addr, m.room = addr, room
	return nil
}

func (m *mapping) unmap() {
	if m.addr != nil {
		_ = unix.MunmapPtr(m.addr, m.room)
	}
	m.addr, m.room = nil, 0
}

// mapFile maps [off, end) of f, which is fileEnd bytes long, and zeros past that.
func (m *mapping) mapFile(f *os.File, fileEnd, off, end int64) error {
	have := max(off, min(end, fileEnd))
	if have > off {
		_, err := unix.MmapPtr(int(f.Fd()), off, unsafe.Add(m.addr, off), uintptr(have-off), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
		if err != nil {
			return fmt.Errorf("map %s: %w", f.Name(), err)
		}
	}
	if end > have {
		_, err := unix.MmapPtr(-1, 0, unsafe.Add(m.addr, have), uintptr(end-have), unix.PROT_READ,
			unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED|unix.MAP_NORESERVE)
		if err != nil {
			return fmt.Errorf("map zeros: %w", err)
		}
	}
	return nil
}

// spoil has every access be a SIGBUS: a mapping of an empty file.
func (m *mapping) spoil() {
	if m.addr == nil {
		return
	}
	fd, err := unix.MemfdCreate("wcfs-lost", unix.MFD_CLOEXEC)
	if err == nil {
		_, err = unix.MmapPtr(fd, 0, m.addr, m.room, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED)
		unix.Close(fd)
	}
	if err != nil {
		_ = unix.Mprotect(unsafe.Slice((*byte)(m.addr), m.room), unix.PROT_NONE)
	}
}

// mapAllLocked maps the whole file. s.mu must be held.
func (s *session) mapAllLocked() error {
	if err := s.mem.reserve(s.size); err != nil {
		return err
	}
	end := min(s.size, s.sharedEnd)
	if err := s.mem.mapFile(s.shared, s.sharedEnd, 0, end); err != nil {
		return err
	}
	if err := s.mem.mapFile(s.atFile, s.size, end, s.size); err != nil {
		return err
	}
	for blk, rev := range s.pins {
		if int64(blk) >= s.size/s.blksize {
			continue
		}
		f, err := s.c.openRev(rev, s.oid)
		if err != nil {
			return err
		}
		err = s.mapBlkLocked(blk, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// mapBlkLocked maps one block: from f, as of a revision, or from the shared file if that is nil.
// s.mu must be held.
func (s *session) mapBlkLocked(blk Blk, f *os.File) error {
	if int64(blk) >= s.size/s.blksize || s.lost != nil {
		return nil // not shown; known for when the view grows
	}
	off := int64(blk) * s.blksize
	end := s.sharedEnd
	if f == nil && off >= end {
		f, end = s.atFile, s.size
	} else if f == nil {
		f = s.shared
	} else {
		var err error
		if end, _, err = attrs(f); err != nil {
			return err
		}
	}
	return s.mem.mapFile(f, end, off, off+s.blksize)
}
