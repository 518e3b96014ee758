package zcore

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

const farAhead = zodb.Tid(0x7fff000000000000)

// A watch of what is not known waits for nothing, also ahead of head.
func TestUnknownFileIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	before := runtime.NumGoroutine()
	for i := range 1000 {
		l.send("%d watch %s @%s", 2*i+1, zodb.Oid(0x100000+i), farAhead)
		l.want(fmt.Sprintf("%d error %s", 2*i+1, setupErrorText(zodb.Oid(0x100000+i), farAhead, notKnown)))
	}
	if n := runtime.NumGoroutine(); n > before+20 {
		t.Errorf("%d goroutines more", n-before)
	}
	if n := len(l.l.byOid); n != 0 {
		t.Errorf("%d files are remembered", n)
	}
}

func setupErrorText(oid zodb.Oid, at zodb.Tid, why string) string {
	return fmt.Sprintf("setup watch f<%s> @%s: %s", oid, at, why)
}

// Watch requests under way are bounded per client, over all its links; when they have ended there is room again.
func TestWaitingRequestsAreBounded(t *testing.T) {
	w := newWorld(t, Options{MaxWaiting: 100}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	p, q := newFakeProcess(), &otherProcess{}
	a, b, other := w.linkOf(p), w.linkOf(&mortal{dead: make(chan struct{})}), w.linkOf(q)
	for i := range 100 {
		[]*testLink{a, b}[i%2].send("%d watch %s @%s", 2*i+1, w.f, farAhead)
	}
	a.send("501 watch %s @%s", w.f, farAhead)
	a.want("501 error " + setupErrorText(w.f, farAhead, "100 watch requests of one client are under way: wait for replies"))
	w.wantPins(other.pins(w.f, w.db.Head()), nil)
	if s := w.core.Stats(); s.Waiting != 100 || s.Refused != 1 {
		t.Errorf("%d requests wait, %d were refused", s.Waiting, s.Refused)
	}
	b.send("503 watch %s -", w.f)
	for range 51 { // the last is ok
		b.recv()
	}
	eventually(t, "room", func() bool { return w.core.Stats().Waiting == 50 })
	a.send("505 bye")
	eventually(t, "room", func() bool { return w.core.Stats().Waiting == 0 })
	for _, l := range []*testLink{b, other} {
		l.l.Close()
	}
	a.l.Close()
	eventually(t, "all to be forgotten", func() bool {
		w.core.mu.Lock()
		defer w.core.mu.Unlock()
		return len(w.core.owners) == 0 && len(w.core.headWaits) == 0
	})
}

type otherProcess struct{ fakeProcess }

func (p *otherProcess) Pid() int { return 2 }
func (p *otherProcess) Close()   {}

func TestLinksAreBounded(t *testing.T) {
	w := newWorld(t, Options{MaxLinks: 3}, map[Blk]string{0: "a0"})
	p := &otherProcess{}
	var links []*testLink
	for range 3 {
		links = append(links, w.linkOf(p))
	}
	if _, err := w.core.OpenLink(w.core.Host(), p); !errors.Is(err, ErrTooMany) {
		t.Fatalf("a fourth link: %v", err)
	}
	w.linkOf(newFakeProcess())
	links[0].l.Close()
	w.linkOf(p)
}

func TestBasesAreBounded(t *testing.T) {
	w := newWorld(t, Options{MaxBases: 5}, map[Blk]string{0: "a0"})
	base := w.db.Head()
	w.commit(map[Blk]string{0: "a1"})
	g := w.guest("g")
	for i := range zodb.Tid(5) {
		g.want(base+i, 0, "a0")
	}
	if s := g.read(base+5, 0); !strings.Contains(s, ErrTooMany.Error()) {
		t.Errorf("a sixth base: %q", s)
	}
	g.want(base, 0, "a0")
	l := g.link()
	l.send("1 watch %s @%s base @%s", w.f, w.db.Head(), base+6)
	if s := l.recv(); !strings.HasSuffix(s, "files under 5 bases are in use: take the base from head/base") {
		t.Errorf("a watch over a seventh: %q", s)
	}
	w.guest("h").want(base+7, 0, "a0")
}

// A commit wakes those only who wait for it.
func TestWaitersAheadCostCommitsNothing(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	ahead := make(chan error, 1000)
	for i := range 1000 {
		go func() { ahead <- w.core.waitHead(t.Context(), farAhead+zodb.Tid(i)) }()
	}
	eventually(t, "them to wait", func() bool {
		w.core.mu.Lock()
		defer w.core.mu.Unlock()
		return len(w.core.headWaits) == 1000
	})
	w.core.mu.Lock()
	first := w.core.headWaits[0]
	w.core.mu.Unlock()
	w.commit(map[Blk]string{0: "a1"})
	w.core.mu.Lock()
	defer w.core.mu.Unlock()
	if len(w.core.headWaits) != 1000 || w.core.headWaits[0] != first {
		t.Error("a commit moved those who wait for another")
	}
}

// Many more pins than could be acknowledged in one timeout are sent a window at a time, and each clock runs from when its
// pin could be answered: a client that goes on acknowledging is not killed.
func TestSlowClientWithManyPinsIsNotKilled(t *testing.T) {
	for _, window := range []int{10, 256} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			t.Parallel()
			testSlowClient(t, window)
		})
	}
}

