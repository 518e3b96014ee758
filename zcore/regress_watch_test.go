package zcore

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/watchproto"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

func TestOldDataWatchAtTailThenFirstRead(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a"})
	w.read(0)
	at := w.db.Head()
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	w.want(0, "a")
	w.commit(map[Blk]string{0: "b"})
	w.readPinned(l, 2, 0, at, "b")
}

func TestSetupAtOldRevisionAsksTheDatabase(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	at1 := w.db.Head()
	at2 := w.commit(map[Blk]string{1: "b2"})
	w.commit(map[Blk]string{0: "a3"})
	w.want(0, "a3") // tracked only now
	w.wantPins(w.link().pins(w.f, at2), map[Blk]zodb.Tid{0: at1})
	at4 := w.commit(map[Blk]string{0: "a4"})
	at5 := w.commit(map[Blk]string{0: "a5"})
	w.want(0, "a5")
	w.wantPins(w.link().pins(w.f, at4), map[Blk]zodb.Tid{0: at4})
	w.wantPins(w.link().pins(w.f, at5), nil)
}

func TestWatchBeforeCreation(t *testing.T) {
	w := newWorld(t, Options{Retention: time.Nanosecond}, map[Blk]string{0: "a"})
	at0 := w.db.Head()
	var f2 zodb.Oid
	at1 := w.tx(func(tx *zgen.Tx) { f2 = tx.NewFile(testBlksize); tx.Write(f2, 0, []byte("x"), zgen.Blk0) })
	w.announced(at1)
	l := w.link()
	l.send("1 watch %s @%s", f2, at1)
	l.want(fmt.Sprintf("1 error setup watch f<%s> @%s: file not yet known to wcfs or is not a ZBigFile", f2, at1))
	l.send("1 watch %s -", f2)
	l.want(fmt.Sprintf("1 error setup watch f<%s> @ffffffffffffffff: file not yet known to wcfs or is not a ZBigFile", f2))
	w.f = f2
	w.want(0, "x")
	at2 := w.commit(map[Blk]string{1: "y"})
	l.send("1 watch %s @%s", f2, at0)
	l.want(fmt.Sprintf("1 error setup watch f<%s> @%s: file epoch detected @%s in between (at,head=@%s]", f2, at0, at1, at2))
	l.send("1 watch %s @%s", f2, at0-1)
	if got, want := l.recv(), fmt.Sprintf("1 error setup watch f<%s> @%s: too far away back from head/at (@%s); δt = ", f2, at0-1, at2); len(got) <= len(want) || got[:len(want)] != want {
		t.Fatalf("got %q", got)
	}
	// grown by appends, watched and pinned: not below creation
	w.want(1, "y")
	w.commit(map[Blk]string{1: "y3", 2: "z3"})
	w.want(1, "y3")
	w.want(2, "z3")
	w.wantPins(w.link().pins(f2, at1), map[Blk]zodb.Tid{1: at1, 2: at1})
}

func TestWatchSetUpBetweenViewAndAnnounce(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	reached, release := w.stopAt(StepView)
	defer release()
	at1 := w.write(map[Blk]string{0: "a1"})
	w.must("view", reached)
	l := w.link()
	w.wantPins(l.pins(w.f, at0), map[Blk]zodb.Tid{0: at0}) // although head is at0 still
	l.send("3 watch %s @%s", w.f, at1)
	ok := background(l.recv)
	mustNot(t, "a watch ahead of head is answered", ok)
	release()
	if s := <-ok; s != fmt.Sprintf("4 pin %s #0 @head", w.f) {
		t.Fatalf("got %q", s)
	}
	l.send("4 ack")
	l.want("3 ok")
}

func TestWatchSetUpBetweenDeltaAndViewOfAHole(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 9: "z"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	at0 := w.db.Head()
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Touch(w.f, 0) })) // the ZBlk is newer than the path to it
	w.want(0, "a0")
	reached, release := w.stopAt(StepDelta)
	defer release()
	tid := w.tx(func(tx *zgen.Tx) { tx.Punch(w.f, 0) })
	w.must("delta", reached)
	w.wantPins(w.link().pins(w.f, at0), map[Blk]zodb.Tid{0: at0})
	release()
	w.announced(tid)
}

