package neo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

var errSilent = errors.New("the server sends nothing though it owes an answer")

// conn is one connection to a node, whose protocol is agreed on. It dies once, with the first error.
//
// Goroutines: read handles what comes, in order; write sends; watch gives up a silent server. All end when
// the connection dies.
type conn struct {
	nc     net.Conn
	raw    net.Conn // below TLS. Only this one is closed: a master may never get over a close_notify
	br     *bufio.Reader
	gen    generation
	opt    Options
	notify func(message) error // called by read with what is no answer
	sendq  chan []byte
	life   context.Context    // done when the connection has died
	end    context.CancelFunc // of life
	done   <-chan struct{}    // of life
	room   *semaphore.Weighted
	wg     sync.WaitGroup

	heard  atomic.Int64 // bytes that came so far
	expect atomic.Int64 // bytes of an answer with data, as of late: the largest, slowly forgotten
	loads  atomic.Int64 // asked for and not answered

	mu     sync.Mutex
	err    error            // guarded by mu; why it died
	calls  map[uint32]*call // guarded by mu
	nextID uint32           // guarded by mu
}

// call is a request on the wire. It outlives a caller that was cancelled, so that the window is not widened
// by those who give up.
type call struct {
	code   uint16        // of the answer
	hook   func(message) // called by read with the answer, before anything that came later; may be nil
	room   int64         // bytes of room taken
	answer chan result   // gets one
}

type result struct {
	msg message
	err error
}

// newConn shakes hands on nc, whose TCP connection is raw, and takes it over. On failure it is closed.
func newConn(ctx context.Context, nc, raw net.Conn, opt Options) (*conn, error) {
	c := &conn{
		nc: nc, raw: raw, opt: opt,
		sendq: make(chan []byte, 2*opt.Window),
		room:  semaphore.NewWeighted(maxInFlight),
		calls: map[uint32]*call{},
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.done = c.life.Done()
	c.expect.Store(maxInFlight / 3)
	c.br = bufio.NewReaderSize(hearing{nc, &c.heard}, 64<<10)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err := c.hello()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no greeting of a NEO server: %w", context.Cause(ctx))
		}
		return nil, err
	}
	return c, nil
}

// hello reads which protocol the server speaks, and then says that it is agreed to.
func (c *conn) hello() (err error) {
	if c.gen, err = readHello(c.br); err != nil {
		if !isRefusal(err) {
			err = fmt.Errorf("no greeting of a NEO server: %w", err)
		}
		return err
	}
	_, err = c.nc.Write(c.gen.hello())
	return err
}

// start has messages read and sent. notify must not wait for anything.
func (c *conn) start(notify func(message) error) {
	c.notify = notify
	c.wg.Add(3)
	go c.read()
	go c.write()
	go c.watch()
}

// hearing counts what is read.
type hearing struct {
	io.Reader
	n *atomic.Int64
}

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.Reader.Read(b)
	h.n.Add(int64(n))
	return n, err
}

// die ends the connection because of err; only the first one counts. It does not wait.
func (c *conn) die(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.calls = nil
	c.mu.Unlock()
	c.end()
	c.raw.Close()
}

// close is die, and waits for the goroutines.
func (c *conn) close(err error) {
	c.die(err)
	c.wg.Wait()
}

// cause tells why the connection died, nil if it lives.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ask sends a request and waits for its answer. An error that the server answers with is a *serverError, a
// connection that dies meanwhile a *lostError.
func (c *conn) ask(ctx context.Context, req message) (message, error) {
	return c.askHook(ctx, req, nil)
}

func (c *conn) askHook(ctx context.Context, req message, hook func(message)) (message, error) {
	q := &call{code: codeOf(c.gen, req) | isAnswer, hook: hook, answer: make(chan result, 1)}
	if _, ok := req.(*askObject); ok {
		if err := c.takeRoom(ctx, q); err != nil {
			return nil, err
		}
	}
	if err := c.send(ctx, q, req); err != nil {
		return nil, err
	}
	select {
	case r := <-q.answer:
		return r.msg, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case r := <-q.answer: // it came just before the end
		return r.msg, r.err
	default:
		return nil, &lostError{c.cause()}
	}
}

// send numbers a request and has it sent.
func (c *conn) send(ctx context.Context, q *call, req message) error {
	id, b, err := c.enter(q, req)
	if err != nil {
		c.giveRoom(q, 0)
		return err
	}
	select {
	case c.sendq <- b:
		return nil
	case <-ctx.Done():
		c.leave(id, q)
		return context.Cause(ctx)
	case <-c.done:
		return &lostError{c.cause()}
	}
}

