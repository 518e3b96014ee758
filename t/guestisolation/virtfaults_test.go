//go:build soak

package guestisolation

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"wcfs/qemu/qemutest"
	"wcfs/zcore/zodb"
)

const virtTimeout = 6 * time.Second // the server's pintimeout

// virtFaults is a guest that things happen to, another one that also comes through virtfs, and the host.
type virtFaults struct {
	t                 *testing.T
	w                 *writer
	s                 *server
	victim, neighbour *guest
	seed              int
}

// TestVirtfsFaults: through virtfs there is no connection that could be closed.
func TestVirtfsFaults(t *testing.T) {
	qemutest.Turn(t)
	f := &virtFaults{t: t, w: startWriter(t)}
	f.w.damage()
	f.s = startServer(t, f.w, virtTimeout)
	f.victim = boot(t, f.s, spec{name: "victim", kernel: "6.12", how: virtfs, cpus: 1, above: true})
	f.neighbour = boot(t, f.s, spec{name: "neighbour", kernel: "6.1", how: virtfs, cpus: 1})
	for _, g := range f.guests() {
		g.running()
		f.works(g)
		f.database(g)
	}
	f.ignores()
	f.paused()
	f.restart()
	f.killed()
}

func (f *virtFaults) guests() []*guest { return []*guest{f.victim, f.neighbour} }

// meanwhile has others work while something happens. The host must not be held up; the neighbour may be, as it
// shares a domain with the victim, and may lose its views, but never sees a wrong byte.
func (f *virtFaults) meanwhile(what string, seconds int, happens func()) {
	f.t.Helper()
	f.seed += 10
	f.neighbour.check(f.w, 2, seconds, f.seed)
	host := startHostCheck(f.t, f.s, seconds, f.seed+5)
	happens()
	sum := tally(f.t, what+": host", []outcome{host.wait()})
	if ms := sum["slowest-ms"]; ms >= int(virtTimeout.Milliseconds()) {
		f.t.Errorf("%s: an access on the host took %d ms", what, ms)
	}
	for i, o := range f.neighbour.checked(2, seconds) {
		f.t.Logf("%s: neighbour, client %d: %s", what, i, o.said)
		if o.status != 0 && o.status != 3 {
			f.t.Errorf("%s: neighbour: %s", what, o.said)
		}
	}
}

// works says that clients of a guest can begin anew.
func (f *virtFaults) works(g *guest) {
	f.t.Helper()
	f.seed += 10
	g.check(f.w, 1, 1, f.seed)
	tally(f.t, g.name+" works", g.checked(1, 1))
}

// back says so of both, once there is another base than one with blocks that cannot be read any more.
func (f *virtFaults) back(bad string) {
	f.t.Helper()
	host := startHostCheck(f.t, f.s, 1, f.seed) // changes of what is read through head are counted
	eventually(f.t, "another base", func() bool { return readBase(f.t, f.s) != bad })
	tally(f.t, "host", []outcome{host.wait()})
	for _, g := range f.guests() {
		f.works(g)
	}
}

// block reads one block of a file in a guest.
func (f *virtFaults) block(g *guest, dir string, oid zodb.Oid, blk int) (string, int) {
	f.t.Helper()
	return g.sh(patience, "dd if=%s/%s/bigfile/%s of=/dev/null bs=%d skip=%d count=1", g.at, dir, oid, blksize, blk)
}

// unreadable says that a block of a file is EIO in a guest, read and mapped, and another one is not.
func (f *virtFaults) unreadable(g *guest, dir string, oid zodb.Oid, bad, good int) {
	f.t.Helper()
	if said, status := f.block(g, dir, oid, bad); status == 0 || !strings.Contains(said, "Input/output error") {
		f.t.Errorf("%s: block %d of %s/%s: %s", g.name, bad, dir, oid, said)
	}
	if said := g.must(patience, "/probes touch %s/%s/bigfile/%s %d", g.at, dir, oid, bad*blksize); strings.TrimSpace(said) != "SIGBUS" {
		f.t.Errorf("%s: block %d of %s/%s in memory: %s", g.name, bad, dir, oid, said)
	}
	if said, status := f.block(g, dir, oid, good); status != 0 {
		f.t.Errorf("%s: block %d of %s/%s: %s", g.name, good, dir, oid, said)
	}
}

// database: what the database cannot give is an error of that block, and of nothing else.
func (f *virtFaults) database(g *guest) {
	base := readBase(f.t, f.s)
	for _, dir := range []string{"head", "@" + base, "base/" + base} {
		f.unreadable(g, dir, f.w.bad, 1, 0)
	}
	f.works(g)
}

