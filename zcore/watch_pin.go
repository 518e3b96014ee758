package zcore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// pinned is what a client was told about one block.
type pinned struct {
	target zodb.Tid  // the last that was queued, or what the client shows when queue is empty
	queue  []*pinMsg // not acknowledged; the first is being sent or has been
	failed *pinMsg   // one that ended with an error: from then on all do
	at     zodb.Tid  // the watch's at for which target was decided
	view   zodb.Tid  // the view as of which it was
	stuck  bool      // the first of queue cannot be sent: the database does not answer
}

// pinMsg is one pin message.
type pinMsg struct {
	w    *clientWatch // whose client is asked
	blk  Blk
	rev  zodb.Tid      // tidHead: back to the head file
	at   zodb.Tid      // the watch's at for which rev was decided
	done chan struct{} // closed when acknowledged, or when the client does not matter any more
	wait atomic.Int32  // reads that wait for it
	err  error         // set before done is closed: the client is still there, and cannot be protected

	stuck     chan struct{} // closed when it cannot be sent for now: the database does not answer
	noteStuck func()        // closes stuck, once
}

func newPinMsg(w *clientWatch, blk Blk, rev, at zodb.Tid) *pinMsg {
	m := &pinMsg{w: w, blk: blk, rev: rev, at: at, done: make(chan struct{}), stuck: make(chan struct{})}
	m.noteStuck = sync.OnceFunc(func() { close(m.stuck) })
	return m
}

// wantLocked has a block shown at rev, as decided for at at view v. It returns the message to wait
// for, or nil when the client shows that already. w.mu must be held.
func (w *clientWatch) wantLocked(blk Blk, rev, at, v zodb.Tid) *pinMsg {
	if w.gone {
		return nil
	}
	p := w.pins[blk]
	if p == nil {
		if rev == tidHead {
			return nil
		}
		p = &pinned{target: tidHead}
		w.pins[blk] = p
	}
	if p.failed != nil {
		return p.failed
	}
	if p.at == at && p.target == at && rev < at {
		rev = at // shows the same
	}
	if p.at != at || p.view <= v { // else a newer decision for the same at stands
		p.at, p.view = at, v
		if p.target != rev {
			w.countPinned(p.target, rev)
			p.target = rev
			m := newPinMsg(w, blk, rev, at)
			if p.stuck {
				m.noteStuck()
			}
			p.queue = append(p.queue, m)
			if len(p.queue) == 1 {
				go w.send(blk, p, m)
			}
		}
	}
	if n := len(p.queue); n > 0 {
		return p.queue[n-1]
	}
	return nil
}

func (w *clientWatch) countPinned(was, now zodb.Tid) {
	switch {
	case was == tidHead:
		w.l.c.nPinned.Add(1)
	case now == tidHead:
		w.l.c.nPinned.Add(-1)
	}
}

// send sends msg, the first in the queue of a block, and then the others, each after the one before it
// was acknowledged.
func (w *clientWatch) send(blk Blk, p *pinned, msg *pinMsg) {
	for msg != nil {
		if msg.err = w.sendOne(blk, p, msg); msg.err != nil {
			w.failPins(p)
			return
		}
		next := w.sent(blk, p)
		close(msg.done)
		msg = next
	}
}

// failPins ends what is queued with the error of the first.
func (w *clientWatch) failPins(p *pinned) {
	w.mu.Lock()
	queue := p.queue
	p.queue, p.failed = nil, queue[0]
	w.mu.Unlock()
	for _, m := range queue {
		m.err = queue[0].err
		close(m.done)
	}
}

// sent takes the first message off the queue and returns the next. With none left the sender ends: in the
// same critical section, so that whoever queues another one starts the only one there is.
func (w *clientWatch) sent(blk Blk, p *pinned) *pinMsg {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.queue = p.queue[1:]
	if len(p.queue) > 0 {
		return p.queue[0]
	}
	if p.target == tidHead && w.pins[blk] == p {
		delete(w.pins, blk)
	}
	return nil
}

