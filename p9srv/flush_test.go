package p9srv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore/tree"
)

// TestFlushStream: a blocked read of a watch is ended by a blank padded line, then comes Rflush, and no
// message is lost.
func TestFlushStream(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	for i := range 20 {
		c.send(readFrame(10, 1, 0, 300))
		eventually(t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
		c.send(flushFrame(11, 10))
		if r := c.recv(); r.tag != 10 || !bytes.Equal(r.data(), bytes.Repeat([]byte("\n"), 300)) {
			t.Fatalf("round %d: flushed read: got %v %q", i, r, r.body)
		}
		if r := c.recv(); r.tag != 11 || r.typ != tFlush+1 {
			t.Fatalf("round %d: got %v, want Rflush", i, r)
		}
	}
	w.tree.at("head/watch").msgs <- "2 pin ...\n"
	r := c.ok(readFrame(10, 1, 0, 30), tRead+1)
	if want := "2 pin ...\n" + "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"; string(r.data()) != want {
		t.Errorf("got %q", r.data())
	}
}

// TestFlushRead: a read that waits for pins ends in EINTR, then comes Rflush.
func TestFlushRead(t *testing.T) {
	w := serve(t, nil)
	hold := make(chan struct{})
	w.tree.at(bigPath).hold = hold
	c := w.client()
	c.open(1, bigPath, 0)
	c.send(readFrame(10, 1, 0, 4096))
	eventually(t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
	c.ok(readFrame(9, 1, 0, 0), tRead+1) // others go on meanwhile
	c.send(flushFrame(11, 10))
	if r := c.recv(); r.tag != 10 || r.errno() != linux.EINTR {
		t.Fatalf("flushed read: got %v", r)
	}
	if r := c.recv(); r.tag != 11 || r.typ != tFlush+1 {
		t.Fatalf("got %v, want Rflush", r)
	}
	c.send(readFrame(10, 1, 0, 4096)) // asked again, without a flush this time
	eventually(t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
	close(hold)
	if r := c.recv(); r.tag != 10 || len(r.data()) != 4096 {
		t.Fatalf("got %v", r)
	}
}

// TestFlushWalk: a walk that waits for the database can be flushed too; its fid is free then.
func TestFlushWalk(t *testing.T) {
	w := serve(t, nil)
	w.tree.at("head/bigfile").hold = make(chan struct{})
	c := w.client()
	c.send(walkFrame(10, 0, 5, "head", "bigfile"))
	eventually(t, "walk waits", func() bool { return w.tree.waiting.Load() == 1 })
	c.fails(newFrame(tStatfs, 9).u32(5), linux.EBADF)
	c.fails(walkFrame(9, 0, 5), linux.EBADF)
	c.send(flushFrame(11, 10))
	if r := c.recv(); r.tag != 10 || r.errno() != linux.EINTR {
		t.Fatalf("flushed walk: got %v", r)
	}
	if r := c.recv(); r.tag != 11 || r.typ != tFlush+1 {
		t.Fatalf("got %v, want Rflush", r)
	}
	c.ok(walkFrame(9, 0, 5), tWalk+1)
}

// TestFlushOfFlush: several flushes of one request, and of a flush, are answered in order, after it.
func TestFlushOfFlush(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	c.send(readFrame(10, 1, 0, 5))
	eventually(t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
	var all frame
	all = append(all, flushFrame(11, 10).done(0)...)
	all = append(all, flushFrame(12, 10).done(0)...)
	all = append(all, flushFrame(13, 11).done(0)...)
	c.c.Write(all)
	seen := map[uint16]int{}
	for i := range 4 {
		r := c.recv()
		seen[r.tag] = i
	}
	if len(seen) != 4 || seen[10] != 0 || seen[12] < seen[11] || seen[13] < seen[11] {
		t.Errorf("order of replies: %v", seen)
	}
	c.ok(newFrame(tStatfs, 10).u32(0), tStatfs+1)
}

// TestClunkEndsReads: nobody is left to read, so what waits ends.
func TestClunkEndsReads(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	c.send(readFrame(10, 1, 0, 50))
	eventually(t, "read waits", func() bool { return w.tree.waiting.Load() == 1 })
	c.send(newFrame(tClunk, 11).u32(1))
	c.recv()
	c.recv()
	eventually(t, "handle closed", func() bool { return w.tree.handles.Load() == 0 })
}

// TestFlushStorm: whatever the order of things, each request and each flush is answered once, the
// request first.
func TestFlushStorm(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	c.open(2, bigPath, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 100 {
		pending := map[uint16]string{}
		var all frame
		for i := range uint16(50) {
			tag := 100 + 2*i
			fid := 1 + rng.Uint32N(2)
			all = append(all, readFrame(tag, fid, 0, 100).done(0)...)
			all = append(all, flushFrame(tag+1, tag).done(0)...)
			pending[tag], pending[tag+1] = "read", "flush"
		}
		go c.c.Write(all)
		for len(pending) > 0 {
			r := c.recv()
			what := pending[r.tag]
			if what == "" {
				t.Fatalf("round %d: unexpected or second %v", round, r)
			}
			if what == "flush" && pending[r.tag-1] != "" {
				t.Fatalf("round %d: Rflush before the reply of tag %d", round, r.tag-1)
			}
			delete(pending, r.tag)
		}
	}
}

// TestShortReads: a read inside the size is never answered short or with nothing.
func TestShortReads(t *testing.T) {
	w := serve(t, nil)
	n := w.tree.at(bigPath)
	n.short = true
	w.tree.add("head/bigfile/0000000000000009", tree.HeadFile, pattern(8192)).nothing = true
	c := w.client()
	c.open(1, bigPath, 0)
	if r := c.ok(readFrame(1, 1, 8, 10000), tRead+1); !bytes.Equal(r.data(), n.data[8:10008]) {
		t.Errorf("got %d bytes", len(r.data()))
	}
	c.open(2, "head/bigfile/0000000000000009", 0)
	c.fails(readFrame(1, 2, 0, 4096), linux.EIO)
	if r := c.ok(readFrame(1, 2, 8192, 4096), tRead+1); len(r.data()) != 0 {
		t.Errorf("past the end: %d bytes", len(r.data()))
	}
}

// TestErrnos: EIO mode is EIO, not ENOTCONN: the connection is there.
func TestErrnos(t *testing.T) {
	for err, want := range map[error]linux.Errno{
		tree.ErrNotConn: linux.EIO, tree.ErrIO: linux.EIO, fmt.Errorf("what: %w", tree.ErrInvalid): linux.EINVAL,
		tree.ErrNotExist: linux.ENOENT, tree.ErrPermission: linux.EPERM, tree.ErrInterrupted: linux.EINTR, fmt.Errorf("unknown"): linux.EIO,
	} {
		if got := errnoOf(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// TestReaddir lists a large directory through small replies, and through more listings at once than are kept.
func TestReaddir(t *testing.T) {
	w := serve(t, nil)
	d := w.tree.at("head/bigfile")
	for i := range 500 {
		w.tree.add(fmt.Sprintf("head/bigfile/%016x", i+100), tree.HeadFile, nil)
	}
	c := w.client()
	const fids = 20
	offs := make([]uint64, fids)
	names := make([]map[string]bool, fids)
	for i := range fids {
		c.open(uint32(10+i), "head/bigfile", 0)
		names[i] = map[string]bool{}
	}
	for more := true; more; {
		more = false
		for i := range fids {
			r := c.ok(newFrame(tReaddir, 1).u32(uint32(10+i)).u64(offs[i]).u32(1000), tReaddir+1)
			cur := cursor{b: r.body}
			cur.u32()
			for len(cur.b) > 0 {
				cur.take(13)
				offs[i] = cur.u64()
				cur.take(1)
				name := cur.str()
				if names[i][name] {
					t.Fatalf("%s listed twice", name)
				}
				names[i][name] = true
				more = true
			}
		}
	}
	for i := range fids {
		if len(names[i]) != len(d.names)+2 || !names[i]["."] || !names[i][".."] {
			t.Errorf("fid %d: %d names, want %d", i, len(names[i]), len(d.names)+2)
		}
	}
}

// TestClunkComesLast: requests for a fid are answered before its Tclunk, so that none of them gets to what the
// client has under the same number next.
func TestClunkComesLast(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	for round := range 3000 {
		c.ok(walkFrame(1, 0, 5, "head", "at"), tWalk+1)
		var all frame
		all = append(all, newFrame(tGetattr, 10).u32(5).u64(0x7ff).done(0)...)
		all = append(all, newFrame(tStatfs, 11).u32(5).done(0)...)
		all = append(all, newFrame(tClunk, 12).u32(5).done(0)...)
		c.c.Write(all)
		seen := map[uint16]bool{}
		for range 3 {
			r := c.recv()
			if seen[r.tag] = true; r.tag == 12 && !(seen[10] && seen[11]) || r.errno() != 0 {
				t.Fatalf("round %d: %v comes before others, of %v", round, r, seen)
			}
		}
	}
}
