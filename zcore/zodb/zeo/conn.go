package zeo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"wcfs/zcore/zodb"
)

var errSilent = errors.New("the server sends nothing though it owes an answer")

// conn is one connection whose encoding is agreed on. It dies once, with the first error, and is
// not made anew.
//
// Goroutines: read handles what comes, in order; write sends; watch gives up a silent server. All
// end when the connection dies.
type conn struct {
	nc    net.Conn
	br    *bufio.Reader // read by the handshake, then by read
	wire  wire
	opt   Options
	sendq chan []byte         // frames to send
	life  context.Context     // done when the connection has died
	end   context.CancelFunc  // of life
	done  <-chan struct{}     // of life
	room  *semaphore.Weighted // of maxInFlight; loads on the wire take of it, their replies give it back
	wake  chan struct{}       // gets a token when there is something new in queue or overflow
	wg    sync.WaitGroup

	heard  atomic.Int64 // bytes that came so far
	expect atomic.Int64 // bytes of a reply to a load, as of late: the largest, slowly forgotten

	mu     sync.Mutex
	err    error // guarded by mu; why it died
	calls  map[int64]*call
	nextID int64

	// The commits that the server told of, by mu. A commit that finds no room in the queue sets overflow.
	base     zodb.Tid // last transaction when registered, or a phantom: queue begins after it
	head     zodb.Tid // last transaction told of
	queue    []zodb.Commit
	queued   int // objects in queue, and one per commit
	overflow bool
}

// call is a question on the wire. It outlives a caller that was cancelled, so that the window is not
// widened by those who give up.
type call struct {
	method string
	room   int64       // bytes of room taken
	answer chan result // gets one
}

type result struct {
	value any
	err   error
}

// newConn shakes hands on nc and takes it over. On failure nc is closed.
func newConn(ctx context.Context, nc net.Conn, opt Options) (*conn, error) {
	c := &conn{
		nc: nc, opt: opt,
		sendq: make(chan []byte, 2*opt.Window),
		room:  semaphore.NewWeighted(maxInFlight),
		wake:  make(chan struct{}, 1),
		calls: map[int64]*call{},
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.done = c.life.Done()
	c.expect.Store(maxInFlight / 3)
	c.br = bufio.NewReaderSize(hearing{nc, &c.heard}, 64<<10)
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	err := c.hello()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no greeting of a ZEO server: %w", context.Cause(ctx))
		}
		return nil, err
	}
	c.wg.Add(3)
	go c.read()
	go c.write()
	go c.watch()
	return c, nil
}

// hello reads the protocol that the server announces and says that it is agreed to.
func (c *conn) hello() error {
	hello, err := readFrame(c.br, maxHello)
	if err != nil {
		return fmt.Errorf("no greeting of a ZEO server: %w", err)
	}
	if c.wire, err = wireFor(hello); err != nil {
		return &refusal{err}
	}
	_, err = c.nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(hello))), hello...))
	return err
}

// hearing counts what is read.
type hearing struct {
	net.Conn
	n *atomic.Int64
}

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
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
	c.nc.Close()
}

// close is die, and waits for the goroutines.
func (c *conn) close(err error) {
	c.die(err)
	c.wg.Wait()
}

// cause tells why the connection died.
func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// call asks the server and waits for its answer. A connection that dies meanwhile is a *lostError.
func (c *conn) call(ctx context.Context, method string, args ...any) (any, error) {
	q := &call{method: method, answer: make(chan result, 1)}
	if method == "loadBefore" {
		if err := c.takeRoom(ctx, q); err != nil {
			return nil, err
		}
	}
	id, err := c.enter(q)
	if err != nil {
		return nil, err
	}
	select {
	case c.sendq <- c.frame(id, method, args):
	case <-ctx.Done():
		if c.leave(id) {
			c.room.Release(q.room)
		}
		return nil, context.Cause(ctx)
	case <-c.done:
		return nil, &lostError{c.cause()}
	}
	select {
	case r := <-q.answer:
		return r.value, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case r := <-q.answer: // it came just before the end
		return r.value, r.err
	default:
		return nil, &lostError{c.cause()}
	}
}

func (c *conn) frame(id int64, method string, args []any) []byte {
	b := c.wire.encode(make([]byte, 4, 96), id, method, args)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (c *conn) enter(q *call) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, &lostError{c.err}
	}
	c.nextID++
	c.calls[c.nextID] = q
	return c.nextID, nil
}

