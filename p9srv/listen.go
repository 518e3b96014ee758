package p9srv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// address is an ADDR of --9p, checked.
type address struct {
	kind string // unix, tcp, tls, fd, systemd
	rest string // PATH, HOST:PORT, N
}

// parseAddr refuses what is wrong, or unsafe without an option that says so.
func (s *Server) parseAddr(addr string) (address, error) {
	kind, rest, _ := strings.Cut(addr, ":")
	a := address{kind, rest}
	var err error
	switch kind {
	case "unix":
		if rest == "" {
			err = errors.New("no path: use unix:PATH")
		}
	case "tcp":
		a.rest, err = s.checkTCP(rest)
	case "tls":
		err = s.checkTLS(rest)
	case "fd":
		if n, e := strconv.Atoi(rest); e != nil || n < 0 {
			err = errors.New("no descriptor: use fd:N")
		}
	case "systemd":
		if rest != "" {
			err = errors.New("nothing may follow systemd")
		}
	default:
		err = errors.New("use unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, fd:N or systemd")
	}
	if err != nil {
		return address{}, fmt.Errorf("--9p %s: %w", addr, err)
	}
	return a, nil
}

func (s *Server) checkTCP(hostport string) (string, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", fmt.Errorf("use tcp:HOST:PORT: %w", err)
	}
	if host == "localhost" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if !s.opts.Insecure && !loopback(host) {
		return "", errors.New("not a loopback address: anyone who reaches it could read the database; use tls:HOST:PORT, or --insecure")
	}
	return hostport, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (s *Server) checkTLS(hostport string) error {
	if _, _, err := net.SplitHostPort(hostport); err != nil {
		return fmt.Errorf("use tls:HOST:PORT: %w", err)
	}
	for _, o := range []struct{ name, value string }{
		{"--tls-cert", s.opts.TLSCert}, {"--tls-key", s.opts.TLSKey}, {"--tls-client-ca", s.opts.TLSClientCA},
	} {
		if o.value == "" {
			return fmt.Errorf("%s is needed too", o.name)
		}
	}
	_, err := s.tlsOnce()
	return err
}

// listener is one socket that is listened on.
type listener struct {
	net.Listener
	tls     *tlsState // nil: not TLS
	cleanup func()    // removes the socket's file; may be nil
	once    sync.Once
}

func (l *listener) close() {
	l.once.Do(func() {
		l.Listener.Close()
		if l.cleanup != nil {
			l.cleanup()
		}
	})
}

// Listen begins to serve an address and returns it as it was bound, with the port that was chosen for 0.
// It stops to listen when ctx is done or the Server is closed; connections stay until the latter.
func (s *Server) Listen(ctx context.Context, addr string) (string, error) {
	a, err := s.parseAddr(addr)
	if err != nil {
		return "", err
	}
	ls, bound, err := s.bind(ctx, a)
	if err != nil {
		return "", fmt.Errorf("--9p %s: %w", addr, err)
	}
	for _, l := range ls {
		if err := s.start(ctx, l); err != nil {
			return "", err
		}
	}
	return bound, nil
}

func (s *Server) bind(ctx context.Context, a address) ([]*listener, string, error) {
	switch a.kind {
	case "unix":
		l, err := listenUnix(ctx, a.rest, len(s.opts.AllowUID) > 0)
		return []*listener{l}, "unix:" + a.rest, err
	case "fd":
		n, _ := strconv.Atoi(a.rest)
		l, err := s.inherit(n)
		if l == nil {
			return nil, "fd:" + a.rest, err
		}
		return []*listener{l}, "fd:" + a.rest, err
	case "systemd":
		ls, err := s.inheritAll()
		return ls, "systemd", err
	}
	var lc net.ListenConfig
	nl, err := lc.Listen(ctx, "tcp", a.rest)
	if err != nil {
		return nil, "", err
	}
	l := &listener{Listener: nl}
	if a.kind == "tls" {
		if l.tls, err = s.tlsOnce(); err != nil {
			nl.Close()
			return nil, "", err
		}
	}
	return []*listener{l}, a.kind + ":" + nl.Addr().String(), nil
}

// start accepts connections until the listener is closed.
func (s *Server) start(ctx context.Context, l *listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.close()
		return errServerClosed
	}
	s.listeners[l] = struct{}{}
	stop := context.AfterFunc(ctx, l.close)
	s.wg.Go(func() {
		defer stop()
		s.accept(l)
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	})
	return nil
}

func (s *Server) accept(l *listener) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			s.wg.Go(func() { s.welcome(l, c) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.log.warn("9p: accept failed", "addr", l.Addr(), "cause", err)
			time.Sleep(100 * time.Millisecond) // mostly out of descriptors: some will be closed
		}
	}
}

// welcome looks at where a connection comes from and serves it.
func (s *Server) welcome(l *listener, c net.Conn) {
	p := &peer{name: "tcp", addr: c.RemoteAddr().String()}
	switch uc, isUnix := c.(*net.UnixConn); {
	case isUnix:
		uid, err := peerUID(uc)
		if err == nil && !s.allowed(uid) {
			err = fmt.Errorf("user %d is not the server's, nor in --9p-allow-uid", uid)
		}
		if err != nil {
			s.refusedConns.Add(1)
			s.log.warn("9p: connection refused", "cause", err)
			c.Close()
			return
		}
		p.name, p.addr = "unix:"+strconv.FormatUint(uint64(uid), 10), ""
	case l.tls != nil:
		p.name, p.checks = "tls", l.tls
		p.tls = tls.Server(c, l.tls.server)
		c = p.tls
	}
	s.serveConn(p, c)
}

func (s *Server) allowed(uid uint32) bool {
	if uid == 0 || uid == uint32(s.uid) {
		return true
	}
	for _, u := range s.opts.AllowUID {
		if u == uid {
			return true
		}
	}
	return false
}

func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// listenUnix makes a socket that only its owner can connect to, or anyone when users are told apart
// by --9p-allow-uid. It removes a socket that nobody listens on any more, and nothing else.
func listenUnix(ctx context.Context, path string, shared bool) (*listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	mode := uint32(0o600)
	if shared {
		mode = 0o666
	}
	// The file gets the mode that its socket has when it is bound, so it never has another.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), mode) }); e != nil {
			return e
		}
		return err
	}}
	nl, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	nl.(*net.UnixListener).SetUnlinkOnClose(false)
	l := &listener{Listener: nl}
	ours, err := os.Lstat(path)
	if err == nil && shared {
		err = os.Chmod(path, fs.FileMode(mode)) // umask took from it
	}
	if err != nil {
		nl.Close()
		return nil, err
	}
	l.cleanup = func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, ours) {
			os.Remove(path)
		}
	}
	return l, nil
}

func removeStale(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("another server listens on %s: stop it first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
