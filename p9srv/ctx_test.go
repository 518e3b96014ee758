package p9srv

import (
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// treeMessages are those that ask the tree, for fids as opened by treeClient. Walks and reads have tests of their own.
func treeMessages(tag uint16) map[string]frame {
	return map[string]frame{
		"Tgetattr": newFrame(tGetattr, tag).u32(3).u64(0x7ff),
		"Tlopen":   openFrame(tag, 3, 0),
		"Treaddir": newFrame(tReaddir, tag).u32(4).u64(0).u32(4096),
		"Twrite":   writeFrame(tag, 2, "1 bye\n"),
	}
}

// treeClient has head/watch open as fid 2, head/at as fid 3, and head open as fid 4.
func (w *world) treeClient() *rawClient {
	c := w.client()
	c.open(2, "head/watch", 2)
	c.ok(walkFrame(1, 0, 3, "head", "at"), tWalk+1)
	c.open(4, "head", 0)
	return c
}

// TestFlushAny: Tflush ends whatever waits for the tree, also in the goroutine that reads messages, and the fid is as
// it was.
func TestFlushAny(t *testing.T) {
	w := serve(t, nil)
	c := w.treeClient()
	away := make(chan struct{})
	for _, path := range []string{"head", "head/at", "head/watch"} {
		w.tree.at(path).away.Store(&away)
	}
	for name, f := range treeMessages(10) {
		for range 5 {
			c.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)
			c.send(f)
			eventually(t, name+" waits", func() bool { return w.tree.waiting.Load() == 1 })
			c.send(flushFrame(11, 10))
			if r := c.recv(); r.tag != 10 || r.errno() != linux.EINTR {
				t.Errorf("%s: got %v", name, r)
			}
			if r := c.recv(); r.tag != 11 || r.typ != tFlush+1 {
				t.Errorf("%s: got %v, want Rflush", name, r)
			}
		}
	}
	close(away)
	for name, f := range treeMessages(10) {
		if c.send(f); c.recv().errno() != 0 {
			t.Errorf("%s fails afterwards", name)
		}
	}
}

// TestPanic: a request that fails badly is answered, and others are as before.
func TestPanic(t *testing.T) {
	w := serve(t, nil)
	c := w.treeClient()
	nodes := []*fakeNode{w.tree.at("head"), w.tree.at("head/at"), w.tree.at("head/watch")}
	for _, bad := range []bool{true, false} {
		for _, n := range nodes {
			n.panics.Store(bad)
		}
		for name, f := range treeMessages(10) {
			c.send(f)
			if r := c.recv(); (r.errno() == linux.EFAULT) != bad || (r.errno() == 0) == bad {
				t.Errorf("%s: got %v", name, r)
			}
		}
	}
	if n := w.log.count("failed badly"); n != 4 {
		t.Errorf("%d lines in the log", n)
	}
}
