package zcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

var errAway = zodb.Outage(errors.New("database is away"))

// headText reads a block of head through the host; an error is part of what it returns.
func (w *world) headText(blk Blk) string {
	return (&guest{w, w.core.Host()}).readHead(blk)
}

// awayFor has loads of one object as of one tid fail.
func (w *world) awayFor(bad zodb.Oid, badAt zodb.Tid) {
	w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == bad && at == badAt {
			return errAway
		}
		return nil
	})
}

// After an error a page fault sends its READ once more, then under mmap_lock: so the READ that fails waits for the pins.
func TestHeadReadThatFailsWaitsForItsPins(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0"})
	at0, zblk := w.db.Head(), w.db.Zblk(w.f, 0, w.db.Head())
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.awayFor(zblk, w.commit(map[Blk]string{0: "a1"}))
	first := background(func() string { return w.headText(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	mustNot(t, "the error is told before the pin is acknowledged", first)
	l.send("2 ack")
	if s := <-first; !strings.Contains(s, errAway.Error()) {
		t.Errorf("the read that fails got %q", s)
	}
	w.stor.SetLoadHook(nil)
	w.want(0, "a1") // nothing to wait for
}

// Where not even the mapping of the block can be looked up, the watch pins it as of its at.
func TestHeadReadThatFindsNoMappingWaitsForItsPins(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0"})
	bf, _ := w.db.File(w.f, w.db.Head())
	w.headText(0)
	at0 := w.commit(map[Blk]string{5: "x"})
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.awayFor(bf.Blktab, w.commit(map[Blk]string{1: "b1", 2: "c1", 3: "d1", 4: "e1"}))
	first := background(func() string { return w.headText(3) })
	l.want(fmt.Sprintf("2 pin %s #3 @%s", w.f, at0))
	mustNot(t, "the error is told before the pin is acknowledged", first)
	l.send("2 ack")
	if s := <-first; !strings.Contains(s, errAway.Error()) {
		t.Errorf("the read that fails got %q", s)
	}
	w.stor.SetLoadHook(nil)
	w.want(3, "d1") // the pin stands, though by itself it would be of an older revision
}

// outage has a read fail while nothing can be had from the database, and so no pin be sent; the next read, which may be
// its repetition under mmap_lock, must not wait for that.
func testReadAfterOutage(t *testing.T, w *world, l *testLink, read func() string, pin, want string) {
	t.Helper()
	w.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error { return errAway })
	if s := read(); !strings.Contains(s, errAway.Error()) {
		t.Fatalf("a read in an outage got %q", s)
	}
	w.stor.SetLoadHook(nil)
	if s := read(); s != errPinsPending.Error() { // or it hangs: nobody acknowledges
		t.Fatalf("the repeated read got %q", s)
	}
	l.want(pin)
	if s := read(); s != errPinsPending.Error() {
		t.Fatalf("a read in the same second got %q", s)
	}
	l.send("2 ack")
	eventually(t, "the data", func() bool { return read() == want })
}

func TestRepeatedReadDoesNotWaitForPins(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.commit(map[Blk]string{0: "a1"})
	testReadAfterOutage(t, w, l, func() string { return w.headText(0) }, fmt.Sprintf("2 pin %s #0 @%s", w.f, at0), "a1")
}

func TestRepeatedBaseReadDoesNotWaitForPins(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0", 1: "b0", 2: "c", 3: "d", 4: "e", 5: "f", 6: "g", 7: "h"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, at1, base), nil)
	b, err := w.core.LookupBase(t.Context(), base, w.f)
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		d, err := b.Read(t.Context(), g.dom, testBlksize, 0)
		if err != nil {
			return err.Error()
		}
		return strings.TrimRight(dataText(d), "\x00")
	}
	testReadAfterOutage(t, w, l, read, fmt.Sprintf("2 pin %s #0 @%s", w.f, at1), "a0")
}

// A commit between a READ that fails and its repetition asks for more pins; the repetition does not wait for them either.
func TestRepeatedReadAfterACommitDoesNotWait(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0"})
	zblk := w.db.Zblk(w.f, 0, w.db.Head())
	w.want(0, "a0")
	at1 := w.commit(map[Blk]string{0: "a1"})
	l := w.link()
	w.wantPins(l.pins(w.f, at1), nil)
	w.awayFor(zblk, at1)
	if s := w.headText(0); !strings.Contains(s, errAway.Error()) { // nobody is older than this view
		t.Fatalf("got %q", s)
	}
	w.commit(map[Blk]string{0: "a2"})
	if s := w.headText(0); s != errPinsPending.Error() {
		t.Fatalf("the repeated read got %q", s)
	}
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	l.send("2 ack")
	eventually(t, "the data", func() bool { return w.headText(0) == "a2" })
}

// A READ whose data a front cannot hand over ends in an error too.
func TestReadThatAFrontFails(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0"})
	f, err := w.core.Lookup(t.Context(), w.f)
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Read(t.Context(), w.core.Host(), testBlksize, 0)
	if err != nil {
		t.Fatal(err)
	}
	at0 := w.db.Head()
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	d.Failed()
	d.Done()
	w.commit(map[Blk]string{0: "a1"})
	if s := w.headText(0); s != errPinsPending.Error() {
		t.Fatalf("the repeated read got %q", s)
	}
}

// What is remembered of READs that failed is bounded; with too many of them each block counts as one.
func TestErredReadsAreBounded(t *testing.T) {
	var e erredReads
	lately := func(base zodb.Tid, oid zodb.Oid, blk Blk) bool {
		bounded, _ := e.patience(base, oid, blk, time.Second)
		return bounded
	}
	for i := range 10 * maxErred {
		e.note(0, 1, []part{{blk: Blk(i)}}, ErrIO)
		if len(e.m) > maxErred {
			t.Fatalf("%d blocks remembered", len(e.m))
		}
	}
	if !lately(0, 1, 0) || !lately(0, 2, 0) {
		t.Error("a block that failed is forgotten")
	}
	e.all = e.all.Add(-2 * erredLasts)
	for key := range e.m {
		e.m[key] = erred{when: time.Now().Add(-2 * erredLasts)}
	}
	if lately(0, 1, 0) {
		t.Error("a block is remembered for ever")
	}
	e.note(0, 1, []part{{blk: 7}}, ErrIO)
	if !lately(0, 1, 7) || lately(3, 1, 7) || lately(0, 1, 8) || lately(0, 2, 7) {
		t.Error("a block is taken for another")
	}
}

// The repetition of a READ that was interrupted waits for a proper client, but not until that is killed for what it
// cannot do.
func TestReadAfterAnInterruptedOneWaitsNotForEver(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 2 * time.Second}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	p := newFakeProcess()
	l := w.linkOf(p)
	w.wantPins(l.pins(w.f, at0), nil)
	w.commit(map[Blk]string{0: "a1"})
	f, err := w.core.Lookup(t.Context(), w.f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := background(func() error { _, err := f.Read(ctx, w.core.Host(), testBlksize, 0); return err })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	cancel()
	if err := <-first; !errors.Is(err, ErrInterrupted) {
		t.Fatalf("the read that is interrupted: %v", err)
	}
	second := background(func() string { return w.headText(0) })
	mustNot(t, "the repeated read does not wait at all", second)
	if s := <-second; s != errPinsPending.Error() {
		t.Fatalf("the repeated read got %q", s)
	}
	l.send("2 ack")
	eventually(t, "the data", func() bool { return w.headText(0) == "a1" })
	if n := p.signals.Load(); n != 0 {
		t.Errorf("the client got %d signals", n)
	}
}