func (c *conn) leave(id int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.calls[id]
	delete(c.calls, id)
	return there
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
		frame, err := readFrame(c.br, c.opt.MaxFrame)
		if err == nil {
			err = c.handle(frame)
		} else if frame != nil { // it is too long, and the connection ends with it; who asked for it must not ask again
			if m, derr := c.wire.decode(frame); derr != nil {
				c.unreadable(m, err, 0)
			}
		}
		if err != nil {
			c.die(err)
			return
		}
	}
}

// unreadable answers a question with what is wrong with its reply. It returns false when it is not known which.
func (c *conn) unreadable(m message, err error, size int64) bool {
	if m.name != replyName {
		return false
	}
	c.mu.Lock()
	q := c.calls[m.id]
	delete(c.calls, m.id)
	c.mu.Unlock()
	if q == nil {
		return false
	}
	q.answer <- result{err: zodb.Answer(fmt.Errorf("the server answered %s with what cannot be read: %w", q.method, err))}
	if q.room > 0 {
		c.giveRoom(q, size)
	}
	return true
}

// handle does with one frame what is to be done.
func (c *conn) handle(frame []byte) error {
	m, err := c.wire.decode(frame)
	switch {
	case err != nil && c.unreadable(m, err, int64(len(frame))):
		return nil
	case err != nil:
		return fmt.Errorf("the server sends a message that cannot be read: %w", err)
	case m.name == replyName && m.id == -1: // keeps the connection alive
		return nil
	case m.name == replyName:
		return c.answer(m, int64(len(frame)))
	case m.name == "invalidateTransaction":
		return c.commit(m.args)
	case m.name == "info": // sizes
		return nil
	}
	return fmt.Errorf("the server calls %.40q, which a read-only client does not know", m.name)
}

// answer passes a reply on, which came in a frame of so many bytes.
func (c *conn) answer(m message, size int64) error {
	c.mu.Lock()
	q := c.calls[m.id]
	delete(c.calls, m.id)
	if q != nil && m.flag == 0 && q.method == "register" {
		// Set before anything that comes later is handled. Mistakes are for register to find.
		c.base, _ = asTid(m.args)
		c.head = max(c.head, c.base)
	}
	c.mu.Unlock()
	if q == nil {
		return fmt.Errorf("the server answers a question (%d) that was not asked", m.id)
	}
	r := result{value: m.args}
	if m.flag != 0 {
		r = result{err: exception(m.args)}
	}
	q.answer <- r
	if q.room > 0 {
		c.giveRoom(q, size)
	}
	return nil
}

// commit queues a commit that the server tells of.
func (c *conn) commit(args any) error {
	t, _ := args.([]any)
	if len(t) != 2 {
		return badReply("invalidateTransaction", args)
	}
	tid, ok := asTid(t[0])
	oids, ok2 := asOids(t[1])
	if !ok || !ok2 {
		return badReply("invalidateTransaction", args)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if tid <= c.head {
		if c.base == 0 || tid <= c.base { // told of before the answer to register, and counted in it
			return nil
		}
		return fmt.Errorf("the server tells of commit %s after %s", tid, c.head)
	}
	c.head = tid
	if c.overflow || c.queued+len(oids) >= c.opt.MaxQueue {
		c.overflow = true
	} else {
		c.queue = append(c.queue, zodb.Commit{Tid: tid, Oids: oids})
		c.queued += len(oids) + 1
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// take empties the queue. If missing is not 0, commits up to it were told of and not queued.
func (c *conn) take() (commits []zodb.Commit, missing zodb.Tid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	commits = c.queue
	if c.overflow {
		missing = c.head
	}
	c.queue, c.queued, c.overflow = nil, 0, false
	return commits, missing
}

// told returns the last commit that the server told of, 0 for none.
func (c *conn) told() zodb.Tid {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head == c.base {
		return 0
	}
	return c.head
}

// watch gives the connection up when the server owes an answer and sends nothing for four ticks on
// end; after two it asks, so that it does owe one. It counts ticks, not time, so that a process
// that was stopped for a while does not blame the server.
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
	id, err := c.enter(&call{method: "lastTransaction", answer: make(chan result, 1)})
	if err != nil {
		return
	}
	select {
	case c.sendq <- c.frame(id, "lastTransaction", nil):
	default: // what is queued already will do
		c.leave(id)
	}
}
