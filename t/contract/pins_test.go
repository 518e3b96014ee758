package contract

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// Initial pins, pins of reads, advances: which blocks, to which revisions, and when none.
func TestPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(6)
	w.start()
	at0 := w.db.Head()
	w.touch(f, 0, 1, 2, 3)
	at1 := w.change(f, 1, 4)
	at2 := w.change(f, 2, 5)
	w.touch(f, 1)
	at3 := w.change(f, 1, 2)
	w.touch(f, 1, 2)

	// blocks 4 and 5 were read by nobody
	l0, l1, l2, l3 := w.link(), w.link(), w.link(), w.link()
	l0.watch(f, at0, map[int]zodb.Tid{1: at0, 2: at0})
	l1.watch(f, at1, map[int]zodb.Tid{1: at1, 2: at0})
	l2.watch(f, at2, map[int]zodb.Tid{1: at1, 2: at2})
	l3.watch(f, at3, nil)

	// a read pins to those who must not see it, each to its own revision
	m := w.mmap(headFile(f), 6)
	done := w.access(m, 4)
	l0.ack(l0.pins(f, map[int]zodb.Tid{4: at0}))
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	l1.quiet()
	done = w.access(m, 5)
	p0, p1 := l0.pins(f, map[int]zodb.Tid{5: at0}), l1.pins(f, map[int]zodb.Tid{5: at0})
	l1.ack(p1)
	pending(t, "the read", done)
	l0.ack(p0)
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	l2.quiet()

	// not a second time when the page fell out of the cache
	before := w.stats()["pin"]
	if err := unix.Fadvise(m.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	unix.Madvise(m.mem, unix.MADV_DONTNEED)
	w.check(m, f, at3, 0, 1, 2, 3, 4, 5)
	if after := w.stats()["pin"]; after != before {
		t.Errorf("%d pins for blocks that were pinned already", after-before)
	}

	// the same at again; an advance; the outcome equals that of a fresh watch
	l1.watch(f, at1, nil)
	l1.watch(f, at2, map[int]zodb.Tid{2: at2, 5: toHead})
	l0.watch(f, at1, map[int]zodb.Tid{1: at1, 4: toHead})
	at4 := w.change(f, 0)
	l0.watch(f, at4, map[int]zodb.Tid{1: toHead, 2: toHead, 5: toHead})
	l2.watch(f, at4, map[int]zodb.Tid{1: toHead, 2: toHead})
	for _, l := range []*stream{l0, l1, l2, l3} {
		l.quiet()
	}
	if n := w.stats()["PinnedBlk"]; n != 2 {
		t.Errorf("PinnedBlk is %d, want 2", n)
	}
	done = w.access(m, 0) // older than at4 are l1 and l3 only
	p1, p3 := l1.pins(f, map[int]zodb.Tid{0: at0}), l3.pins(f, map[int]zodb.Tid{0: at0})
	l1.ack(p1)
	l3.ack(p3)
	await(t, "the read", done)
	l0.quiet()
	for _, l := range []*stream{l0, l1, l2, l3} {
		l.bye()
	}
	eventually(t, "nothing to be pinned", func() bool { return w.stats()["PinnedBlk"] == 0 })
}

// Whoever just looks is never held up, and a read does not hold up other blocks.
func TestNoWaitForPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(3)
	w.start()
	at := w.db.Head()
	w.touch(f, 0, 1, 2)
	l := w.link()
	l.watch(f, at, nil)
	w.change(f, 0)
	m, m2 := w.mmap(headFile(f), 3), w.mmap(headFile(f), 3)
	done, done2 := w.access(m, 0), w.access(m2, 0)
	streams := l.pins(f, map[int]zodb.Tid{0: at})
	w.lookup(f)
	w.check(w.mmap(headFile(f), 3), f, w.db.Head(), 1, 2)
	rev := w.mmap(revFile(at, f), 3)
	w.check(rev, f, at, 0)
	w.check(w.mmap(revFile(w.db.Head(), f), 3), f, w.db.Head(), 0)
	if n, err := unix.Read(m.fd, nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		t.Error(err)
	}
	w.change(f, 1) // commits go on
	w.change(f, 2)
	if s := w.stats(); s["pin"] != 1 || s["PinnedBlk"] != 1 {
		t.Errorf("stats while a pin is out: %v", s)
	}
	pending(t, "the read", done)
	pending(t, "the read", done2)
	l.ack(streams)
	await(t, "the read", done)
	await(t, "the read", done2)
	l.quiet()
	l.bye()
}

