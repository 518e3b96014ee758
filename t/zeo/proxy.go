package zeo

import (
	"net"
	"sync"
)

// Proxy passes bytes on between clients and a server, until it is told to misbehave.
type Proxy struct {
	Addr    string // where clients connect to
	network string
	target  string
	l       net.Listener

	mu     sync.Mutex
	refuse bool                // guarded by mu; close what connects
	conns  map[*proxyConn]bool // guarded by mu; those open
	wg     sync.WaitGroup
}

type proxyConn struct {
	client, server net.Conn

	mu     sync.Mutex
	cond   *sync.Cond
	frozen bool // guarded by mu; nothing passes
}

// Proxy puts a proxy in front of the server.
func (s *Server) Proxy() *Proxy { return NewProxy(s.t, s.network(), s.Addr) }

// NewProxy puts a proxy in front of whatever is at target.
func NewProxy(t TB, network, target string) *Proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), network: network, target: target, l: l, conns: map[*proxyConn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL is the database URL through the proxy.
func (p *Proxy) URL() string { return URL("tcp", p.Addr, "storage=1") }

func (p *Proxy) close() {
	p.l.Close()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		nc, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(nc) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(p.network, p.target)
	if err != nil {
		return
	}
	defer server.Close()
	c := &proxyConn{client: client, server: server}
	c.cond = sync.NewCond(&c.mu)
	p.mu.Lock()
	if p.refuse {
		p.mu.Unlock()
		return
	}
	p.conns[c] = true
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(server, client) })
	wg.Go(func() { c.pass(client, server) })
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pass copies until either side ends, and ends both.
func (c *proxyConn) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		for c.frozen {
			c.cond.Wait()
		}
		c.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *proxyConn) freeze(frozen bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = frozen
	c.cond.Broadcast()
}

func (p *Proxy) open() []*proxyConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*proxyConn
	for c := range p.conns {
		list = append(list, c)
	}
	return list
}

// Cut ends all connections and tells how many there were.
func (p *Proxy) Cut() int {
	list := p.open()
	for _, c := range list {
		c.client.Close()
		c.server.Close()
		c.freeze(false)
	}
	return len(list)
}

// Refuse makes the proxy end whatever connects, or take it again.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Freeze makes the connections that are open half-open: they stay, and nothing passes any more.
func (p *Proxy) Freeze() {
	for _, c := range p.open() {
		c.freeze(true)
	}
}
