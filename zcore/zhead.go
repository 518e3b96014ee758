package zcore

import (
	"context"

	"wcfs/zcore/zodb"
)

// ZheadStream is one open of .wcfs/debug/zhead: a line for every commit announced since, written once
// old blocks are kept under @rev too.
type ZheadStream struct {
	c    *Core
	tids []zodb.Tid    // Core.mu; announced, not read yet
	over bool          // Core.mu; too many were not read: the end comes after these
	part []byte        // Core.mu; rest of a line that did not fit
	more chan struct{} // cap 1; told when tids grew
}

// OpenZhead starts a stream of the tids announced from now on.
func (c *Core) OpenZhead() *ZheadStream {
	z := &ZheadStream{c: c, more: make(chan struct{}, 1)}
	c.mu.Lock()
	c.zheads[z] = struct{}{}
	c.mu.Unlock()
	return z
}

// zheadLine is a line to be written to a stream.
type zheadLine struct {
	z   *ZheadStream
	tid zodb.Tid
}

func (c *Core) tellZheads(lines []zheadLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lines {
		l.z.pushLocked(l.tid)
	}
}

// maxUnreadTids is how many lines of a stream may be left unread; then it ends.
const maxUnreadTids = 1 << 20

// pushLocked adds a tid. Core.mu must be held.
func (z *ZheadStream) pushLocked(tid zodb.Tid) {
	if len(z.tids) >= maxUnreadTids || z.over {
		z.over = true
		z.wakeLocked()
		return
	}
	z.tids = append(z.tids, tid)
	z.wakeLocked()
}

// wakeLocked wakes a reader. Core.mu must be held.
func (z *ZheadStream) wakeLocked() {
	select {
	case z.more <- struct{}{}:
	default:
	}
}

// Read is as Link.Read.
func (z *ZheadStream) Read(ctx context.Context, size int) ([]byte, error) {
	for {
		p, over := z.take(size)
		if len(p) > 0 || size <= 0 || over {
			return p, nil
		}
		select {
		case <-z.more:
		case <-ctx.Done():
			return nil, ErrInterrupted
		case <-z.c.failed:
			return nil, ErrNotConn
		}
	}
}

func (z *ZheadStream) take(size int) (p []byte, over bool) {
	z.c.mu.Lock()
	defer z.c.mu.Unlock()
	for len(z.part) < size && len(z.tids) > 0 {
		z.part = append(z.part, z.tids[0].String()+"\n"...)
		z.tids = z.tids[1:]
	}
	n := min(size, len(z.part))
	p = z.part[:n:n]
	z.part = append([]byte(nil), z.part[n:]...)
	if n > 0 && len(z.part)+len(z.tids) > 0 || z.over {
		z.wakeLocked() // other readers
	}
	return p, z.over
}

// Close ends the stream.
func (z *ZheadStream) Close() {
	z.c.mu.Lock()
	defer z.c.mu.Unlock()
	delete(z.c.zheads, z)
}