// ignores: the block that was not acknowledged is unreadable under its base, for all guests that come through the mount.
func (f *virtFaults) ignores() {
	var off int
	var base, end string
	f.meanwhile("ignores pins", 10, func() {
		said := f.victim.must(2*time.Minute, "/checker ignore %s %s", f.victim.at, f.w.oids[0])
		f.ignored(said)
		_, end, _ = strings.Cut(said, " ms at ")
		if _, err := fmt.Sscanf(end, "%d of base %s", &off, &base); err != nil {
			f.t.Fatalf("%q: %v", said, err)
		}
	})
	bad, good := f.sort("base/"+base, off/blksize+1)
	for _, g := range f.guests() {
		f.unreadable(g, "base/"+base, f.w.oids[0], bad, good)
		if said, status := f.block(g, "@"+base, f.w.oids[0], bad); status != 0 {
			f.t.Errorf("%s: what a pin would point to: %s", g.name, said)
		}
	}
	for _, g := range f.guests() {
		f.works(g)
	}
}

// sort finds a block up to last that cannot be read, and one that can: the host reads ahead, so it need not be the one that
// the client saw the error in.
func (f *virtFaults) sort(dir string, last int) (bad, good int) {
	f.t.Helper()
	bad, good = -1, -1
	for b := range last + 1 {
		if _, status := f.block(f.neighbour, dir, f.w.oids[0], b); status == 0 {
			good = b
		} else {
			bad = b
		}
	}
	if bad < last-1 || good < 0 {
		f.t.Fatalf("of blocks 0 to %d, %d is the last that cannot be read, %d the last that can", last, bad, good)
	}
	return bad, good
}

func (f *virtFaults) ignored(said string) {
	f.t.Helper()
	f.t.Logf("client that ignores pins: %s", said)
	if !strings.Contains(said, "read: Input/output error") || !strings.Contains(said, "memory: SIGBUS") {
		f.t.Errorf("the client that ignores pins read on: %s", said)
	}
}

// paused: commits come while a guest does not run and owes acknowledgements.
func (f *virtFaults) paused() {
	faulty := func() int { return strings.Count(f.s.said.String(), "watch client is faulty") }
	f.meanwhile("paused", 12, func() {
		f.victim.check(f.w, 1, 8, f.seed)
		was := faulty()
		f.victim.must(patience, "/checker ignore %s %s >/tmp/ignored & pid=$!; sleep 2", f.victim.at, f.w.oids[0])
		if err := f.victim.m.Pause(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
		n := f.w.made.Load()
		eventually(f.t, "the server to give up a client of the guest", func() bool { return faulty() > was })
		f.t.Logf("paused: %d commits until then", f.w.made.Load()-n)
		if err := f.victim.m.Resume(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
	})
	for _, o := range f.victim.checked(1, 8) {
		f.t.Logf("client of the paused guest: status %d, %s", o.status, o.said)
		if o.status != 0 && o.status != 3 {
			f.t.Errorf("client of the paused guest: %s", o.said)
		}
	}
	said, _ := f.victim.sh(time.Minute, "wait $pid; cat /tmp/ignored")
	f.ignored(said)
	f.back(readBase(f.t, f.s))
}

// restart: who has the folder above goes on, with new views; who has the mount itself has lost it with its server.
func (f *virtFaults) restart() {
	old := readBase(f.t, f.s)
	for _, g := range f.guests() {
		g.check(f.w, 1, long, f.seed)
		g.must(patience, "sleep 2")
	}
	f.s.end()
	f.s.start()
	for _, g := range f.guests() {
		for _, o := range g.checked(1, 0) {
			f.t.Logf("%s: client after the restart: %s", g.name, o.said)
			if o.status != 3 {
				f.t.Errorf("%s: client after the restart: status %d, want 3: %s", g.name, o.status, o.said)
			}
		}
	}
	said := f.victim.must(time.Minute, "/checker refused %s %s %s", f.victim.at, f.w.oids[0], old)
	if !strings.Contains(said, "is older than this server") {
		f.t.Errorf("watch over base @%s of the old server: %s", old, said)
	}
	f.works(f.victim)
	said, status := f.neighbour.sh(patience, "cat /wcfs/head/at; umount -l /wcfs; mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,access=any wcfs /wcfs; cat /wcfs/head/at")
	f.t.Logf("a guest that has the mount itself: %s", said)
	if status == 0 {
		f.t.Errorf("it goes on: %s", said)
	}
	f.neighbour.kill()
	f.neighbour = boot(f.t, f.s, spec{name: "neighbour again", kernel: "6.1", how: virtfs, cpus: 1})
	f.neighbour.running()
	f.works(f.neighbour)
}

// killed: QEMU ends with pins that are not acknowledged.
func (f *virtFaults) killed() {
	f.meanwhile("killed", int(virtTimeout.Seconds())+2, func() {
		f.victim.check(f.w, 2, long, f.seed)
		f.victim.must(patience, "/checker ignore %s %s & sleep 2", f.victim.at, f.w.oids[0])
		f.victim.kill()
	})
}

// damage makes the database's record of block 1 of the bad file one that cannot be decoded.
func (w *writer) damage() {
	w.t.Helper()
	f, err := os.OpenFile(w.path(), os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 1<<20) // its beginning
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		w.t.Fatal(err)
	}
	at := bytes.Index(data[:n], content(1, change{file: nfiles, blk: 1})[:blksize/2]) // zeros at the end are not stored
	if at < 0 {
		w.t.Fatal("the block to damage is not there")
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 16), int64(at-16)); err != nil {
		w.t.Fatal(err)
	}
}