// Bye with pins outstanding: they are off, the request gets no reply, nobody is killed.
func TestByeWithPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start()
	at := w.db.Head()
	w.touch(f, 0, 1)
	setup, reader := w.link(), w.link()
	reader.watch(f, at, nil)
	w.change(f, 0)
	m := w.mmap(headFile(f), 2)
	done := w.access(m, 0)
	reader.pins(f, map[int]zodb.Tid{0: at})
	setup.send("1 " + watchMsg(f, at) + "\n")
	setup.pins(f, map[int]zodb.Tid{0: at})
	setup.bye()
	pending(t, "the read", done)
	reader.bye()
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	w.change(f, 0, 1)
	w.touch(f, 0, 1)
	if s := w.stats(); s["pinkill"] != 0 || s["Watch"] != 0 || s["PinnedBlk"] != 0 {
		t.Errorf("stats after bye: %v", s)
	}
}

// Reads under @rev make no block one that has been read.
func TestRevReadsDoNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start()
	at := w.db.Head()
	w.lookup(f)
	w.check(w.mmap(revFile(at, f), 2), f, at, 0, 1)
	w.change(f, 0, 1)
	l := w.link()
	l.watch(f, at, nil)
	l.bye()
}

// Cases that crashed other servers: old data and a server that just started.
func TestJustStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.change(f, 0)
	w.start()
	at := w.db.Head()
	w.lookup(f)
	l := w.link()
	l.watch(f, at, nil) // at == head == tail
	w.touch(f, 0)
	at2 := w.change(f, 1) // its history is not covered
	at3 := w.change(f, 0)
	done := w.access(w.mmap(headFile(f), 2), 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: at}))
	await(t, "the read", done)
	l2 := w.link()
	l2.watch(f, at2, map[int]zodb.Tid{0: at})
	w.change(f, 0)
	w.touch(f, 0) // both have it pinned
	l.quiet()
	l2.quiet()
	l.watch(f, at3, map[int]zodb.Tid{0: at3})
	l.bye()
	l2.bye()
}

// A file made after the server started: its creation is the oldest revision of it.
func TestNewFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file(1)
	w.start()
	f := w.file(2)
	made := w.db.Head()
	w.touch(f, 0, 1)
	hole := w.commit(func(tx *zgen.Tx) { tx.Punch(f, 0) })
	grown := w.change(f, 5)
	w.touch(f, 0, 1)
	l := w.link()
	l.watch(f, made, map[int]zodb.Tid{0: made})
	acc := w.access(w.mmap(headFile(f), 6), 4) // a hole that is new: as of then there was nothing
	if err := await(t, "the read", acc); err != nil {
		t.Fatal(err)
	}
	l.quiet()
	acc = w.access(w.mmap(headFile(f), 6), 5)
	l.ack(l.pins(f, map[int]zodb.Tid{5: made}))
	await(t, "the read", acc)
	l.watch(f, hole, map[int]zodb.Tid{0: toHead})
	l.watch(f, grown, map[int]zodb.Tid{5: toHead})
	filled := w.change(f, 0)
	acc = w.access(w.mmap(headFile(f), 6), 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: hole}))
	await(t, "the read", acc)
	for _, c := range []struct {
		at  zodb.Tid
		blk int
	}{{made, 0}, {hole, 0}, {grown, 5}, {filled, 0}} {
		w.check(w.mmap(revFile(c.at, f), 6), f, c.at, c.blk)
	}
	l.bye()
}

// A thousand commits between two advances; pins name what a fresh watch would get.
func TestAdvanceFar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(8)
	w.start()
	at := w.db.Head()
	all := []int{0, 1, 2, 3, 4, 5, 6, 7}
	w.touch(f, all...)
	follower := w.link()
	follower.watch(f, at, nil)
	m := w.mmap(headFile(f), 8)
	pinned := map[int]zodb.Tid{}
	for round := range 40 {
		tids := []zodb.Tid{}
		for range 3 {
			tids = append(tids, w.change(f, w.rng.IntN(8)))
		}
		// the follower is wherever it was; have everything read again
		for _, blk := range all {
			done := w.access(m, blk)
			if want := w.rev(f, blk, at); w.rev(f, blk, w.db.Head()) > at && pinned[blk] != want {
				follower.ack(follower.pins(f, map[int]zodb.Tid{blk: want}))
				pinned[blk] = want
			}
			if err := await(t, fmt.Sprintf("round %d, block %d", round, blk), done); err != nil {
				t.Fatal(err)
			}
		}
		at = tids[w.rng.IntN(3)]
		fresh := map[int]zodb.Tid{}
		for _, blk := range all {
			if w.rev(f, blk, w.db.Head()) > at {
				fresh[blk] = w.rev(f, blk, at)
			}
		}
		want := map[int]zodb.Tid{}
		for _, blk := range all {
			switch {
			case fresh[blk] != 0 && fresh[blk] != pinned[blk]:
				want[blk] = fresh[blk]
			case fresh[blk] == 0 && pinned[blk] != 0:
				want[blk] = toHead
			}
		}
		follower.watch(f, at, want)
		pinned = fresh
		l := w.link()
		l.watch(f, at, fresh)
		l.bye()
	}
	follower.bye()
}
