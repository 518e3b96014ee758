package zcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// guest is a domain whose clients a test plays by hand.
type guest struct {
	w   *world
	dom *Domain
}

func (w *world) guest(name string) *guest {
	w.t.Helper()
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		w.t.Fatal(err)
	}
	return &guest{w, w.core.NewDomain(name, true)}
}

func (g *guest) link() *testLink {
	g.w.t.Helper()
	l, err := g.w.core.OpenLink(g.dom, nil)
	if err != nil {
		g.w.t.Fatal(err)
	}
	return &testLink{t: g.w.t, l: l}
}

// read reads a block of the base; an error is part of what it returns.
func (g *guest) read(base zodb.Tid, blk Blk) string {
	g.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	b, err := g.w.core.LookupBase(ctx, base, g.w.f)
	if err != nil {
		return err.Error()
	}
	d, err := b.Read(ctx, g.dom, testBlksize, int64(blk)*testBlksize)
	if err != nil {
		return err.Error()
	}
	return strings.TrimRight(dataText(d), "\x00")
}

func (g *guest) want(base zodb.Tid, blk Blk, want string) {
	g.w.t.Helper()
	if got := g.read(base, blk); got != want {
		g.w.t.Fatalf("block %d of base @%s is %q, want %q", blk, base, got, want)
	}
}

// basePins sets up a watch over base and returns what it pins, acknowledging all.
func (tl *testLink) basePins(f zodb.Oid, at, base zodb.Tid) map[Blk]string {
	tl.t.Helper()
	tl.send("1 watch %s @%s base @%s", f, at, base)
	return tl.pinsUntil("1 ok")
}

func TestBaseReadWaitsForItsOwnGuestOnly(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	a, b := w.guest("a"), w.guest("b")
	a.want(base, 1, "b0")
	la, lb := a.link(), b.link()
	w.wantPins(la.basePins(w.f, at1, base), nil)
	got := background(func() string { return a.read(base, 0) })
	la.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	mustNot(t, "a block of the base is answered before the pin is acknowledged", got)
	b.want(base, 0, "a0")
	w.want(0, "a1")
	w.wantPins(lb.basePins(w.f, at1, base), map[Blk]zodb.Tid{0: at1})
	la.send("2 ack")
	if s := <-got; s != "a0" {
		t.Fatalf("got %q", s)
	}
	a.want(base, 0, "a0") // it needs no pin again
}

// What waits for acknowledgements holds a page fault up. The second read of a fault must not wait, as no thread
// of the process can map anything meanwhile: not for a watch either that is just being set up.
func TestBaseBlockThatWasAnsweredIsAnsweredAgain(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	at2 := w.commit(map[Blk]string{0: "a2"})
	g := w.guest("g")
	g.want(base, 0, "a0")
	l := g.link()
	for i, at := range []zodb.Tid{at1, at2} {
		l.send("1 watch %s @%s base @%s", w.f, at, base)
		l.want(fmt.Sprintf("%d pin %s #0 @%s", 2+2*i, w.f, at))
		g.want(base, 0, "a0")
		l.send("%d ack", 2+2*i)
		l.want("1 ok")
	}
}

// After an error too a page fault reads once more: all that there is to wait for is waited for by the first read.
func TestBaseReadThatFailsWaitsForItsPins(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base, zblk := w.db.Head(), w.db.Zblk(w.f, 0, w.db.Head())
	at1 := w.commit(map[Blk]string{0: "a1"})
	at2 := w.commit(map[Blk]string{0: "a2"})
	g := w.guest("g")
	l, other := g.link(), g.link()
	w.wantPins(l.basePins(w.f, at1, base), nil)
	w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk && at == base {
			return errors.New("lost")
		}
		return nil
	})
	got := background(func() string { return g.read(base, 0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	mustNot(t, "the error is told before the pin is acknowledged", got)
	l.send("2 ack")
	if s := <-got; s == "a0" {
		t.Fatalf("got %q in spite of the error", s)
	}
	w.stor.SetLoadHook(nil)
	other.send("1 watch %s @%s base @%s", w.f, at2, base)
	other.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at2))
	g.want(base, 0, "a0")
}

// Every read of a block waits until the first one has been answered.
func TestBaseSecondReadWaitsWithTheFirst(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, at1, base), nil)
	first := background(func() string { return g.read(base, 0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	second := background(func() string { return g.read(base, 0) })
	mustNot(t, "the second read does not wait", second)
	l.send("2 ack")
	for _, got := range []<-chan string{first, second} {
		if s := <-got; s != "a0" {
			t.Errorf("got %q", s)
		}
	}
}

func TestBaseWatchEntersWhileABlockIsLoaded(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base, zblk := w.db.Head(), w.db.Zblk(w.f, 0, w.db.Head())
	at1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	loading, load := make(chan struct{}), make(chan struct{})
	began := sync.OnceFunc(func() { close(loading) })
	w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk && at == base {
			began()
			<-load
		}
		return nil
	})
	got := background(func() string { return g.read(base, 0) })
	w.must("the load", loading)
	w.wantPins(g.link().basePins(w.f, at1, base), map[Blk]zodb.Tid{0: at1})
	close(load)
	if s := <-got; s != "a0" {
		t.Fatalf("got %q", s)
	}
}

