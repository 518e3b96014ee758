package zcore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// What the kernel returns is stored under @rev only if it is what was loaded.
func TestWrongPagesAreNotKept(t *testing.T) {
	pc := &allCached{recorder: recorder{make(chan int64, 10)}}
	w := newWorld(t, Options{Grace: time.Microsecond, BlockBytes: 1}, map[Blk]string{0: "a"})
	w.core.pc = pc
	w.want(0, "a")
	w.commit(map[Blk]string{0: "b"}) // the kernel says that there were zeros
	pc.wantStored(w)
}

// A watch takes its hold before it looks at the bound: what it depends on cannot be forgotten in between.
func TestHoldComesBeforeTheBound(t *testing.T) {
	w := newWorld(t, Options{Retention: time.Nanosecond}, map[Blk]string{0: "a0"})
	rev := w.db.Head()
	at := w.commit(map[Blk]string{1: "b"})
	w.want(0, "a0")
	l := w.link()
	reached, release := w.stopAt(StepWatchHold)
	l.send("1 watch %s @%s", w.f, at)
	w.must("the hold of a watch", reached)
	w.commit(map[Blk]string{0: "a1"})
	w.commit(map[Blk]string{1: "b1"})
	w.core.base.hold.Move(w.core.Head()) // nothing else holds what was
	w.core.tail.TrimNow()
	release()
	w.wantPins(l.pinsUntil("1 ok"), map[Blk]zodb.Tid{0: rev})
}

// A ZBigFile that changes while it is looked up is looked at again: nobody gets it as it was.
func TestZBigFileThatChangesWhileItIsLookedUp(t *testing.T) {
	w := newWorld(t, Options{NodeBytes: 1}, map[Blk]string{0: "a0"})
	bf, _ := w.db.File(w.f, w.db.Head())
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, _ zodb.Tid) error {
		if oid == bf.Blktab {
			once.Do(func() {
				close(reached)
				<-release
			})
		}
		return nil
	})
	found := background(func() *HeadFile {
		f, err := w.core.Lookup(context.Background(), w.f)
		if err != nil {
			t.Error(err)
		}
		return f
	})
	w.must("look-up", reached)
	w.announced(w.tx(func(tx *zgen.Tx) { tx.GrowBlksize(w.f, 2*testBlksize) }))
	close(release)
	if f := <-found; f == nil || f.h.Blksize != 2*testBlksize {
		t.Fatalf("it is found as it was before: %+v", f)
	}
}

// ranges is a page cache that notes what is invalidated.
type ranges struct {
	recorder
	got chan string
}

func (r *ranges) Invalidate(_ zodb.Oid, off, size int64) error {
	r.got <- fmt.Sprintf("%d+%d", off, size)
	return nil
}

// Past the end of a file its last page has zeros. After growth they are wrong, also where blocks end inside a page.
func TestZerosPastAnOldEndAreDropped(t *testing.T) {
	const blksize = 1000
	w := newWorld(t, Options{}, nil)
	pc := &ranges{recorder: recorder{make(chan int64, 10)}, got: make(chan string, 100)}
	w.core.pc = pc
	var f zodb.Oid
	w.announced(w.tx(func(tx *zgen.Tx) {
		f = tx.NewFile(blksize)
		tx.Write(f, 4, []byte("x"), zgen.Blk0)
	}))
	if _, err := w.core.Lookup(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(f, 20, []byte("y"), zgen.Blk0) }))
	close(pc.got)
	for r := range pc.got {
		if r == "4096+4096" { // it was 5000 bytes long
			return
		}
	}
	t.Fatal("the rest of the last page stays")
}

// A client that closes its link while it owes a pin is at fault: it may be looking at a block that moves on.
func TestLinkClosedWithAPinOutstanding(t *testing.T) {
	w := newWorld(t, Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := &mortal{dead: make(chan struct{})}
	l := w.linkOf(p)
	w.wantPins(l.pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1"})
	read := background(func() string { return w.headText(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
	l.l.Close()
	if s := <-read; s != "a1" {
		t.Errorf("got %q", s)
	}
	eventually(t, "the kill to be counted", func() bool { return w.core.Stats().PinKill == 1 })
}

// A pin that is decided while the watch moves on to where the block is as in head is not sent.
func TestPinDecidedAsTheWatchMovesOn(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	later := w.commit(map[Blk]string{0: "a1"})
	reached, release := w.stopAt(StepPinDecide)
	read := background(func() string { return w.headText(0) })
	w.must("decision", reached)
	l.send("1 watch %s @%s", w.f, later)
	l.want("1 ok")
	release()
	if s := <-read; s != "a1" {
		t.Errorf("got %q", s)
	}
	l.send("3 watch %s -", w.f)
	l.want("3 ok") // and no pin before it
}

// Of two decisions for the same at that of the newer view stands, whichever comes last.
func TestNewerDecisionStands(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	cw := l.l.watches()[0]
	cw.mu.Lock()
	defer cw.mu.Unlock()
	newer := cw.wantLocked(0, at, at, at+2)
	if m := cw.wantLocked(0, tidHead, at, at+1); m != newer || cw.pins[0].target != at {
		t.Fatalf("the block is to be shown at %s", cw.pins[0].target)
	}
}

// A reply has come and the pin is off, in the same moment: it is no fault, whatever the reply is.
func TestLateReplyIsNoFault(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, w.db.Head()), nil)
	cw := l.l.watches()[0]
	cw.cancel()
	for range 100 { // select takes either
		a := &asked{reply: make(chan string, 1), gone: make(chan struct{})}
		a.reply <- "nak"
		if why, _ := cw.waitAck(1, a); why != "" {
			t.Fatal(why)
		}
	}
}

// The end of the server acknowledges nothing, in no order of events.
func TestEndIsNoAcknowledgement(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	w.cancel()
	<-w.core.ctx.Done()
	if err := l.l.after(); !errors.Is(err, ErrNotConn) {
		t.Fatalf("got %v", err)
	}
}