// advancing is a world in which a link advances to at1, and goes on when released: it knows of at1 only, but block 0
// has changed again, which nobody has read yet.
func advancing(t *testing.T) (w *world, l *testLink, at1 zodb.Tid, release func()) {
	t.Helper()
	w = newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l = w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	at1 = w.commit(map[Blk]string{0: "a1"})
	w.readPinned(l, 2, 0, at0, "a1")
	reached, release := w.stopAt(StepWatchView)
	t.Cleanup(release)
	l.send("1 watch %s @%s", w.f, at1)
	w.must("the advance takes its view", reached)
	w.commit(map[Blk]string{0: "a2"})
	return w, l, at1, release
}

func TestAdvanceRacesCommitAndRead(t *testing.T) {
	w, l, at1, release := advancing(t)
	w.readPinned(l, 4, 0, at1, "a2") // a newer decision for the same at
	release()
	l.want("1 ok") // and no "@head" after it
}

// What a reader has pinned for the new at, as of a newer view than the advance has, is acknowledged before that is
// answered: until then the client shows the block as of its old at.
func TestAdvanceWaitsForPinsOfReaders(t *testing.T) {
	w, l, at1, release := advancing(t)
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("4 pin %s #0 @%s", w.f, at1))
	release()
	ok := background(l.recv)
	mustNot(t, "the advance is answered while the client still shows the old revision", ok)
	l.send("4 ack")
	if s := <-ok; s != "1 ok" {
		t.Fatalf("got %q", s)
	}
	if s := <-got; s != "a2" {
		t.Fatalf("got %q", s)
	}
}

// A block that becomes tracked after a set-up looked at what is, and is pinned by its reader, stays pinned.
func TestFirstReadDuringSetup(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	rev := w.db.Head()
	at0 := w.commit(map[Blk]string{1: "b"})
	w.commit(map[Blk]string{0: "a1"})
	l := w.link()
	reached, release := w.stopAt(StepWatchChanged)
	defer release()
	l.send("1 watch %s @%s", w.f, at0)
	w.must("the set-up finds what changed", reached)
	w.readPinned(l, 2, 0, rev, "a1")
	release()
	l.want("1 ok") // and no "@head" before it
}

func TestSecondReadWaitsForQueuedPin(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.commit(map[Blk]string{0: "a1"})
	one := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	two := background(func() string { return w.read(0) })
	mustNot(t, "a second read is answered while the pin is out", two)
	l.send("2 ack")
	if <-one != "a1" || <-two != "a1" {
		t.Fatal("wrong bytes")
	}
}

// The bound below which a file has no watch must not rise over one that entered while a reader looked.
func TestWatchEntersWhileAReaderLooks(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	at1 := w.commit(map[Blk]string{0: "a1", 1: "b1"})
	l1 := w.link()
	w.wantPins(l1.pins(w.f, at1), nil)
	w.commit(map[Blk]string{0: "a2"})
	newer := l1.l.watches()[0]
	newer.mu.Lock()
	looking := background(func() string { return w.read(0) })
	mustNot(t, "a read passes a watch without a look at it", looking)
	l2 := w.link()
	w.wantPins(l2.pins(w.f, at0), map[Blk]zodb.Tid{0: at0})
	newer.mu.Unlock()
	l1.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at1))
	l1.send("2 ack")
	if s := <-looking; s != "a2" {
		t.Fatalf("got %q", s)
	}
	w.readPinned(l2, 4, 1, at0, "b1")
}

// A message that is queued just as the one before it is acknowledged is sent once.
func TestOneSenderPerBlock(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	const n = 3000
	lines := make(chan string, 2*n)
	go func() { // acknowledges whatever comes
		for line := l.recv(); line != "EOF"; line = l.recv() {
			stream, msg, _ := strings.Cut(line, " ")
			lines <- msg
			l.send("%s ack", stream)
		}
		close(lines)
	}()
	cw := l.l.watches()[0]
	rev := func(i int) zodb.Tid {
		if i%2 == 0 {
			return at
		}
		return tidHead
	}
	deadline := time.Now().Add(wait.Patience)
	for i := 0; i < n && time.Now().Before(deadline); {
		cw.mu.Lock()
		if p := cw.pins[0]; p == nil || len(p.queue) == 0 { // the very moment
			cw.wantLocked(0, rev(i), at, at)
			i++
		}
		cw.mu.Unlock()
		runtime.Gosched() // with one processor the sender would have none
	}
	for _, m := range cw.pending() {
		<-m.done
	}
	l.send("1 bye")
	got := 0
	for msg := range lines {
		want := watchPin(w.f, rev(got))
		if msg != want {
			t.Fatalf("message %d is %q, want %q", got, msg, want)
		}
		got++
	}
	if got != n {
		t.Fatalf("%d messages, want %d", got, n)
	}
}

