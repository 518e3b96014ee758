package p9srv

import (
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"wcfs/zcore"
)

// From sendfileFrom on a range of a file goes to the socket by sendfile. Shorter ones are copied: then header
// and data are one system call, and wake the client once. With several requests in flight what counts is the
// processor time, and it is from sendfileBusy on.
const (
	sendfileFrom = 128 << 10
	sendfileBusy = 32 << 10
)

// isSocket tells a transport that takes writev and sendfile.
func (c *conn) isSocket() bool { return c.bw == nil }

// writePieces writes to a socket, in as few system calls as there can be. wmu must be held.
func (c *conn) writePieces(pieces []zcore.Piece) error {
	c.vec = c.vecs[:0]
	for _, p := range pieces {
		if p.File == nil {
			c.vec = append(c.vec, p.Mem)
			continue
		}
		if err := c.writeVec(); err != nil {
			return err
		}
		if err := c.sendChecked(p); err != nil {
			return err
		}
	}
	return c.writeVec()
}

// sendChecked sends a range of a file. The last byte waits until it is known that the file was not written over meanwhile:
// if it was, the connection ends, and the client has no whole message. wmu must be held.
func (c *conn) sendChecked(p zcore.Piece) error {
	most := p
	most.Len--
	if err := sendfile(c.raw.(syscall.Conn), most); err != nil {
		return err
	}
	last := make([]byte, 1)
	if err := readFile(p.File, last, p.Off+int64(most.Len)); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	c.vec = append(c.vec, last)
	return nil
}

// writeVec writes what is in vec, and empties it. wmu must be held.
func (c *conn) writeVec() error {
	if len(c.vec) == 0 {
		return nil
	}
	_, err := c.vec.WriteTo(c.raw)
	c.vec = c.vecs[:0]
	return err
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
