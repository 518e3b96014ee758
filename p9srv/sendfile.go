package p9srv

import (
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"wcfs/zcore"
)

// sendfileFrom is from what length on a range of a file goes to the socket by sendfile. Shorter ones are
// copied: then header and data are one system call, and wake the client once.
const sendfileFrom = 128 << 10

// isSocket tells a transport that takes writev and sendfile.
func (c *conn) isSocket() bool { return c.bw == nil }

// writePieces writes to a socket, in as few system calls as there can be. wmu must be held.
func (c *conn) writePieces(pieces []zcore.Piece) error {
	var bufs net.Buffers
	flush := func() error {
		if len(bufs) == 0 {
			return nil
		}
		_, err := bufs.WriteTo(c.raw)
		bufs = nil
		return err
	}
	for _, p := range pieces {
		if p.File == nil {
			bufs = append(bufs, p.Mem)
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if err := sendfile(c.raw.(syscall.Conn), p); err != nil {
			return err
		}
	}
	return flush()
}

// sendfile sends a range of a file. When it fails a part may have been sent: the connection is of no
// use then.
func sendfile(to syscall.Conn, p zcore.Piece) error {
	raw, err := to.SyscallConn()
	if err != nil {
		return err
	}
	from, err := p.File.SyscallConn()
	if err != nil {
		return err
	}
	off, left := p.Off, p.Len
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		for left > 0 {
			var n int
			var err error
			// Inside Control the file cannot be closed, and its descriptor not become another's.
			if e := from.Control(func(file uintptr) { n, err = unix.Sendfile(int(fd), int(file), &off, left) }); e != nil {
				err = e
			}
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return false // wait until it takes more, or the deadline
			case err == nil && n == 0:
				sendErr = fmt.Errorf("data record at %d of %s: %w", p.Off, p.File.Name(), io.ErrUnexpectedEOF)
				return true
			case err != nil:
				sendErr = err
				return true
			default:
				left -= n
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return sendErr
}
