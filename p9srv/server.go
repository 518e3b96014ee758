package p9srv

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

var (
	errServerClosed = errors.New("server is being closed")
	errDomainClosed = errors.New("its domain was closed")
)

// Server serves one tree to any number of connections.
type Server struct {
	opts Options // immutable
	uid  int     // what files belong to
	gid  int
	log  *logger

	conns atomic.Int64
	fids  gauge
	reqs  gauge
	bytes budget

	buffers buffers

	accepted, refusedConns, refusedReqs, messages atomic.Int64

	wg sync.WaitGroup // accept loops and connections

	mu        sync.Mutex
	closed    bool                   // guarded by mu
	live      map[*conn]struct{}     // guarded by mu
	listeners map[*listener]struct{} // guarded by mu
	tls       *tlsState              // made when first needed; guarded by mu
}

// New makes a Server and says what in the options is wrong. It does not listen yet.
func New(opts Options) (*Server, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, uid: os.Geteuid(), gid: os.Getegid(), log: newLogger(opts.Log),
		fids: newGauge(opts.MaxFidsAll, opts.MaxConns), reqs: newGauge(opts.MaxReqsAll, opts.MaxConns),
		bytes: newBudget(opts.MaxBytesAll, opts.MaxBytes, opts.MaxConns),
		live:  make(map[*conn]struct{}), listeners: make(map[*listener]struct{}),
	}
	for _, addr := range opts.Addr {
		if _, err := s.parseAddr(addr); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Close ends listeners and connections and returns when nothing of them is left.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.close()
	}
	for c := range s.live {
		c.end(errServerClosed)
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// lastReplies is how long a connection of a domain that failed stays for the reads in flight, which
// fail now, to be answered: without an answer Linux makes EFAULT of them, not EIO.
const lastReplies = time.Second

// CloseDomain ends the connections of a domain: a watch in it failed, so what its kernel has cached
// cannot be trusted any more. It does not wait for that.
func (s *Server) CloseDomain(d *zcore.Domain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.live {
		if c.domain.Load() == d {
			go c.endAfterReads(errDomainClosed)
		}
	}
}

// endAfterReads ends the connection when no read is in flight, which hold bytes of its budget.
func (c *conn) endAfterReads(cause error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(lastReplies); c.bytes.inUse() > 0 && time.Now().Before(deadline); {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
	}
	c.end(cause)
}

// ServeConn serves a connection that the caller has made, and returns when it has ended. credential is
// what Options.Domain gets to see.
func (s *Server) ServeConn(c net.Conn, credential string) {
	s.serveConn(&peer{name: credential}, c)
}

func (s *Server) serveConn(p *peer, raw net.Conn) {
	if !s.takeConn() {
		s.refusedConns.Add(1)
		s.log.warn("9p: connection refused", "peer", p.String(), "cause", ErrTooManyConns)
		raw.Close()
		return
	}
	defer s.conns.Add(-1)
	s.accepted.Add(1)
	c := &conn{srv: s, raw: raw, peer: p, br: bufio.NewReaderSize(raw, 8<<10), bytes: share{b: &s.bytes}}
	c.initTurn()
	switch raw.(type) {
	case *net.UnixConn, *net.TCPConn:
	default:
		c.bw = bufio.NewWriterSize(raw, 16<<10)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s.mu.Lock()
	s.live[c] = struct{}{}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		c.end(errServerClosed)
	}
	c.serve()
	s.mu.Lock()
	delete(s.live, c)
	s.mu.Unlock()
}

// takeConn counts one more connection, unless there are as many as may be.
func (s *Server) takeConn() bool {
	for n := s.conns.Load(); n < int64(s.opts.MaxConns); n = s.conns.Load() {
		if s.conns.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// Stats is how much is in use now, and what was refused since start.
type Stats struct {
	Conns, Fids, Requests, Bytes  int64 // in use
	Accepted, Messages            int64 // since start
	RefusedConns, RefusedRequests int64 // since start, for a limit
}

// Stats never blocks.
func (s *Server) Stats() Stats {
	return Stats{
		Conns: s.conns.Load(), Fids: s.fids.n.Load(), Requests: s.reqs.n.Load(), Bytes: s.bytes.inUse(),
		Accepted: s.accepted.Load(), Messages: s.messages.Load(),
		RefusedConns: s.refusedConns.Load(), RefusedRequests: s.refusedReqs.Load(),
	}
}

// Lines are the Stats as they go to .wcfs/stats, in a fixed order.
func (st Stats) Lines() []tree.Stat {
	return []tree.Stat{
		{Name: "P9Conn", Value: st.Conns}, {Name: "P9Fid", Value: st.Fids},
		{Name: "P9Req", Value: st.Requests}, {Name: "P9Bytes", Value: st.Bytes},
		{Name: "p9accept", Value: st.Accepted}, {Name: "p9msg", Value: st.Messages},
		{Name: "p9connrefused", Value: st.RefusedConns}, {Name: "p9reqrefused", Value: st.RefusedRequests},
	}
}
