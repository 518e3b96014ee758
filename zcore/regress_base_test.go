package zcore

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A client whose watch was replaced by one over another base, which then cannot be set up, is told so in the
// strongest way: nothing protects what it has mapped of the old base.
func TestBaseReplacedInVain(t *testing.T) {
	w := newWorld(t, uncached, map[Blk]string{0: "a0", 1: "b0"})
	base0 := w.db.Head()
	base1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, base1, base0), nil)
	g.want(base1, 0, "a1")
	at2 := w.commit(map[Blk]string{0: "a2"})
	at3 := w.commit(map[Blk]string{2: "c3", 3: "d3", 4: "e3", 5: "f3"})
	w.stor.Pack(at3)
	l.send("1 watch %s @%s base @%s", w.f, at2, base1)
	if got := l.recv(); !strings.HasPrefix(got, "0 error: setup watch") {
		t.Fatalf("got %q", got)
	}
	l.want("EOF")
}

// While a watch is being replaced by one over another base it can be stopped, too: no pin follows.
func TestStopAsABaseIsReplaced(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	base0 := w.db.Head()
	base1 := w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	l := g.link()
	w.wantPins(l.basePins(w.f, base1, base0), nil)
	reached, release := w.stopAt(StepWatchDropped)
	defer release()
	l.send("1 watch %s @%s base @%s", w.f, base1, base1)
	w.must("the replacement", reached)
	l.send("3 watch %s -", w.f)
	l.want("3 ok")
	g.want(base0, 0, "a0") // and it does not wait
	release()
	if got := l.recv(); !strings.HasPrefix(got, "1 error setup watch") {
		t.Fatalf("got %q", got)
	}
}

// A read that looks at the watches just before they are gone, because one did not acknowledge, fails too: where
// its block is poisoned, and where its guest's connections are closed once they have their last replies.
func TestReadAsAWatchFails(t *testing.T) {
	for _, c := range []struct {
		name string
		base bool // over a base, not head
		host bool // a client that comes through the host's mount, and cannot be killed
		at   Step // where the read is then
	}{
		{"virtfs", true, true, StepPinDecide},
		{"guest, base", true, false, StepPinDecide},
		{"guest, head", false, false, StepReadLoad},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, Options{PinTimeout: time.Second}, map[Blk]string{0: "a0"})
			base := w.db.Head()
			g := w.guest("g")
			if c.host {
				g.dom = w.core.Host()
			}
			raw, err := w.core.OpenLink(g.dom, nil)
			if err != nil {
				t.Fatal(err)
			}
			l, at, read := &testLink{t: t, l: raw}, base, func() string { return g.readHead(0) }
			if c.base {
				at, read = w.commit(map[Blk]string{0: "a1"}), func() string { return g.read(base, 0) }
				w.wantPins(l.basePins(w.f, at, base), nil)
			} else {
				w.wantPins(l.pins(w.f, at), nil)
				w.commit(map[Blk]string{0: "a1"})
			}
			first := background(read)
			l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at)) // and silence
			reached, release := w.stopAt(c.at)
			defer release()
			second := background(read)
			w.must("the second read", reached)
			if s := <-first; s != errDomainFailed.Error() {
				t.Errorf("the first read got %q", s)
			}
			release()
			if s := <-second; s != errDomainFailed.Error() {
				t.Errorf("the second read got %q", s)
			}
			if s := read(); s != errDomainFailed.Error() {
				t.Errorf("a third read got %q", s)
			}
		})
	}
}

// readHead reads a block of head; an error is part of what it returns.
func (g *guest) readHead(blk Blk) string {
	f, err := g.w.core.Lookup(g.w.t.Context(), g.w.f)
	if err != nil {
		return err.Error()
	}
	d, err := f.Read(g.w.t.Context(), g.dom, testBlksize, int64(blk)*testBlksize)
	if err != nil {
		return err.Error()
	}
	d.Done()
	return strings.TrimRight(dataText(d), "\x00")
}
