package zcore

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"wcfs/zcore/zodb"
)

// uncached remembers nothing that is packed away.
var uncached = Options{NodeBytes: 1, BlockBytes: 1}

// readAt reads a block of a revision.
func (w *world) readAt(rev zodb.Tid, blk Blk) (string, error) {
	r, err := w.core.LookupRev(context.Background(), rev, w.f)
	if err != nil {
		return "", err
	}
	d, err := r.Read(context.Background(), testBlksize, int64(blk)*testBlksize)
	if err != nil {
		return "", err
	}
	defer d.Done()
	return strings.TrimRight(dataText(d), "\x00"), nil
}

// What is older than the pack cannot be watched, and nobody else suffers from that.
func TestPackAboveTheWatch(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0", 1: "b0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	old := w.link()
	w.wantPins(old.pins(w.f, at0), nil)
	at1 := w.commit(map[Blk]string{2: "c1"})
	mid := w.link()
	w.wantPins(mid.pins(w.f, at1), nil)
	at2 := w.commit(map[Blk]string{1: "b2"})
	w.commit(map[Blk]string{3: "d3", 4: "e3", 5: "f3"})
	at4 := w.commit(map[Blk]string{0: "a4", 1: "b4"})
	w.stor.Pack(at4)
	for _, tl := range []*testLink{old, mid} { // they are told, though it cannot be opened any more
		go func() {
			tl.want(fmt.Sprintf("2 pin %s #1 @%s", w.f, map[*testLink]zodb.Tid{old: at0, mid: at1}[tl]))
			tl.send("2 ack")
		}()
	}
	w.want(1, "b4")
	mid.send("1 bye")
	mid.want("EOF")
	l := w.link()
	for _, at := range []zodb.Tid{at1, at2} {
		l.send("1 watch %s @%s", w.f, at)
		want := fmt.Sprintf("1 error setup watch f<%s> @%s: too far away back from head/at (@%s); δt = ", w.f, at, at4)
		if got := l.recv(); !strings.HasPrefix(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	w.wantPins(l.pins(w.f, at4), nil) // the link is as good as ever
	if s := w.core.Stats(); s.Watch != 2 {
		t.Fatalf("%+v", s)
	}
	// a view that moves on to what was packed away cannot be kept: it is told so, and others go on
	old.send("3 watch %s @%s", w.f, at1)
	if got := old.recv(); !strings.HasPrefix(got, "0 error: setup watch") {
		t.Fatalf("got %q", got)
	}
	old.want("EOF")
	at5 := w.commit(map[Blk]string{1: "b5"})
	w.readPinned(l, 2, 1, at4, "b5")
	if s, err := w.readAt(at4, 1); s != "b4" || err != nil {
		t.Fatalf("@%s: %q, %v", at4, s, err)
	}
	w.wantPins(w.link().pins(w.f, at5), nil)
}

// A view from after the pack is pinned to a revision that can be opened, although nothing changed since
// before the pack.
func TestPackBelowTheWatch(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0", 1: "b0"})
	w.want(0, "a0")
	w.commit(map[Blk]string{2: "c1"}) // the bucket of block 0 is another now
	at2 := w.commit(map[Blk]string{1: "b2"})
	w.stor.Pack(at2)
	if _, err := w.readAt(w.core.T0(), 0); err == nil {
		t.Fatal("T0 is not packed away")
	}
	l := w.link()
	w.wantPins(l.pins(w.f, at2), nil)
	w.commit(map[Blk]string{0: "a3"})
	w.readPinned(l, 2, 0, at2, "a3")
	if s, err := w.readAt(at2, 0); s != "a0" || err != nil {
		t.Fatalf("@%s: %q, %v", at2, s, err)
	}
	// as at set-up
	w.wantPins(w.link().pins(w.f, at2), map[Blk]zodb.Tid{0: at2})
	// a block that is read for the first time after the pack, with an older view there
	w.want(2, "c1")
	w.commit(map[Blk]string{2: "c4"})
	w.want(1, "b2")
}
