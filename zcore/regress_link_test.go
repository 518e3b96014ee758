package zcore

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// fakeProcess is a client process that counts the signals it gets.
type fakeProcess struct {
	signals atomic.Int32
	closed  chan struct{}
}

func newFakeProcess() *fakeProcess { return &fakeProcess{closed: make(chan struct{})} }

func (p *fakeProcess) Pid() int                   { return 1 }
func (p *fakeProcess) Alive() bool                { return true }
func (p *fakeProcess) Close()                     { close(p.closed) }
func (p *fakeProcess) Wait(context.Context) error { return nil }
func (p *fakeProcess) Signal(os.Signal) error     { p.signals.Add(1); return nil }

// linkOf opens a link for a process.
func (w *world) linkOf(p Process) *testLink {
	l, err := w.core.OpenLink(w.core.Host(), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return &testLink{t: w.t, l: l}
}

// pinOut has a pin of block 0 sent on a link's only watch, and returns its stream.
func (tl *testLink) pinOut(rev zodb.Tid) (stream string) {
	tl.t.Helper()
	cw := tl.l.watches()[0]
	cw.mu.Lock()
	cw.wantLocked(0, rev, cw.at, cw.at)
	cw.mu.Unlock()
	stream, msg, _ := strings.Cut(tl.recv(), " ")
	if !strings.HasPrefix(msg, "pin ") {
		tl.t.Fatalf("got %q, want a pin", msg)
	}
	return stream
}

// mortal is a process that dies a while after it was sent a signal.
type mortal struct {
	fakeProcess
	dead chan struct{}
	once sync.Once
}

func (p *mortal) Close() {}

func (p *mortal) Signal(os.Signal) error {
	p.once.Do(func() { time.AfterFunc(20*time.Millisecond, func() { close(p.dead) }) })
	return nil
}

func (p *mortal) Alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

func (p *mortal) Wait(ctx context.Context) error {
	select {
	case <-p.dead:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A process that is faulty on several links at once is one client killed.
func TestOneProcessIsKilledOnce(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 300 * time.Millisecond}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := &mortal{dead: make(chan struct{})}
	for range 4 {
		w.wantPins(w.linkOf(p).pins(w.f, at), nil)
	}
	w.commit(map[Blk]string{0: "a1"})
	w.want(0, "a1") // all four links have a pin out until they are dealt with
	eventually(t, "the kill to be counted", func() bool { return w.core.Stats().PinKill > 0 })
	eventually(t, "the links to be gone", func() bool { return w.core.Stats().Watch == 0 })
	if n := w.core.Stats().PinKill; n != 1 {
		t.Fatalf("pinkill is %d", n)
	}
}

// immortal is a process that no signal ends.
type immortal struct{ fakeProcess }

func (p *immortal) Close() {}

func (p *immortal) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A client that has SIGKILL pending runs no code of its own, also when it does not end: frozen, or waiting for a disk.
func TestClientThatDoesNotEnd(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 100 * time.Millisecond}, map[Blk]string{0: "a0", 1: "b0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := &immortal{}
	w.wantPins(w.linkOf(p).pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1", 1: "b1"})
	w.want(0, "a1")
	w.want(1, "b1")
	if n := p.signals.Load(); n != 2 {
		t.Errorf("it was sent %d signals, want SIGBUS and SIGKILL", n)
	}
	if s := w.core.Stats(); s.PinKill != 1 || w.core.isFailed() {
		t.Errorf("pinkill is %d, EIO mode %v", s.PinKill, w.core.isFailed())
	}
	eventually(t, "its watch to be gone", func() bool { return w.core.Stats().Watch == 0 })
}

// untouchable is a process that may not be sent signals.
type untouchable struct{ mortal }

func (p *untouchable) Signal(os.Signal) error { p.signals.Add(1); return os.ErrPermission }

// Of a client that goes on without a pin what it should have pinned cannot be read until it ends; nothing else suffers.
func TestClientThatMayNotBeKilled(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 100 * time.Millisecond}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := &untouchable{mortal{dead: make(chan struct{})}}
	w.wantPins(w.linkOf(p).pins(w.f, at), nil)
	g := w.newFile()
	w.commit(map[Blk]string{0: "a1", 1: "b1"})
	for blk := range Blk(2) {
		if s := w.headText(blk); s != errDomainFailed.Error() {
			t.Errorf("block %d, which the client should have pinned: %q", blk, s)
		}
	}
	w.want(2, "c0")
	(&world{t: t, core: w.core, f: g}).want(0, "x")
	tid := w.commit(map[Blk]string{0: "a2"})
	if w.core.isFailed() || w.core.Head() != tid {
		t.Errorf("head is %s, EIO mode %v", w.core.Head(), w.core.isFailed())
	}
	close(p.dead)
	eventually(t, "its end", func() bool { return w.core.Stats().Watch == 0 })
	eventually(t, "the data", func() bool { return w.headText(0) == "a2" })
	w.want(1, "b1")
}

// So it is when readers wait for several pins of such a client at once.
func TestClientThatMayNotBeKilledOwesManyPins(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 100 * time.Millisecond, PinWindow: 2}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := &untouchable{mortal{dead: make(chan struct{})}}
	defer close(p.dead)
	w.wantPins(w.linkOf(p).pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1", 1: "b1", 2: "c1"})
	var reads []<-chan string
	for blk := range Blk(3) {
		reads = append(reads, background(func() string { return w.headText(blk) }))
	}
	for blk, read := range reads {
		select {
		case s := <-read:
			if s != errDomainFailed.Error() {
				t.Errorf("block %d: %q", blk, s)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the read of block %d waits for as long as the client lives", blk)
		}
	}
}

// After `-` the reply to a pin is nobody's, also when whoever waited for it has not noticed yet.
func TestNakRightAfterStopIsNoFault(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	p := newFakeProcess()
	l := w.linkOf(p)
	for range 300 {
		w.wantPins(l.pins(w.f, at), nil)
		stream := l.pinOut(at)
		l.send("3 watch %s -\n%s nak", w.f, stream)
		l.want("3 ok")
	}
	l.send("1 bye\n")
	l.want("EOF")
	if n := p.signals.Load(); n != 0 {
		t.Fatalf("the client was sent %d signals", n)
	}
}

// A link that is closed just as the last pin that was out is called off is gone, with all its watches:
// else readers would wait for ever for what it can never acknowledge.
func TestCloseRightAfterStopLeavesNothing(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: 10 * time.Second}, map[Blk]string{0: "a0"})
	at := w.db.Head()
	w.want(0, "a0")
	f := w.f
	other := w.newFile()
	w.f = f
	for range 200 {
		p := newFakeProcess()
		l := w.linkOf(p)
		w.wantPins(l.pins(f, at), nil)
		l.pinOut(at)
		l.send("5 watch %s @%s", other, w.db.Head())
		l.want("5 ok")
		l.send("3 watch %s -", f)
		l.l.Close()
		w.must("end of the link", p.closed)
		if n := p.signals.Load(); n != 0 {
			t.Fatalf("the client was sent %d signals", n)
		}
		eventually(t, "its watches to be gone", func() bool {
			s := w.core.Stats()
			return s.Watch == 0 && s.WatchLink == 0 && s.PinnedBlk == 0
		})
	}
}

// Requests of the server come in the order of their streams, whoever makes them at once.
func TestStreamsAscend(t *testing.T) {
	blks := map[Blk]string{}
	for blk := range Blk(64) {
		blks[blk] = fmt.Sprint("x", blk)
	}
	w := newWorld(t, Options{}, blks)
	at := w.db.Head()
	for blk := range blks {
		w.read(blk)
	}
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	cw := l.l.watches()[0]
	var last uint64
	for round := range 40 {
		rev := []zodb.Tid{at, tidHead}[round%2]
		cw.mu.Lock()
		for blk := range blks {
			cw.wantLocked(blk, rev, at, at)
		}
		cw.mu.Unlock()
		var acks strings.Builder
		for range blks {
			var stream uint64
			line := l.recv()
			if _, err := fmt.Sscanf(line, "%d pin", &stream); err != nil || stream != last+2 {
				t.Fatalf("%q comes after stream %d", line, last)
			}
			last = stream
			fmt.Fprintf(&acks, "%d ack\n", stream)
		}
		l.send("%s", strings.TrimSuffix(acks.String(), "\n"))
		for _, m := range cw.pending() {
			<-m.done
		}
	}
}

// Two readers of one stream: what the first leaves is the second's.
func TestTwoReadersOfOneStream(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	z := w.core.OpenZhead()
	defer z.Close()
	for name, read := range map[string]func(context.Context, int) ([]byte, error){"link": l.l.Read, "zhead": z.Read} {
		ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
		defer cancel()
		got := make(chan string, 2)
		for range 2 {
			go func() {
				p, err := read(ctx, 5)
				got <- fmt.Sprint(string(p), err)
			}()
		}
		time.Sleep(5 * time.Millisecond) // both most likely wait
		if name == "link" {
			l.send("1 x")
		} else {
			w.commit(map[Blk]string{0: "a1"})
		}
		for range 2 {
			if s := <-got; !strings.HasSuffix(s, "<nil>") {
				t.Errorf("%s: a reader got %q", name, s)
			}
		}
	}
}

// A client that asks and never reads does not fill the server's memory; nor does one that asks about
// ever other files.
func TestLinkIsBounded(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	for i := range 1000 {
		l.send("1 watch %s -\n3 watch %s @%s", zodb.Oid(1000+i), zodb.Oid(1000+i), w.db.Head())
		l.recv()
		l.recv()
	}
	eventually(t, "files that are not watched to be forgotten", func() bool {
		l.l.mu.Lock()
		defer l.l.mu.Unlock()
		return len(l.l.byOid) == 0
	})
	line := strings.Repeat("x", 4000)
	for range 2 * maxUnread / len(line) {
		l.send("1 %s", line)
	}
	l.l.mu.Lock()
	n := len(l.l.out)
	l.l.mu.Unlock()
	if n > maxUnread+2*len(line) {
		t.Fatalf("%d bytes are kept for a client that does not read", n)
	}
}
