package zcore

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"wcfs/zcore/watch"
	"wcfs/zcore/zdata/zgen"
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

func TestChangeOfBlockWithoutKnownHistory(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	w.want(0, "a0")
	w.commit(map[Blk]string{0: "a1"})
	w.want(0, "a1")
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
	w := newWorld(t, Options{}, map[Blk]string{0: "a"})
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

func TestHoleGetsDataAndDataBecomesAHole(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 5: "f"})
	at0 := w.db.Head()
	w.want(3, "")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.commit(map[Blk]string{3: "d1"})
	w.readPinned(l, 2, 3, at0, "d1")
	w.want(5, "f")
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Punch(w.f, 0) }))
	w.readPinned(l, 4, 0, at0, "")
}

func TestGrowthShrinkRegrowthWithReadsPastTheEnd(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 1: "b"})
	at0 := w.commit(map[Blk]string{4: "e"})
	w.want(4, "e")
	at1 := w.tx(func(tx *zgen.Tx) { tx.Truncate(w.f, 2) })
	w.announced(at1)
	f, _ := w.core.Lookup(context.Background(), w.f)
	if a, _ := f.Attr(context.Background()); a.Size != 2*testBlksize {
		t.Fatalf("size is %d", a.Size)
	}
	// The kernel may still ask for pages inside the size it knew: zeros in full, never a short answer.
	d, err := f.Read(context.Background(), w.core.Host(), 100, 3*testBlksize)
	if err != nil || d.Size() != 100 {
		t.Fatalf("read past the new end: %d bytes, %v", d.Size(), err)
	}
	d.Done()
	l := w.link()
	w.wantPins(l.pins(w.f, at0), map[Blk]zodb.Tid{4: at0}) // block 3 was a hole then too
	at2 := w.commit(map[Blk]string{3: "d2", 4: "e2"})
	w.readPinned(l, 4, 3, w.core.T0(), "d2")
	w.want(4, "e2")
	w.wantPins(w.link().pins(w.f, at1), map[Blk]zodb.Tid{3: w.core.T0(), 4: at1})
	w.wantPins(w.link().pins(w.f, at2), nil)
}

func TestSizeDuringBucketSplit(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 1: "b", 2: "c"}) // a bucket has three keys
	reached, release := w.stopAt(StepPublished)
	defer release()
	tid := w.write(map[Blk]string{3: "d", 4: "e", 5: "f"})
	w.must("publish", reached)
	size := background(func() int64 {
		f, err := w.core.Lookup(context.Background(), w.f)
		if err != nil {
			t.Error(err)
			return 0
		}
		a, _ := f.Attr(context.Background())
		return a.Size
	})
	mustNot(t, "a lookup of what a published commit touches is answered before the view has it", size)
	release()
	if got := <-size; got != 6*testBlksize {
		t.Fatalf("size is %d", got)
	}
	w.announced(tid)
}

func TestReadWhileCommitIsBetweenPublishAndView(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 40: "z0"})
	w.want(0, "a0")
	reached, release := w.stopAt(StepDelta)
	defer release()
	at1 := w.write(map[Blk]string{0: "a1"})
	w.must("delta", reached)
	touched := background(func() string { return w.read(0) })
	mustNot(t, "a touched block is answered as of the old view", touched)
	release()
	if s := <-touched; s != "a1" {
		t.Fatalf("got %q", s)
	}
	w.announced(at1)
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

func TestAdvanceRacesCommitAndRead(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	at1 := w.commit(map[Blk]string{0: "a1"})
	w.readPinned(l, 2, 0, at0, "a1")
	reached, release := w.stopAt(StepWatchView) // the advance knows of at1 only
	defer release()
	l.send("1 watch %s @%s", w.f, at1)
	w.must("the advance takes its view", reached)
	w.commit(map[Blk]string{0: "a2"})
	w.readPinned(l, 4, 0, at1, "a2") // a newer decision for the same at
	release()
	l.want("1 ok") // and no "@head" after it
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
	deadline := time.Now().Add(30 * time.Second)
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
	return watch.Pin{Oid: f, Rev: rev, Head: rev == tidHead}.String()
}

func TestReadDoesNotJoinALoadBegunBeforeTheCommit(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	zblk := w.db.Zblk(w.f, 0, w.db.Head())
	old, loading := make(chan struct{}), make(chan struct{})
	began := sync.OnceFunc(func() { close(loading) })
	w.stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk && at == w.core.T0() {
			began()
			<-old
		}
		return nil
	})
	one := background(func() string { return w.read(0) }) // holds the block: step 3 waits for it
	w.must("the load", loading)
	reached, release := w.stopAt(StepView)
	tid := w.write(map[Blk]string{0: "a1"})
	w.must("view", reached)
	release()
	if s := w.read(0); s != "a1" {
		t.Fatalf("a read at the new view got %q", s)
	}
	close(old)
	if s := <-one; s != "a0" {
		t.Fatalf("a read at the old view got %q", s)
	}
	w.announced(tid)
	w.want(0, "a1")
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

