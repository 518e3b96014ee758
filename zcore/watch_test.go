package zcore

import (
	"fmt"
	"testing"
	"time"
)

func TestWatchBasics(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	at0 := w.db.Head()
	for blk, s := range []string{"a0", "b0", "c0", ""} {
		if got := w.read(Blk(blk)); got != s {
			t.Fatalf("block %d is %q", blk, got)
		}
	}
	l := w.link()
	l.send("1 watch %s @%s", w.f, at0)
	l.want("1 ok")
	at1 := w.commit(map[Blk]string{1: "b1", 3: "d1"})
	got := make(chan string, 1)
	go func() { got <- w.read(1) }()
	l.want(fmt.Sprintf("2 pin %s #1 @%s", w.f, at0))
	select {
	case <-got:
		t.Fatal("block was shown before the pin was acknowledged")
	case <-time.After(50 * time.Millisecond):
	}
	l.send("2 ack")
	if s := <-got; s != "b1" {
		t.Fatalf("got %q", s)
	}
	if s := w.read(1); s != "b1" { // no pin a second time
		t.Fatalf("got %q", s)
	}
	// another link at at0 needs the block that was read at set-up; nobody read #3, past the end then
	l2 := w.link()
	l2.send("3 watch %s @%s", w.f, at0)
	l2.want(fmt.Sprintf("2 pin %s #1 @%s", w.f, at0))
	l2.send("2 ack")
	l2.want("3 ok")
	// advance: back to head
	l.send("1 watch %s @%s", w.f, at1)
	l.want(fmt.Sprintf("4 pin %s #1 @head", w.f))
	l.send("4 ack")
	l.want("1 ok")
	l.send("1 watch %s @%s", w.f, at0)
	l.want(fmt.Sprintf("1 error setup watch f<%s> @%s: going back in history is forbidden", w.f, at0))
	l.send("bla bla")
	l.want(`0 error: invalid frame: "bla bla\n" (invalid stream)`)
	l.want("EOF")
}