// sendOne sends a pin and waits until it is acknowledged, or until the client does not matter any more.
func (w *clientWatch) sendOne(blk Blk, p *pinned, m *pinMsg) error {
	l := w.l
	if w.l.poisoned.Load() {
		return w.l.after()
	}
	leave := w.enterWindow(p)
	defer leave()
	pin := watchproto.Pin{Oid: w.f.Oid(), Blk: blk, Rev: m.rev, Head: m.rev == tidHead}
	if pin.Head && w.hasBase {
		pin.Head, pin.Rev = false, w.base
	}
	if !pin.Head {
		release := w.keepRev(&pin, p, m)
		defer release()
	}
	l.c.step(StepPinSend)
	stream, a := l.ask(w.ctx, pin, m)
	if a == nil { // the watch is gone, or the link closed: others see to the client, or it owed nothing
		<-w.ctx.Done()
		return l.after()
	}
	l.c.nPin.Add(1)
	l.debug("pin", "pin", pin)
	why, waited := w.waitAck(stream, a)
	l.c.meter.acks.Observe(time.Since(a.sent))
	l.debug("pin ended", "pin", pin, "took", time.Since(a.sent), "cause", why)
	if why != "" {
		l.faulty(pin, why, waited)
	}
	return l.after()
}

// enterWindow takes a place among the pins of the link that are sent and not acknowledged. Readers that need not wait
// for a pin do not wait for a place either.
func (w *clientWatch) enterWindow(p *pinned) (leave func()) {
	leave = func() { <-w.l.window }
	select {
	case w.l.window <- struct{}{}:
		return leave
	default:
	}
	w.setStuck(p, true)
	defer w.setStuck(p, false)
	select {
	case w.l.window <- struct{}{}:
		return leave
	case <-w.ctx.Done():
		return func() {}
	}
}

// after tells what the end of a pin means for those who wait for it: only where a client cannot be
// protected and lives on must they not go on either. When the core has ended nobody is protected.
func (l *Link) after() error {
	switch {
	case l.c.ctx.Err() != nil:
		return ErrNotConn
	case l.dom.Failed() || l.poisoned.Load():
		return errDomainFailed
	}
	return nil
}

// keepRev has the attributes of the file at the revision of a pin ready while the client re-maps. If that
// revision is packed away, the pin is changed to the revision it was decided for: the block is the same then.
func (w *clientWatch) keepRev(pin *watchproto.Pin, p *pinned, m *pinMsg) (release func()) {
	c := w.l.c
	defer w.setStuck(p, false)
	revs := []zodb.Tid{pin.Rev}
	if m.rev != tidHead && m.at > m.rev {
		revs = append(revs, m.at)
	}
	for _, rev := range revs {
		err := c.retry(w.ctx, "pin", func() (err error) {
			release, err = c.keepRev(w.ctx, rev, w.f.Oid(), pin.Blk)
			if zodb.KindOf(err) != zodb.KindAnswer {
				w.setStuck(p, true)
			}
			return err
		})
		if err == nil {
			pin.Rev = rev
			return release
		}
		if w.ctx.Err() != nil {
			break
		}
	}
	return func() {} // bad data: the client will find out when it opens the file
}

// setStuck notes whether what is queued for a block can be sent as far as the database is concerned.
func (w *clientWatch) setStuck(p *pinned, stuck bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.stuck = stuck; stuck {
		for _, m := range p.queue {
			m.noteStuck()
		}
	}
}

// waitAck waits for the reply to a pin; it returns what is wrong, or "". While the database does not
// answer the clock stands still, and it does until all pins sent before this one on the link are acknowledged: a client that
// goes on acknowledging is never too slow. waited is the time on the clock.
func (w *clientWatch) waitAck(stream uint64, a *asked) (why string, waited time.Duration) {
	l := w.l
	tick := time.NewTicker(max(min(l.c.opts.PinTimeout/100, stallPatience/5), time.Millisecond))
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case msg := <-a.reply:
			if msg == "ack" || w.ctx.Err() != nil { // if the pin is off, the reply may be anything
				return "", 0
			}
			return fmt.Sprintf("expect %q; got %q", "ack", msg), waited
		case <-a.gone:
			if w.ctx.Err() == nil {
				return "watch link closed", waited
			}
			l.forgetReply(stream)
			return "", 0
		case <-w.ctx.Done():
			l.forgetReply(stream)
			return "", 0
		case <-l.killed: // for another pin: that is never answered, so this one's clock would not run
			l.forgetReply(stream)
			return "", 0
		case now := <-tick.C:
			if l.c.reachable() && l.oldest(stream) {
				waited += now.Sub(last)
			}
			last = now
			if limit := l.patience(); waited >= limit && w.ctx.Err() == nil {
				return fmt.Sprintf("no reply within %s", limit), waited
			}
		}
	}
}

