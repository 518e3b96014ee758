package p9srv

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wcfs/zcore"
)

// conn is one client. Its fields without a guard belong to the goroutine that reads, whose turn it is.
type conn struct {
	srv    *Server
	raw    net.Conn // as the transport has it: TLS is inside
	peer   *peer
	br     *bufio.Reader
	ctx    context.Context // done when the connection ends
	cancel context.CancelFunc
	bytes  share
	s      *session // nil before the first Tversion
	timed  bool     // a read deadline is set
	told   []string // kinds of lines that are in the log for it
	hdr    [headerLen]byte
	buf    [maxBody]byte
	turn   turn

	domain atomic.Pointer[zcore.Domain] // of the first attach

	wmu    sync.Mutex
	broken bool           // a write failed: nothing more is sent; guarded by wmu
	bw     *bufio.Writer  // for transports without writev; nil else; guarded by wmu
	vec    net.Buffers    // what one writev writes; guarded by wmu
	vecs   [4][]byte      // memory of vec, most often; guarded by wmu
	piece  [1]zcore.Piece // what write sends; guarded by wmu

	causeMu sync.Mutex
	cause   error // why the server ended it; guarded by causeMu
}

// end closes the connection; the first cause is logged when it is gone.
func (c *conn) end(cause error) {
	c.causeMu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.causeMu.Unlock()
	c.cancel()
	c.peer.hangUp(c.raw)
}

// serve reads messages until the connection ends, and returns when nothing of it is left.
func (c *conn) serve() {
	err := c.greet()
	if err == nil {
		err = c.readOn()
	}
	if errors.Is(err, errReplaced) {
		<-c.turn.ended
	} else {
		c.endOfMessages(err)
	}
	if c.s != nil {
		c.s.end()
	}
	if d := c.domain.Load(); d != nil && c.srv.opts.DomainGone != nil {
		c.srv.opts.DomainGone(d)
	}
	c.causeMu.Lock()
	cause := c.cause
	c.causeMu.Unlock()
	if cause != nil && !errors.Is(cause, errServerClosed) {
		c.srv.log.warn("9p: connection closed", "peer", c.peer.String(), "cause", cause)
	}
}

// endOfMessages ends the connection when reading has ended.
func (c *conn) endOfMessages(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err) {
		err = nil // the client left, or end was called
	}
	c.end(err)
}

// greet makes sure of the peer, within the deadline for the first Tversion.
func (c *conn) greet() error {
	c.timed = true
	if err := c.raw.SetReadDeadline(time.Now().Add(c.srv.opts.HandshakeTimeout)); err != nil {
		return err
	}
	return c.peer.handshake(c.ctx)
}

// next reads and handles one message.
func (c *conn) next() error {
	if c.s != nil && c.timed {
		c.timed = false
		if err := c.raw.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if _, err := c.br.Peek(1); err != nil {
		return c.late(err)
	}
	if err := c.expect(headerLen); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.br, c.hdr[:]); err != nil {
		return c.late(err)
	}
	r := &request{msg: message{header: parseHeader(&c.hdr)}}
	m := &r.msg
	limit := uint32(maxBody)
	if c.s != nil {
		limit = c.s.msize
	}
	if c.s == nil && m.typ != tVersion {
		r.fail(ErrNoVersion)
		c.write(r.reply)
		return ErrNoVersion
	}
	if m.size < headerLen || m.size > limit {
		return ErrMessageSize
	}
	if err := c.expect(int(m.size) - headerLen); err != nil {
		return err
	}
	body, bodyErr, err := c.body(m)
	if err != nil {
		return c.late(err)
	}
	c.srv.messages.Add(1)
	if m.typ == tVersion {
		return c.version(r, body, bodyErr)
	}
	return c.s.handle(r, body, bodyErr)
}

// expect sets the deadline for n bytes that belong to a message begun, unless they are here.
func (c *conn) expect(n int) error {
	if c.timed || c.br.Buffered() >= n {
		return nil
	}
	c.timed = true
	return c.raw.SetReadDeadline(time.Now().Add(c.srv.opts.StallTimeout))
}

// late names what a deadline that passed was for.
func (c *conn) late(err error) error {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case c.s == nil:
		return ErrHandshake
	}
	return ErrStalled
}

// body reads what follows the header: all that is of use, the rest is thrown away as it comes.
func (c *conn) body(m *message) (body []byte, tooLong, err error) {
	n := int(m.size) - headerLen
	keep := min(n, maxBody)
	buf := c.buf[:keep]
	switch {
	case m.typ == tWrite:
		keep = min(n, writeHead-headerLen+maxWrite)
		buf = make([]byte, keep) // outlives this message
	case n > maxBody:
		tooLong = errTooLong
		if m.typ == tWalk {
			tooLong = errLongName
		}
	}
	if _, err := io.ReadFull(c.br, buf); err != nil {
		return nil, nil, err
	}
	if _, err := c.br.Discard(n - keep); err != nil {
		return nil, nil, err
	}
	return buf, tooLong, nil
}

// refused counts a request that ran into a limit, and logs the first such and the first with a bad name.
func (c *conn) refused(err error) {
	switch {
	case isLimit(err):
		c.srv.refusedReqs.Add(1)
		c.tell("9p: requests refused", err)
	case isName(err):
		c.tell("9p: name refused", err)
	}
}

// tell logs what a client did that the server refuses, each kind once.
func (c *conn) tell(what string, cause error) {
	if !slices.Contains(c.told, what) {
		c.told = append(c.told, what)
		c.srv.log.warn(what, "peer", c.peer.String(), "cause", cause)
	}
}

// write sends one frame. When it fails the connection is over, and nobody needs to know here.
func (c *conn) write(f frame) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.piece[0].Mem = f.done(0)
	c.writeLocked(c.piece[:])
}

// writeLocked sends pieces as they are. wmu must be held.
func (c *conn) writeLocked(pieces []zcore.Piece) {
	if c.broken {
		return
	}
	err := c.raw.SetWriteDeadline(time.Now().Add(c.srv.opts.WriteTimeout))
	switch {
	case err != nil:
	case c.isSocket():
		err = c.writePieces(pieces)
	default:
		for _, p := range pieces { // all in memory, see inMemory
			if _, err = c.bw.Write(p.Mem); err != nil {
				break
			}
		}
		if err == nil {
			err = c.bw.Flush()
		}
	}
	if err == nil {
		return
	}
	c.broken = true
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(ErrNotReading)
	} else {
		c.end(nil)
	}
}

// joinDomain asks once in which domain the connection is. One that fails meanwhile is left to its other
// connections, as this one has nothing of it yet: it asks again.
func (c *conn) joinDomain(uname string) {
	if c.domain.Load() != nil || c.srv.opts.Domain == nil {
		return
	}
	for range 2 {
		d := c.srv.opts.Domain(uname, c.peer.credential())
		if c.enter(d) {
			return
		}
		if c.srv.opts.DomainGone != nil {
			c.srv.opts.DomainGone(d)
		}
	}
	c.end(errDomainClosed)
}

// enter makes the connection one of a domain, unless that has failed. It looks and enters in one critical
// section, so that CloseDomain, which comes after the failure, finds each connection that is in the domain.
func (c *conn) enter(d *zcore.Domain) bool {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	if d.Failed() {
		return false
	}
	c.domain.Store(d)
	return true
}

// isReset tells how a client that just goes away looks like.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