func TestManyAppendsAgainstASlowLoad(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	zblk := w.db.Zblk(w.f, 0, w.db.Head())
	w.stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk {
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	})
	got := background(func() string { return w.read(0) })
	for blk := Blk(1); blk < 300; blk++ {
		w.write(map[Blk]string{blk: "x"})
		time.Sleep(500 * time.Microsecond)
	}
	select {
	case s := <-got:
		if s != "a0" {
			t.Fatalf("got %q", s)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the read never ends while others append")
	}
	w.announced(w.db.Head())
}

func TestChangedZBigFileIsEIOMode(t *testing.T) {
	for name, change := range map[string]func(*world, *zgen.Tx){
		"blksize": func(w *world, tx *zgen.Tx) { tx.GrowBlksize(w.f, 2*testBlksize) },
		"blktab":  func(w *world, tx *zgen.Tx) { tx.ResetFile(w.f, testBlksize) },
		"deleted": func(w *world, tx *zgen.Tx) { tx.DeleteFile(w.f) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
			w.want(0, "a0")
			// even while a commit waits for a read that nobody will ever answer
			f, _ := w.core.Lookup(context.Background(), w.f)
			d, err := f.Read(context.Background(), w.core.Host(), 10, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Done()
			w.write(map[Blk]string{0: "a1"})
			w.tx(func(tx *zgen.Tx) { change(w, tx) })
			w.must("EIO mode", w.core.Failed())
			if _, err := f.Read(context.Background(), w.core.Host(), 10, 0); err != ErrNotConn {
				t.Fatalf("read in EIO mode: %v", err)
			}
		})
	}
}

func TestStorageFailsForGoodIsEIOMode(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	w.stor.FailFollow(fmt.Errorf("broken"))
	w.must("EIO mode", w.core.Failed())
	if _, err := l.l.Read(context.Background(), 10); err != ErrNotConn {
		t.Fatalf("read of a link in EIO mode: %v", err)
	}
}

func TestGapKeepsWatchesOutAndServesTheRest(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	w.want(1, "b0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.gapNext = true
	w.commit(map[Blk]string{0: "a1"})
	w.want(1, "b0")
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	l.send("2 ack")
	if s := <-got; s != "a1" {
		t.Fatalf("got %q", s)
	}
	l2 := w.link()
	l2.send("1 watch %s @%s", w.f, at0+1)
	if s := l2.recv(); len(s) < 70 || s[:70] != fmt.Sprintf("1 error setup watch f<%s> @%s: too far away back", w.f, at0+1)[:70] {
		t.Fatalf("got %q", s)
	}
	w.wantPins(l2.pins(w.f, at0), map[Blk]zodb.Tid{0: at0})
}

// recorder is a page cache that notes what is dropped.
type recorder struct{ dropped chan int64 }

func (r *recorder) Retrieve(zodb.Oid, int64, []byte) (int, error)    { return 0, nil }
func (r *recorder) InvalidateAttr(zodb.Oid) error                    { return nil }
func (r *recorder) Upload(zodb.Oid, int64, []byte) error             { return nil }
func (r *recorder) StoreRev(zodb.Tid, zodb.Oid, int64, []byte) error { return nil }
func (r *recorder) Invalidate(_ zodb.Oid, off, _ int64) error {
	r.dropped <- off / testBlksize
	return nil
}

// A page that is invalidated between the reply to a fault and its retry is read again under mmap_lock.
func TestBlockIsLeftAloneWhileItsReadIsUnderWay(t *testing.T) {
	const grace = 50 * time.Millisecond
	pc := &recorder{make(chan int64, 10)}
	w := newWorld(t, Options{Grace: grace}, map[Blk]string{0: "a0", 1: "b0"})
	w.core.pc = pc
	w.want(1, "b0")
	f, _ := w.core.Lookup(context.Background(), w.f)
	d, err := f.Read(context.Background(), w.core.Host(), testBlksize, 0)
	if err != nil {
		t.Fatal(err)
	}
	tid := w.write(map[Blk]string{0: "a1", 1: "b1"})
	if blk := <-pc.dropped; blk != 1 {
		t.Fatalf("block %d is dropped, whose read is under way", blk)
	}
	mustNot(t, "a block is dropped while its read is under way", pc.dropped)
	answered := time.Now()
	d.Done()
	// reads under the new view do not prolong it
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.read(0)
			}
		}
	}()
	<-pc.dropped
	if took := time.Since(answered); took < grace {
		t.Errorf("dropped %s after the answer", took)
	}
	close(stop)
	w.announced(tid)
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
