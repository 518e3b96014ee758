package p9srv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstInherited is where systemd puts sockets (sd_listen_fds(3)).
const firstInherited = 3

// inheritAll takes the sockets that systemd has passed.
func (s *Server) inheritAll() ([]*listener, error) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); err != nil || n <= 0 || pid != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("systemd passed no socket: start it by a .socket unit")
	}
	var ls []*listener
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		l, err := s.inherit(fd)
		if err != nil {
			return nil, err
		}
		if l != nil {
			ls = append(ls, l)
		}
	}
	return ls, nil
}

// inherit takes a descriptor that this process was started with: a listening socket, or a connection, which
// it begins to serve (then there is no listener), a console device too.
func (s *Server) inherit(fd int) (*listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "fd:"+strconv.Itoa(fd))
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case errors.Is(err, unix.ENOTSOCK):
		return nil, s.serveInherited(fileConn{f})
	case err != nil:
		return nil, err
	case listens == 0:
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		return nil, s.serveInherited(c)
	}
	nl, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	if a, ok := nl.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() && !s.opts.Insecure {
		nl.Close()
		return nil, fmt.Errorf("socket %d listens on %v, which is not loopback: use tls:HOST:PORT, or --insecure", fd, a)
	}
	return &listener{Listener: nl}, nil
}

func (s *Server) serveInherited(c net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return errServerClosed
	}
	s.wg.Go(func() { s.ServeConn(c, "fd") })
	return nil
}

// fileConn is a device that carries one connection.
type fileConn struct{ *os.File }

// LocalAddr is of no use here.
func (c fileConn) LocalAddr() net.Addr { return &net.UnixAddr{Name: c.Name()} }

// RemoteAddr is of no use here.
func (c fileConn) RemoteAddr() net.Addr { return c.LocalAddr() }
