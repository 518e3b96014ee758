package zcore

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"wcfs/zcore/watchproto"
)

// faulty deals with a client that did not acknowledge a pin, and returns when it can do no harm any
// more: its process has ended, its domain has failed, or the core is in EIO mode.
func (l *Link) faulty(pin watchproto.Pin, why string, waited time.Duration) {
	l.fault.Do(func() {
		limit := l.patience()
		l.charge(waited)
		rev := "head"
		if !pin.Head {
			rev = pin.Rev.String()
		}
		l.c.log.Error("watch client is faulty", "file", pin.Oid, "blk", pin.Blk, "rev", rev, "cause", why)
		l.push(0, fmt.Sprintf("fatal: pin #%d @%s: %s", pin.Blk, rev, why))
		go func() {
			safe := l.settle(limit)
			if !safe {
				l.poisoned.Store(true)
			}
			close(l.killed)
			if !safe { // what depends on it fails for as long as it lives
				l.proc.Wait(l.c.ctx)
			}
			l.end()
		}()
	})
	<-l.killed
}

// settle gives the client a moment to read why, then kills it. It returns whether the client can do no harm any more.
func (l *Link) settle(limit time.Duration) (safe bool) {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if l.proc == nil {
		l.drained(min(time.Second, limit/4))
		if !l.dom.local {
			l.dom.Fail()
			return true
		}
		for _, w := range l.watches() {
			w.poison()
		}
		l.poisoned.Store(true)
		return true
	}
	if closed {
		if l.dies(min(limit/2, 3*time.Second)) { // it was dying anyway
			return true
		}
	} else {
		l.drained(min(time.Second, limit/4))
	}
	return l.kill(limit)
}

// kill ends the client's process. One with SIGKILL pending runs no code of its own any more, whether it goes at once or is
// frozen, waits for a disk, or has much memory to give back: nobody needs to wait for its end. A process that may not be sent
// signals goes on, and cannot be protected: kill returns false.
func (l *Link) kill(limit time.Duration) (harmless bool) {
	if !l.proc.Alive() || l.c.ctx.Err() != nil {
		return true
	}
	first, done := l.c.beginKill(l.proc.Pid())
	defer done()
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{
		{syscall.SIGBUS, limit / 4},
		{syscall.SIGKILL, max(limit/2, time.Second)}, // a large process takes a moment to go
	} {
		sig := step.sig
		err := l.proc.Signal(sig)
		if err != nil {
			l.c.log.Error("cannot signal faulty watch client", "pid", l.proc.Pid(), "signal", sig, "cause", err)
		}
		if l.dies(step.wait) {
			if first {
				l.c.nKill.Add(1)
			}
			l.c.log.Error("faulty watch client killed", "pid", l.proc.Pid(), "signal", sig)
			return true
		}
		if l.c.ctx.Err() != nil {
			return true // the server ends
		}
		harmless = err == nil && sig == syscall.SIGKILL
	}
	if harmless {
		if first {
			l.c.nKill.Add(1)
		}
		l.c.log.Error("faulty watch client killed, but not gone yet: it is frozen or waits in the kernel", "pid", l.proc.Pid(), "signal", syscall.SIGKILL)
		return true
	}
	l.c.log.Error("faulty watch client cannot be killed: what it should have pinned cannot be read until it ends", "pid", l.proc.Pid())
	return false
}

// beginKill notes that a process is being killed. Only the first who does so counts it, since one process may
// be faulty on several links.
func (c *Core) beginKill(pid int) (first bool, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killing[pid]++
	return c.killing[pid] == 1, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.killing[pid]--; c.killing[pid] == 0 {
			delete(c.killing, pid)
		}
	}
}

// watches returns the watches of the link.
func (l *Link) watches() []*clientWatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ws []*clientWatch
	for _, on := range l.byOid {
		if on.w != nil {
			ws = append(ws, on.w)
		}
	}
	return ws
}

// dies waits for the client's process to end.
func (l *Link) dies(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(l.c.ctx, limit)
	defer cancel()
	return l.proc.Wait(ctx) == nil
}

// drained waits until the client has read what it was sent, or the link is closed.
func (l *Link) drained(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		l.mu.Lock()
		done := len(l.out) == 0 || l.closed
		l.mu.Unlock()
		if done {
			l.pause(min(limit, 50*time.Millisecond)) // it has them, and may want to tell somebody
			return
		}
		l.pause(5 * time.Millisecond)
		if l.c.ctx.Err() != nil {
			return
		}
	}
}

func (l *Link) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.c.ctx.Done():
	}
}