func testSlowClient(t *testing.T, window int) {
	const n = 60
	init, then := map[Blk]string{}, map[Blk]string{}
	for blk := range Blk(n) {
		init[blk], then[blk] = "old", "new"
	}
	w := newWorld(t, Options{PinTimeout: 600 * time.Millisecond, PinWindow: window}, init)
	for blk := range Blk(n) {
		w.want(blk, "old")
	}
	at := w.db.Head()
	w.commit(then)
	for blk := range Blk(n) {
		w.want(blk, "new")
	}
	p := newFakeProcess()
	l := w.linkOf(p)
	l.send("1 watch %s @%s", w.f, at)
	for range n {
		line := l.recv()
		stream, msg, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(msg, "pin ") {
			t.Fatalf("got %q", line)
		}
		l.l.mu.Lock()
		owed := len(l.l.asked)
		l.l.mu.Unlock()
		if owed > window {
			t.Fatalf("%d pins are out, the window is %d", owed, window)
		}
		time.Sleep(20 * time.Millisecond) // all in all, twice the timeout
		l.send("%s ack", stream)
	}
	l.want("1 ok")
	if s := p.signals.Load(); s != 0 {
		t.Errorf("the client got %d signals", s)
	}
}

// A client that stops acknowledging is killed all the same, one timeout after its last acknowledgement.
func TestClientThatStopsAmidManyPinsIsKilled(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 300 * time.Millisecond, PinWindow: 2}, map[Blk]string{0: "a", 1: "b", 2: "c", 3: "d"})
	for blk := range Blk(4) {
		w.read(blk)
	}
	at := w.db.Head()
	w.commit(map[Blk]string{0: "a1", 1: "b1", 2: "c1", 3: "d1"})
	for blk := range Blk(4) {
		w.read(blk)
	}
	p := newFakeProcess()
	l := w.linkOf(p)
	l.send("1 watch %s @%s", w.f, at)
	l.recv()
	l.send("2 ack")
	for line := ""; !strings.HasPrefix(line, "0 fatal: pin #"); line = l.recv() {
		if line == "EOF" {
			t.Fatal("it is not told why")
		}
	}
	eventually(t, "it to be killed", func() bool { return p.signals.Load() > 0 })
}

// A watch that keeps too much history ends, with an error on its link; one that keeps less goes on.
func TestWatchThatKeepsTooMuchHistoryEnds(t *testing.T) {
	w := newWorld(t, Options{Retention: time.Nanosecond, ListBytes: 5000}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	old, at := w.link(), w.db.Head()
	w.wantPins(old.pins(w.f, at), nil)
	var young *testLink
	var now zodb.Tid
	for i := range 30 {
		now = w.commit(map[Blk]string{1: fmt.Sprint(i)})
		if i == 9 {
			young = w.link()
			w.wantPins(young.pins(w.f, now), nil)
		}
	}
	for range 20 {
		now = w.commit(map[Blk]string{1: "x"})
		young.send("1 watch %s @%s", w.f, now)
		young.want("1 ok")
	}
	if s := old.recv(); !strings.HasPrefix(s, fmt.Sprintf("0 error: watch f<%s> @%s: more was committed since than this server remembers", w.f, at)) {
		t.Fatalf("got %q", s)
	}
	old.want("EOF")
	if _, full := w.core.tail.Overfull(); full {
		t.Error("there is still too much")
	}
	w.wantPins(young.pins(w.f, now), nil)
}

// A stream of commits that nobody reads ends, after what it has.
func TestUnreadZheadIsBounded(t *testing.T) {
	w := newWorld(t, Options{}, nil)
	z := w.core.OpenZhead()
	defer z.Close()
	w.core.mu.Lock()
	for i := range zodb.Tid(maxUnreadTids + 100) {
		z.pushLocked(i + 1)
	}
	n := len(z.tids)
	w.core.mu.Unlock()
	if n != maxUnreadTids {
		t.Fatalf("%d lines are kept", n)
	}
	read := 0
	for {
		p, err := z.Read(t.Context(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(p) == 0 {
			break
		}
		read += len(p)
	}
	if read != 17*maxUnreadTids {
		t.Errorf("%d bytes were read before the end", read)
	}
}
