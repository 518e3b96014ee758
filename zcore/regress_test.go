package zcore

import (
	"fmt"

	"wcfs/zcore/zodb"
)

// Each test here is a way in which systems of this kind crashed, hung or corrupted data.

// pins sets up a watch and returns which block is pinned to what, acknowledging all.
func (tl *testLink) pins(f zodb.Oid, at zodb.Tid) map[Blk]string {
	tl.t.Helper()
	tl.send("1 watch %s @%s", f, at)
	return tl.pinsUntil("1 ok")
}

func (tl *testLink) pinsUntil(last string) map[Blk]string {
	tl.t.Helper()
	got := map[Blk]string{}
	for {
		line := tl.recv()
		if line == last {
			return got
		}
		var stream uint64
		var oid, rev string
		var blk Blk
		if _, err := fmt.Sscanf(line, "%d pin %s #%d @%s", &stream, &oid, &blk, &rev); err != nil {
			tl.t.Fatalf("got %q, want a pin or %q", line, last)
		}
		got[blk] = rev
		tl.send("%d ack", stream)
	}
}

func (w *world) wantPins(got map[Blk]string, want map[Blk]zodb.Tid) {
	w.t.Helper()
	text := map[Blk]string{}
	for blk, rev := range want {
		text[blk] = rev.String()
	}
	if fmt.Sprint(got) != fmt.Sprint(text) {
		w.t.Fatalf("pins %v, want %v", got, text)
	}
}

// readPinned reads a block in the background, and acknowledges the pin that must come.
func (w *world) readPinned(tl *testLink, stream int, blk Blk, rev zodb.Tid, want string) {
	w.t.Helper()
	got := background(func() string { return w.read(blk) })
	tl.want(fmt.Sprintf("%d pin %s #%d @%s", stream, w.f, blk, rev))
	tl.send("%d ack", stream)
	if s := <-got; s != want {
		w.t.Fatalf("block %d is %q, want %q", blk, s, want)
	}
}

func (w *world) want(blk Blk, want string) {
	w.t.Helper()
	if s := w.read(blk); s != want {
		w.t.Fatalf("block %d is %q, want %q", blk, s, want)
	}
}
