package p9srv

import (
	"runtime"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// heldUp makes the goroutine that reads the client's messages wait in a read: fid 1 is what is read
// quickly, fid 2 what is held. It returns false when another goroutine does that read, as after a slow one.
func (w *world) heldUp(c *rawClient, tag uint16) bool {
	conn := w.onlyConn()
	for range 3 {
		c.ok(readFrame(9, 1, 0, 100), tRead+1)
	}
	before := conn.turn.n.Load()
	c.send(readFrame(tag, 2, 0, 4096))
	eventually(w.t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
	return conn.turn.n.Load() > before
}

func (w *world) onlyConn() *conn {
	w.srv.mu.Lock()
	defer w.srv.mu.Unlock()
	for c := range w.srv.live {
		return c
	}
	w.t.Fatal("no connection")
	return nil
}

// TestReaderReplaced: when the goroutine that reads messages is held up in a read, another one goes on
// reading: other requests, flushes, a new session, and the end of the connection.
func TestReaderReplaced(t *testing.T) {
	w := serve(t, nil)
	w.tree.at(bigPath).hold = make(chan struct{})
	goroutines := runtime.NumGoroutine()
	held := 0
	for round := 0; held < 30; round++ {
		if round == 10000 {
			t.Fatalf("the reader was held up %d times only", held)
		}
		c := w.client()
		c.open(1, revPath, 0)
		c.open(2, bigPath, 0)
		for range 3 {
			if w.heldUp(c, 10) {
				held++
			}
			c.ok(newFrame(tStatfs, 12).u32(0), tStatfs+1)
			c.ok(readFrame(9, 1, 8, 100), tRead+1)
			c.send(flushFrame(11, 10))
			if r := c.recv(); r.tag != 10 || r.errno() != linux.EINTR {
				t.Fatalf("flushed read: got %v", r)
			}
			if r := c.recv(); r.tag != 11 || r.typ != tFlush+1 {
				t.Fatalf("got %v, want Rflush", r)
			}
		}
		w.heldUp(c, 10)
		if round%2 == 0 {
			c.version(64<<10, version9P)
			c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("").u32(noFid), tAttach+1)
		}
		c.c.Close()
		eventually(t, "connection ends", func() bool { return w.srv.Stats().Conns == 0 })
	}
	w.clean(goroutines)
}

// TestFirstReaderHeldUpAtTheEnd: the goroutine that the connection began with is no different: its read too ends
// with the connection.
func TestFirstReaderHeldUpAtTheEnd(t *testing.T) {
	w := serve(t, nil)
	w.tree.at(bigPath).hold = make(chan struct{})
	goroutines := runtime.NumGoroutine()
	for held, round := 0, 0; held < 5; round++ {
		if round == 1000 {
			t.Fatalf("the reader was held up %d times only", held)
		}
		c := w.client()
		c.open(1, revPath, 0)
		c.open(2, bigPath, 0)
		if w.heldUp(c, 10) {
			held++
		}
		c.c.Close()
		eventually(t, "connection ends", func() bool { return w.srv.Stats().Conns == 0 })
	}
	w.clean(goroutines)
}