// pinReaders has every watch that must not see a block as of view v pin it, and returns what to wait for. If
// the history of the block is not available, the result is an error, and each watch pins the block as of its
// at, which is always right.
func (f *HeadFile) pinReaders(ctx context.Context, dom *Domain, blk Blk, v zodb.Tid) (msgs []*pinMsg, err error) {
	ws := f.watchesBelow(dom, f.c.tail.RevUpper(f.h, blk, v))
	if len(ws) == 0 {
		return nil, nil
	}
	rev, err := f.c.tail.LastChange(ctx, f.h, blk, v)
	for _, w := range ws {
		var m *pinMsg
		werr := err
		if werr == nil {
			m, werr = w.protect(ctx, blk, rev, v)
		}
		if werr != nil {
			m, err = w.protectAt(blk, v), werr
		}
		if m != nil {
			msgs = append(msgs, m)
		}
	}
	if err != nil {
		err = f.c.ioError(ctx, err, "history of block of", f.Oid(), v)
	}
	return msgs, err
}

// protectAt has the watch pin a block as of its at, unless view v shows nothing newer. Nothing is asked of the database.
func (w *clientWatch) protectAt(blk Blk, v zodb.Tid) *pinMsg {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at >= v {
		return nil
	}
	return w.wantLocked(blk, w.at, w.at, v)
}

// waitPins waits until all are acknowledged, or their clients do not matter any more.
func (c *Core) waitPins(ctx context.Context, msgs []*pinMsg) error {
	for _, m := range msgs {
		select {
		case <-m.done:
			if m.err != nil {
				return m.err
			}
			continue
		default:
		}
		if err := c.waitPin(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// waitPin waits for one that is not acknowledged yet, and says so when that takes long.
func (c *Core) waitPin(ctx context.Context, m *pinMsg) error {
	began := time.Now()
	m.wait.Add(1)
	defer func() {
		m.wait.Add(-1)
		c.meter.waits.Observe(time.Since(began))
	}()
	if c.opts.Slow > 0 {
		slow := time.AfterFunc(c.opts.Slow, func() { c.logSlow(m, "a read waits for a client", began) })
		defer func() {
			if !slow.Stop() {
				c.logSlow(m, "a read has waited for a client", began)
			}
		}()
	}
	select {
	case <-m.done:
		return m.err
	case <-c.ctx.Done():
		return ErrNotConn
	case <-ctx.Done():
		return c.interrupted()
	}
}

func (c *Core) logSlow(m *pinMsg, msg string, began time.Time) {
	c.log.Warn(msg, append([]any{"for", time.Since(began).Round(time.Millisecond), "file", m.w.f.Oid(), "blk", m.blk}, m.w.l.logName()...)...)
}

// protect decides, for the at that the watch has in the very critical section, whether the block as of
// view v, last changed at rev, may be shown to it.
func (w *clientWatch) protect(ctx context.Context, blk Blk, rev, v zodb.Tid) (*pinMsg, error) {
	at := w.atNow()
	for at < rev {
		want, err := w.f.c.tail.BlkRevAt(ctx, w.f.h, blk, at)
		if err != nil && isAnswer(err) { // packed away, or damaged: this client's loss, not the reader's
			want, err = at, nil
		}
		if err != nil {
			return nil, err
		}
		w.l.c.step(StepPinDecide)
		w.mu.Lock()
		if w.at == at {
			m := w.wantLocked(blk, want, at, v)
			w.mu.Unlock()
			return m, nil
		}
		at = w.at
		w.mu.Unlock()
	}
	return nil, nil
}
