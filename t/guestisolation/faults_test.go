package guestisolation

import (
	"strings"
	"testing"
	"time"

	"wcfs/qemu/qemutest"
)

const faultTimeout = 8 * time.Second // the server's pintimeout

// faults is a guest that things happen to, beside one that nothing may happen to, and the host.
type faults struct {
	t             *testing.T
	w             *writer
	s             *server
	p             *proxy // what the victim mounts through
	victim, other *guest
	seed          int
}

func TestFaults(t *testing.T) {
	qemutest.Turn(t)
	f := &faults{t: t, w: startWriter(t)}
	f.s = startServer(t, f.w, faultTimeout)
	f.p = startProxy(t, f.s)
	f.victim = boot(t, f.s, spec{name: "victim", kernel: "6.12", how: tcp, port: f.p.port(), cpus: 1})
	f.other = boot(t, f.s, spec{name: "other", kernel: "6.1", how: tcp, port: f.s.port, cpus: 1})
	f.victim.running()
	f.other.running()
	f.ignores()
	f.paused()
	f.loses()
	f.restart()
	f.killed()
}

// unharmed has others work while something happens to the victim: each of their accesses must be faster than
// one that waits for a client of the victim.
func (f *faults) unharmed(what string, seconds int, happens func()) {
	f.t.Helper()
	f.seed += 10
	f.other.check(f.w, 2, seconds, f.seed)
	host := startHostCheck(f.t, f.s, seconds, f.seed+5)
	happens()
	for who, list := range map[string][]outcome{"other guest": f.other.checked(2, seconds), "host": {host.wait()}} {
		sum := tally(f.t, what+": "+who, list)
		if ms := sum["slowest-ms"]; ms >= int(faultTimeout.Milliseconds()) {
			f.t.Errorf("%s: %s: an access took %d ms", what, who, ms)
		}
	}
}

// back mounts the victim anew, and it works.
func (f *faults) back() {
	f.t.Helper()
	f.victim.remount(f.p.port())
	f.works(f.victim)
}

func (f *faults) works(g *guest) {
	f.t.Helper()
	f.seed += 10
	g.check(f.w, 1, 1, f.seed)
	tally(f.t, g.name+" after that", g.checked(1, 1))
}

// lost says that checkers of the victim ended, without a wrong byte.
func (f *faults) lost(n int) {
	f.t.Helper()
	for i, o := range f.victim.checked(n, 0) {
		f.t.Logf("client %d of the victim: %s", i, o.said)
		if o.status != 3 {
			f.t.Errorf("client %d of the victim: status %d, want 3: %s", i, o.status, o.said)
		}
	}
}

const long = 600 // seconds: checkers that are not to end by themselves

func (f *faults) ignored(said string) {
	f.t.Helper()
	f.t.Logf("client that ignores pins: %s", said)
	if !strings.Contains(said, "read: Input/output error") || !strings.Contains(said, "memory: SIGBUS") {
		f.t.Errorf("the guest that ignores pins read on: %s", said)
	}
}

func (f *faults) ignores() {
	f.unharmed("ignores pins", 10, func() {
		f.ignored(f.victim.must(2*time.Minute, "/checker ignore /wcfs %s", f.w.oids[0]))
	})
	f.back()
}

// paused: a pin is not acknowledged since its guest does not run.
func (f *faults) paused() {
	faulty := func() int { return strings.Count(f.s.said.String(), "watch client is faulty") }
	f.unharmed("paused", 11, func() {
		f.victim.check(f.w, 1, long, f.seed)
		was := faulty()
		f.victim.must(patience, "/checker ignore /wcfs %s >/tmp/ignored & sleep 2", f.w.oids[0])
		if err := f.victim.m.Pause(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
		eventually(f.t, "the server to give up the guest", func() bool { return faulty() > was })
		if err := f.victim.m.Resume(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
	})
	f.lost(1)
	said, _ := f.victim.sh(time.Minute, "wait; cat /tmp/ignored")
	f.ignored(said)
	f.back()
}

func (f *faults) loses() {
	f.unharmed("loses its connection", 4, func() {
		f.victim.check(f.w, 2, long, f.seed)
		f.victim.must(patience, "sleep 2")
		f.p.cut()
		f.lost(2)
		said, status := f.victim.sh(time.Minute, "cat /wcfs/head/at")
		f.t.Logf("cat without a connection: %s", said)
		if status == 0 {
			f.t.Errorf("a read without a connection gave %q", said)
		}
	})
	f.back()
}

// restart: bases of the old server are refused, and all mount again.
func (f *faults) restart() {
	old := readBase(f.t, f.s)
	f.victim.check(f.w, 2, long, f.seed)
	f.victim.must(patience, "sleep 2")
	f.s.end()
	f.s.start()
	f.lost(2)
	for g, port := range map[*guest]string{f.victim: f.p.port(), f.other: f.s.port} {
		g.remount(port)
		said := g.must(time.Minute, "/checker refused /wcfs %s %s", f.w.oids[0], strings.TrimSpace(old))
		if !strings.Contains(said, "is older than this server") {
			f.t.Errorf("%s: watch over base @%s of the old server: %s", g.name, old, said)
		}
		f.works(g)
	}
}

func (f *faults) killed() {
	f.unharmed("killed", int(faultTimeout.Seconds())+2, func() {
		f.victim.check(f.w, 2, long, f.seed)
		f.victim.must(patience, "/checker ignore /wcfs %s & sleep 2", f.w.oids[0])
		f.victim.kill()
	})
}