func watchPin(f zodb.Oid, rev zodb.Tid) string {
	return watchproto.Pin{Oid: f, Rev: rev, Head: rev == tidHead}.String()
}

func TestStopWatchingWithPinOutstanding(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	at1 := w.commit(map[Blk]string{0: "a1"})
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	f, _ := w.core.Lookup(context.Background(), w.f) // stat while pins are out
	if _, err := f.Attr(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.send("3 watch %s -", w.f)
	l.want("3 ok")
	if s := <-got; s != "a1" {
		t.Fatalf("got %q", s)
	}
	l.send("2 nak: whatever") // late, ignored
	w.wantPins(l.pins(w.f, at1), nil)
	if n := w.core.Stats().PinnedBlk; n != 0 {
		t.Fatalf("PinnedBlk is %d", n)
	}
}

// A pin of a watch that is gone does not come after the set-up of the next one for the same file.
func TestLatePinOfAWatchThatIsGone(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	at1 := w.commit(map[Blk]string{0: "a1"})
	reached, release := w.stopAt(StepPinSend)
	defer release()
	got := background(func() string { return w.read(0) })
	w.must("the pin is sent", reached)
	l.send("3 watch %s -", w.f)
	l.want("3 ok")
	w.wantPins(l.pins(w.f, at1), nil)
	release()
	if s := <-got; s != "a1" {
		t.Fatalf("got %q", s)
	}
	at2 := w.commit(map[Blk]string{1: "b"})
	w.wantPins(l.pins(w.f, at2), nil) // and no pin before that
}

func TestByeWithPinsOutstanding(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	w.commit(map[Blk]string{0: "a1"})
	w.want(0, "a1")
	l := w.link()
	l.send("1 watch %s @%s", w.f, at0)
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	l.send("3 bye")
	l.want("EOF")
	w.commit(map[Blk]string{0: "a2"})
	w.want(0, "a2")
	if s := w.core.Stats(); s.Watch != 0 || s.PinnedBlk != 0 {
		t.Fatalf("%+v", s)
	}
}

// Case db/29: after a restart clients come back at the tid they had. The server starts in the middle of a history, of which
// it has seen nothing; pins must be exactly those of one that was there all the time.
func TestWatchBeforeStart(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	tids := []zodb.Tid{w.db.Head()}
	commit := func(blks map[Blk]string) {
		tid := w.commit(blks)
		w.announced(tid)
		tids = append(tids, tid)
	}
	commit(map[Blk]string{0: "a1"})
	commit(map[Blk]string{1: "b2", 3: "d2"})
	commit(map[Blk]string{0: "a3"})
	w.startAnew(Options{})
	all := []Blk{0, 1, 2, 3}
	text := func(blk Blk, at zodb.Tid) string { return strings.TrimRight(string(w.db.Data(w.f, blk, at)), "\x00") }
	check := func(tids []zodb.Tid) {
		t.Helper()
		for _, at := range tids {
			want := map[Blk]zodb.Tid{}
			for _, blk := range w.model(w.f, all, at) {
				want[blk] = w.db.BlkRevAt(w.f, blk, at)
				if at >= w.core.T0() {
					want[blk] = max(want[blk], w.core.T0())
				}
			}
			l := w.link()
			w.wantPins(l.pins(w.f, at), want)
			for blk, rev := range want {
				if int64(blk)*testBlksize >= w.db.Size(w.f, at) {
					continue // past the end as of then
				}
				if got, err := w.readAt(rev, blk); err != nil || got != text(blk, at) {
					t.Errorf("block %d @%s is %q (%v), at %s it was %q", blk, rev, got, err, at, text(blk, at))
				}
			}
			l.send("3 bye")
			l.want("EOF")
		}
	}
	w.readAll(w.f, all)
	check(tids)
	commit(map[Blk]string{0: "a4", 2: "c4"})
	commit(map[Blk]string{3: "d5"})
	w.readAll(w.f, all)
	check(tids)
	check([]zodb.Tid{tids[0] + 1, tids[2] - 1, tids[3] + 1})

	// longer before the start: refused
	w.startAnew(Options{Retention: 1500 * time.Millisecond})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	l := w.link()
	l.send("1 watch %s @%s", w.f, tids[3])
	want := fmt.Sprintf("1 error setup watch f<%s> @%s: too far away back from head/at (@%s); δt = ", w.f, tids[3], tids[5])
	if got := l.recv(); !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q...", got, want)
	}
	w.readAll(w.f, all)
	oldest, _ := w.core.tail.Bounds()
	w.wantPins(l.pins(w.f, tids[4]), map[Blk]zodb.Tid{3: oldest})
}
