package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// relay gives a guest a Unix socket of the host: a port of the loopback, which guests reach, of which each
// connection is passed on. The socket's permissions decide who may use it; therefore the port takes connections
// of this user's processes only, such as QEMU.
type relay struct {
	listen net.Listener
	target string
}

// startRelay listens until Close; target is the socket's path.
func startRelay(target string) (*relay, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{l, target}
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go r.serve(c.(*net.TCPConn))
			}
		}
	}()
	return r, nil
}

// Port is where it listens.
func (r *relay) Port() int { return r.listen.Addr().(*net.TCPAddr).Port }

// Close takes no more connections; those that are end with the guest.
func (r *relay) Close() { r.listen.Close() }

func (r *relay) serve(c *net.TCPConn) {
	defer c.Close()
	if uid, err := tcpOwner(c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)); err != nil || uid != os.Getuid() {
		return
	}
	s, err := net.Dial("unix", r.target)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(c, s)
}

// tcpOwner is the user whose socket is at from, connected to to, by /proc/net/tcp.
func tcpOwner(from, to *net.TCPAddr) (int, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	a, b := procAddr(from), procAddr(to)
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if w := strings.Fields(scan.Text()); len(w) > 7 && w[1] == a && w[2] == b {
			return strconv.Atoi(w[7])
		}
	}
	return 0, fmt.Errorf("no connection from %v to %v", from, to)
}

// procAddr writes an address as /proc/net/tcp does: bytes of the address last first, then the port.
func procAddr(a *net.TCPAddr) string {
	ip := a.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
}
