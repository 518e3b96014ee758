package zcore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// Link is one open of head/watch.
type Link struct {
	c    *Core
	dom  *Domain
	proc Process // nil where there is no process to kill
	// baseOnly: the client's reads go through a page cache that is not controlled (virtfs).
	baseOnly bool

	id     int64         // for people: the number of the link since the start
	since  time.Time     // when it was opened
	window chan struct{} // a place for each pin that is sent and not acknowledged
	owner  *owner        // whom it counts for
	// staller is whose budget of other clients' time it spends; "" nobody's.
	staller string

	ctx    context.Context // ends when the link has ended: nothing of it is waited for any more
	cancel context.CancelCauseFunc
	more   chan struct{} // cap 1; told when out grew or ended

	mu     sync.Mutex
	out    []byte                    // mu; lines for the client
	ended  bool                      // mu; no more lines: end of file after out
	in     []byte                    // mu; an incomplete line of the client's
	deaf   bool                      // mu; what the client writes is ignored
	closed bool                      // mu; the client closed its last descriptor
	stream uint64                    // mu; last stream a request of ours went out on
	asked  map[uint64]*asked         // mu; our requests without a reply
	order  []uint64                  // mu; their streams, ascending; some may have a reply
	byOid  map[zodb.Oid]*watchOnLink // mu

	fault    sync.Once
	poisoned atomic.Bool   // a client that cannot be killed did not acknowledge: its blocks are unreadable
	killed   chan struct{} // closed when a faulty client has been dealt with
}

// asked is a request of the server's under way.
type asked struct {
	reply chan string // cap 1
	sent  time.Time
	pin   watchproto.Pin
	msg   *pinMsg       // who waits for it
	late  bool          // nobody wants the reply any more
	gone  chan struct{} // closed when the link is closed by the client
}

// maxUnread is how many bytes of what it was sent a client may leave unread and still ask for more.
const maxUnread = 16 << 20

// maxOwed is how many pins, most of watches that are gone, a client may leave without reply and still ask for more.
const maxOwed = 1 << 16

var (
	errLinkEnded    = errors.New("watch link has ended")
	errDomainFailed = fmt.Errorf("a client of this guest did not acknowledge a pin: %w", ErrIO)
)

