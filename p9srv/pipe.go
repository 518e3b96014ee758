package p9srv

import (
	"encoding/binary"
	"io"
	"sync"
)

// inbox is the stream of messages to the library.
type inbox struct {
	mu     sync.Mutex
	some   sync.Cond // with mu: queue not empty, or closed
	queue  []frame   // guarded by mu
	closed bool      // guarded by mu
	rest   frame     // of the message being read; the library reads from one goroutine at a time
}

func newInbox() *inbox {
	b := &inbox{}
	b.some.L = &b.mu
	return b
}

func (b *inbox) put(f frame) {
	b.mu.Lock()
	b.queue = append(b.queue, f)
	b.mu.Unlock()
	b.some.Signal()
}

// Read yields the next bytes, and EOF at once when closed.
func (b *inbox) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		b.mu.Lock()
		for len(b.queue) == 0 && !b.closed {
			b.some.Wait()
		}
		if len(b.queue) == 0 {
			b.mu.Unlock()
			return 0, io.EOF
		}
		b.rest, b.queue = b.queue[0], b.queue[1:]
		if len(b.queue) == 0 {
			b.queue = nil
		}
		b.mu.Unlock()
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// end ends the stream and returns how many messages were dropped because nobody read them yet.
func (b *inbox) end() int {
	b.mu.Lock()
	unread := len(b.queue)
	b.closed, b.queue = true, nil
	b.mu.Unlock()
	b.some.Signal()
	return unread
}

// Close is for the library, which calls it when it has ended.
func (b *inbox) Close() error { return nil }

// outbox cuts what the library writes into messages. The library writes under a lock of its own.
type outbox struct {
	s   *session
	buf frame
}

// Write never fails: a client that is gone ends the session by itself.
func (o *outbox) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	if len(o.buf) >= headerLen && len(o.buf) >= int(binary.LittleEndian.Uint32(o.buf)) {
		o.s.reply(o.buf)
		o.buf = o.buf[:0]
	}
	return len(p), nil
}

// Close has nothing to close.
func (o *outbox) Close() error { return nil }