// enter numbers a request, whose answer is waited for from now on.
func (c *conn) enter(q *call, req message) (id uint32, b []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, &lostError{c.err}
	}
	id = c.nextID
	if b, err = c.gen.encode(id, req); err != nil {
		return 0, nil, err
	}
	c.nextID++
	c.calls[id] = q
	return id, b, nil
}

// leave forgets a request that was not sent.
func (c *conn) leave(id uint32, q *call) {
	c.mu.Lock()
	_, there := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if there {
		c.giveRoom(q, 0)
	}
}

func (c *conn) write() {
	defer c.wg.Done()
	w := bufio.NewWriterSize(c.nc, 16<<10)
	for {
		select {
		case <-c.done:
			return
		case b := <-c.sendq:
			_, err := w.Write(b)
			if err == nil && len(c.sendq) == 0 {
				err = w.Flush()
			}
			if err != nil {
				c.die(err)
				return
			}
		}
	}
}

func (c *conn) read() {
	defer c.wg.Done()
	for {
		e, err := c.gen.readMessage(c.br, c.opt.MaxMessage)
		var bad *unreadableError
		switch {
		case err == nil:
			err = c.handle(&e)
		case errors.As(err, &bad) && e.answer():
			// It is the answer to one request, which shall not fail others again and again.
			if lost := c.answered(&e, badAnswer("%v", err)); lost != nil || !bad.last {
				err = lost
			}
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("the server closed the connection")
		}
		if err != nil {
			c.die(err)
			return
		}
	}
}

// handle does with one message what is to be done. A message that is no answer has a number of the server's
// count, which may equal the number of a request of ours.
func (c *conn) handle(e *envelope) error {
	if e.answer() {
		return c.answered(e, nil)
	}
	switch e.msg.(type) {
	case nil:
		c.opt.Log.Warn("NEO server sends a message that is not known: ignored", "code", fmt.Sprintf("%#04x", e.code))
		return nil
	case *ping:
		return c.pong(e.id)
	case *closeClient, *flushLog:
		return nil
	}
	return c.notify(e.msg)
}

// answered passes an answer on, or why it cannot be read.
func (c *conn) answered(e *envelope, unreadable error) error {
	c.mu.Lock()
	q := c.calls[e.id]
	delete(c.calls, e.id)
	c.mu.Unlock()
	if q == nil {
		return fmt.Errorf("the server answers a request (%d) that was not made", e.id)
	}
	r := result{msg: e.msg, err: unreadable}
	switch m := e.msg.(type) {
	case *answerError:
		r = result{err: asServerError(m)}
	default:
		if r.err == nil && e.code != q.code {
			r = result{err: badAnswer("message %#04x where %#04x was to come", e.code, q.code)}
		}
		if r.err == nil && q.hook != nil {
			q.hook(m)
		}
	}
	q.answer <- r
	c.giveRoom(q, e.size)
	return nil
}

// pong answers a server that wants to know whether we live.
func (c *conn) pong(id uint32) error {
	b, err := c.gen.encode(id, new(pong))
	if err != nil {
		return err
	}
	select {
	case c.sendq <- b:
	default: // what is queued already shows that we live
	}
	return nil
}

// watch gives the connection up when the server owes an answer and sends nothing for four ticks on end; after
// two it asks, so that it does owe one. It counts ticks, not time, so that a process that was stopped for a
// while does not blame the server.
func (c *conn) watch() {
	defer c.wg.Done()
	tick := time.NewTicker(max(c.opt.silence()/4, time.Millisecond))
	defer tick.Stop()
	var heard int64
	for quiet := 0; ; {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		if now := c.heard.Load(); now != heard {
			heard, quiet = now, 0
			continue
		}
		switch quiet++; quiet {
		case 2:
			c.ping()
		case 4:
			c.die(errSilent)
			return
		}
	}
}

// ping asks something and does not wait for the answer.
func (c *conn) ping() {
	q := &call{code: codeOf(c.gen, new(pong)), answer: make(chan result, 1)}
	id, b, err := c.enter(q, new(ping))
	if err != nil {
		return
	}
	select {
	case c.sendq <- b:
	default: // what is queued already will do
		c.leave(id, q)
	}
}