func TestBaseMarksOutliveTheirWatches(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, base, base), nil)
	g.want(base, 0, "a0") // the guest's kernel keeps it
	l.send("3 bye")
	l.want("EOF")
	l.l.Close()
	at1 := w.commit(map[Blk]string{0: "a1"})
	w.wantPins(g.link().basePins(w.f, at1, base), map[Blk]zodb.Tid{0: at1})
}

func TestBaseAdvanceRacesRead(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	at2 := w.commit(map[Blk]string{0: "a2"})
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, at1, base), nil)
	reached, release := w.stopAt(StepPinDecide)
	defer release()
	got := background(func() string { return g.read(base, 0) }) // decides for at1
	w.must("the decision", reached)
	w.wantPins(l.basePins(w.f, at2, base), map[Blk]zodb.Tid{0: at2})
	release()
	if s := <-got; s != "a0" { // and no pin back to at1
		t.Fatalf("got %q", s)
	}
}

func TestBaseMovesToANewerOne(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	base0 := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	g.want(base0, 0, "a0")
	l := g.link()
	w.wantPins(l.basePins(w.f, at1, base0), map[Blk]zodb.Tid{0: at1})
	g.want(at1, 0, "a1") // the new base is another file: nothing of the old one counts for it
	at2 := w.commit(map[Blk]string{1: "b2"})
	w.wantPins(g.link().basePins(w.f, at2, at1), nil)
	w.wantPins(l.basePins(w.f, at2, at1), nil) // or on the same link
	got := background(func() string { return g.read(at1, 1) })
	l.want(fmt.Sprintf("4 pin %s #1 @%s", w.f, at2))
	l.send("4 ack")
	mustNot(t, "the read waits for one watch of the new base only", got)
}

// A guest that does not acknowledge reads no more; nobody else notices.
func TestBaseGuestThatDoesNotAcknowledgeFailsAlone(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 2 * time.Second}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1"})
	bad, good := w.guest("bad"), w.guest("good")
	told := make(chan struct{})
	bad.dom.OnFail(func() { close(told) })
	lb, lg := bad.link(), good.link()
	w.wantPins(lb.basePins(w.f, at1, base), nil)
	w.wantPins(lg.basePins(w.f, at1, base), nil)
	got := background(func() string { return bad.read(base, 0) })
	lb.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1)) // and silence
	unharmed := background(func() string { return good.read(base, 0) })
	lg.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	lg.send("2 ack")
	if s := <-unharmed; s != "a0" {
		t.Fatalf("another guest reads %q", s)
	}
	if s := <-got; s != errDomainFailed.Error() {
		t.Fatalf("the faulty guest reads %q", s)
	}
	w.must("the front is told", told)
	if s := bad.read(base, 1); s != errDomainFailed.Error() {
		t.Fatalf("the faulty guest still reads %q", s)
	}
	good.want(base, 0, "a0")
	w.want(0, "a1")
	w.commit(map[Blk]string{0: "a2"})
	w.want(0, "a2")
}

// Where no connection can be closed, what was not acknowledged cannot be read under that base any more. Only that.
func TestBaseClientThatCannotBeKilled(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: time.Second}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	base := w.db.Head()
	at1 := w.commit(map[Blk]string{0: "a1", 1: "b1"})
	at2 := w.commit(map[Blk]string{0: "a2", 1: "b2"})
	g := &guest{w, w.core.Host()}
	w.guest("") // the file is to be known
	g.want(base, 0, "a0")
	raw, err := w.core.OpenBaseLink(g.dom)
	if err != nil {
		t.Fatal(err)
	}
	l := &testLink{t: t, l: raw}
	w.wantPins(l.basePins(w.f, at1, base), map[Blk]zodb.Tid{0: at1})
	got := background(func() string { return g.read(base, 1) })
	l.want(fmt.Sprintf("4 pin %s #1 @%s", w.f, at1))
	l.send("1 watch %s @%s base @%s", w.f, at2, base) // two more pins
	if s := <-got; s != errDomainFailed.Error() {
		t.Errorf("what was not acknowledged is read: %q", s)
	}
	g.want(base, 1, errDomainFailed.Error())
	g.want(base, 0, "a0") // the kernel had it, and the client was not told that it is at at2
	g.want(base, 2, "c0")
	w.guest("other").want(base, 1, "b0")
	w.want(1, "b2")
}
