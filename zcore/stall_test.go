package zcore

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wcfs/zcore/zodb"
)

// userProcess is a client process of a user, that a signal ends.
type userProcess struct {
	pid  int
	uid  uint32
	once sync.Once
	dead chan struct{}
}

func (p *userProcess) Pid() int { return p.pid }

// Describe implements Described.
func (p *userProcess) Describe() (uint32, string) { return p.uid, "evil" }

func (p *userProcess) Close() {}
func (p *userProcess) Alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// Signal: it has a handler for all that can be handled.
func (p *userProcess) Signal(sig os.Signal) error {
	if sig == os.Kill {
		p.once.Do(func() { close(p.dead) })
	}
	return nil
}

func (p *userProcess) Wait(ctx context.Context) error {
	select {
	case <-p.dead:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stallWorld has users, and counts their processes.
type stallWorld struct {
	*world
	pids int
}

func (w *stallWorld) processOf(uid uint32) *testLink {
	w.pids++
	return w.linkOf(&userProcess{pid: w.pids, uid: uid, dead: make(chan struct{})})
}

// watch asks for a watch of the file, and returns the reply.
func (w *stallWorld) watch(tl *testLink, at zodb.Tid) string {
	w.t.Helper()
	tl.send("1 watch %s @%s", w.f, at)
	return tl.recv()
}

func (w *stallWorld) took(blk Blk) time.Duration {
	began := time.Now()
	w.read(blk)
	return time.Since(began)
}

// ops/repro_uid: a user whose clients do not acknowledge makes others wait once, for a pintimeout; its other watches
// cost others little, and new ones are refused for a while. Others are not held liable.
func TestStallBudgetOfUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const evil, good, limit = 4242, 4243, 5 * time.Second
		init := map[Blk]string{}
		for blk := range Blk(12) {
			init[blk] = "old"
		}
		w := &stallWorld{world: newWorld(t, Options{PinTimeout: limit, Retention: time.Hour}, init)}
		w.read(0)
		at := w.db.Head()

		for range 4 { // processes that are there before the first fault
			l := w.processOf(evil)
			if got := w.watch(l, at); got != "1 ok" {
				t.Fatalf("watch: %q", got)
			}

		}
		w.commit(map[Blk]string{0: "new0", 1: "new1", 2: "new2"})
		late := w.processOf(evil)
		if got := w.watch(late, w.db.Head()); got != "1 ok" {
			t.Fatalf("watch: %q", got)
		}
		if d := w.took(0); d < limit || d > 2*limit {
			t.Errorf("the first read waited %v, want about a pintimeout", d)
		}
		if got := w.core.Health().Pins.Refused; len(got) != 1 || !strings.HasPrefix(got[0], "uid 4242 for ") {
			t.Errorf("health names %q", got)
		}
		w.commit(map[Blk]string{0: "newer0", 1: "newer1", 2: "newer2"})
		var waits []time.Duration
		for i := range 40 {
			l := w.processOf(evil)
			if got := w.watch(l, w.db.Head()); !strings.Contains(got, "error ") || !strings.Contains(got, "uid 4242 did not acknowledge") {
				t.Fatalf("watch %d past the budget: %q", i, got)
			}
			waits = append(waits, w.took(Blk(i%3))) // late has blocks 0, 1 and 2 to pin
			w.commit(map[Blk]string{Blk(i % 3): "again"})
			for _, uid := range []uint32{good, 0, uint32(os.Geteuid())} {
				o := w.processOf(uid)
				if got := w.watch(o, w.db.Head()); got != "1 ok" {
					t.Fatalf("watch of uid %d: %q", uid, got)
				}
				o.send("3 bye")
			}
		}
		slices.Sort(waits)
		if median, longest := waits[len(waits)/2], waits[len(waits)-1]; median > 100*time.Millisecond || longest > limit/2 {
			t.Errorf("past the budget reads waited %v at the median, %v at most", median, longest)
		}
		time.Sleep((stallRefused + 1) * limit)
		if got := w.watch(w.processOf(evil), w.db.Head()); got != "1 ok" {
			t.Errorf("after a while: %q", got)
		}
		if got := w.core.Health().Pins.Refused; len(got) > 0 {
			t.Errorf("health still names %q", got)
		}
		t.Logf("past the budget reads waited %v at the median, %v at most", waits[len(waits)/2], waits[len(waits)-1])
	})
}

// A client that acknowledges late, root and the server's own user have no account; a guest has four faults, an
// anonymous one is nobody.
func TestStallAccounts(t *testing.T) {
	w := newWorld(t, Options{PinTimeout: time.Minute}, map[Blk]string{0: "a"})
	named, anonymous := w.core.NewDomain("g", true), w.core.NewDomain("x", false)
	for _, c := range []struct {
		dom    *Domain
		uid    uint32
		proc   bool
		faults int // until watches are refused; 0: never
	}{
		{w.core.Host(), 4242, true, 1}, {w.core.Host(), 0, true, 0}, {w.core.Host(), uint32(os.Geteuid()), true, 0},
		{w.core.Host(), 0, false, 0}, {named, 0, false, stallsOfGuest}, {anonymous, 0, false, 0},
	} {
		var proc Process
		if c.proc {
			proc = &userProcess{pid: 9, uid: c.uid, dead: make(chan struct{})}
		}
		l, err := w.core.OpenLink(c.dom, proc)
		if err != nil {
			t.Fatal(err)
		}
		l.charge(time.Minute / 100) // an honest end with a pin under way
		for i := 1; i <= 10; i++ {
			if refused := w.core.stalls.refusedFor(l.staller) > 0; refused != (c.faults > 0 && i > c.faults) {
				t.Errorf("%+v: before fault %d: refused %v", c, i, refused)
			}
			l.charge(time.Minute)
		}
	}
}
