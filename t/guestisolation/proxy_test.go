package guestisolation

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy passes connections on to a server until it is told to cut them.
type proxy struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	conns []net.Conn // guarded by mu; both ends of each
}

func startProxy(t *testing.T, s *server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, to: "127.0.0.1:" + s.port} // which stays the same when the server is started again
	t.Cleanup(func() { l.Close(); p.cut() })
	go p.run()
	return p
}

func (p *proxy) port() string {
	_, port, _ := net.SplitHostPort(p.l.Addr().String())
	return port
}

func (p *proxy) run() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, c, up)
		p.mu.Unlock()
		pass := func(to, from net.Conn) { _, _ = io.Copy(to, from); to.Close(); from.Close() }
		go pass(up, c)
		go pass(c, up)
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}