// OpenLink opens a watch link for a client in dom; proc is the process to kill if it does not
// acknowledge, nil where there is none.
func (c *Core) OpenLink(dom *Domain, proc Process) (*Link, error) {
	if c.isFailed() {
		return nil, ErrNotConn
	}
	owner, err := c.addLink(dom, proc)
	if err != nil {
		return nil, err
	}
	l := &Link{
		owner: owner, staller: staller(dom, proc), window: make(chan struct{}, c.opts.PinWindow),
		id: c.linkID.Add(1), since: time.Now(),
		c: c, dom: dom, proc: proc, more: make(chan struct{}, 1),
		asked: map[uint64]*asked{}, byOid: map[zodb.Oid]*watchOnLink{}, killed: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(c.ctx)
	c.nLink.Add(1)
	c.mu.Lock()
	c.links[l] = struct{}{}
	c.mu.Unlock()
	l.debug("watch link opened")
	context.AfterFunc(l.ctx, func() {
		c.mu.Lock()
		delete(c.links, l)
		c.mu.Unlock()
	})
	return l, nil
}

// OpenBaseLink opens a link for a client that comes through the FUSE mount but has a page cache of its
// own in between, and whose process must not be killed: QEMU. It takes base watches only.
func (c *Core) OpenBaseLink(dom *Domain) (*Link, error) {
	l, err := c.OpenLink(dom, nil)
	if err == nil {
		l.baseOnly = true
	}
	return l, err
}

// Read returns at least one byte and at most size of the lines for the client; it blocks until there
// are some. At the end of the link: 0 bytes.
func (l *Link) Read(ctx context.Context, size int) ([]byte, error) {
	for {
		l.mu.Lock()
		n := min(size, len(l.out))
		p, ended := l.out[:n:n], l.ended
		l.out = l.out[n:]
		more := len(l.out) > 0
		l.mu.Unlock()
		if n > 0 || ended || size <= 0 {
			if more || ended {
				l.wake() // for other readers
			}
			return p, nil
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return nil, ErrInterrupted
		case <-l.c.failed:
			return nil, ErrNotConn
		}
	}
}

func (l *Link) wake() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// push queues a line for the client.
func (l *Link) push(stream uint64, msg string) {
	l.mu.Lock()
	if !l.ended {
		l.out = append(l.out, watchproto.Line(stream, msg)...)
	}
	l.mu.Unlock()
	l.wake()
}

// Write takes bytes from the client; lines may come in pieces.
func (l *Link) Write(ctx context.Context, p []byte) (int, error) {
	if l.c.isFailed() {
		return 0, ErrNotConn
	}
	l.mu.Lock()
	if l.deaf {
		l.mu.Unlock()
		return len(p), nil
	}
	l.in = append(l.in, p...)
	var lines []string
	for {
		i := bytes.IndexByte(l.in, '\n')
		if i < 0 {
			break
		}
		lines = append(lines, string(l.in[:i+1]))
		l.in = l.in[i+1:]
	}
	tooLong := ""
	if len(l.in) > watchproto.MaxLine {
		tooLong = string(l.in[:80])
	}
	l.mu.Unlock()
	for _, line := range lines {
		l.handle(line)
	}
	if tooLong != "" {
		l.hangUp(fmt.Sprintf("invalid frame: %q (line is too long)", tooLong))
	}
	return len(p), nil
}

// handle does one line of the client's.
func (l *Link) handle(line string) {
	l.mu.Lock()
	deaf, unread, owed := l.deaf, len(l.out), len(l.asked)
	l.mu.Unlock()
	if deaf {
		return
	}
	stream, msg, err := watchproto.Frame(line)
	switch {
	case err != nil:
		l.hangUp(err.Error())
	case stream%2 == 0:
		l.gotReply(stream, msg)
	case msg == "bye":
		l.end()
	case unread > maxUnread:
		l.hangUp(fmt.Sprintf("%d bytes of replies are not being read", unread))
	case owed > maxOwed:
		l.hangUp(fmt.Sprintf("%d pins are not being acknowledged", owed))
	default:
		r, err := watchproto.ParseRequest(msg)
		if err != nil {
			l.push(stream, "error "+err.Error())
			return
		}
		l.request(stream, r)
	}
}

// gotReply gives a reply to whoever waits for it.
func (l *Link) gotReply(stream uint64, msg string) {
	l.mu.Lock()
	a := l.asked[stream]
	delete(l.asked, stream)
	l.mu.Unlock()
	if a == nil {
		l.hangUp(fmt.Sprintf("%d: reply on unexpected stream", stream))
		return
	}
	if !a.late {
		a.reply <- msg
	}
}

// ask sends a request on the next stream, or returns nil if the client has closed the link or ctx is done: whoever
// ends ctx and then tells the client so can be sure that the request does not come after that.
func (l *Link) ask(ctx context.Context, pin watchproto.Pin, m *pinMsg) (uint64, *asked) {
	l.mu.Lock()
	if l.closed || ctx.Err() != nil {
		l.mu.Unlock()
		return 0, nil
	}
	l.stream += 2
	stream, a := l.stream, &asked{reply: make(chan string, 1), sent: time.Now(), pin: pin, msg: m, gone: make(chan struct{})}
	l.asked[stream] = a
	l.order = append(l.order, stream)
	if !l.ended { // here, so that streams ascend
		l.out = append(l.out, watchproto.Line(stream, pin.String())...)
	}
	l.mu.Unlock()
	l.wake()
	return stream, a
}

// oldest tells whether a request is the oldest of those whose reply is waited for: a client may answer them one after another.
func (l *Link) oldest(stream uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.order) > 0 {
		if a := l.asked[l.order[0]]; a != nil && !a.late {
			break
		}
		l.order = l.order[1:]
	}
	return len(l.order) > 0 && l.order[0] == stream
}

// forgetReply has the reply to a request ignored, whatever it is. If that was the last thing that a
// client owed who has closed the link meanwhile, the link ends in peace.
func (l *Link) forgetReply(stream uint64) {
	l.mu.Lock()
	if a := l.asked[stream]; a != nil {
		a.late = true
	}
	over := l.closed && !l.owesLocked()
	l.mu.Unlock()
	if over {
		l.stop(errLinkEnded)
	}
}

// owesLocked reports whether a reply is waited for. mu must be held.
func (l *Link) owesLocked() bool {
	for _, a := range l.asked {
		if !a.late {
			return true
		}
	}
	return false
}

// hangUp ends the link because of what the client wrote; the client is told why, and not killed.
func (l *Link) hangUp(why string) {
	l.push(0, "error: "+why)
	l.end()
}

// end ends the link in peace: pins under way are cancelled, watches are gone, the client reads EOF.
func (l *Link) end() {
	l.mu.Lock()
	l.deaf, l.ended = true, true
	l.mu.Unlock()
	l.wake()
	l.stop(errLinkEnded)
}

// stop removes all watches and ends whatever waits for the link.
func (l *Link) stop(cause error) {
	l.cancel(cause) // first: whoever is about to enter a watch sees that, or has it found here
	ws := l.watches()
	l.mu.Lock()
	clear(l.byOid)
	l.mu.Unlock()
	for _, w := range ws {
		w.remove()
	}
}

// Close ends the link: the client closed its last descriptor. With a pin that was sent and is not
// acknowledged that is a fault.
func (l *Link) Close() {
	l.debug("watch link closed")
	l.c.nLink.Add(-1)
	l.c.dropLink(l.owner)
	l.mu.Lock()
	ended := l.ended
	l.deaf, l.ended, l.closed = true, true, true
	owed := l.owesLocked()
	for _, a := range l.asked {
		close(a.gone)
	}
	l.mu.Unlock()
	l.wake()
	if !owed || ended || l.ctx.Err() != nil {
		l.stop(errLinkEnded)
	}
	if l.proc != nil {
		context.AfterFunc(l.ctx, l.proc.Close)
	}
}
