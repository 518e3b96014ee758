package zcore

import (
	"strings"
	"testing"
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
