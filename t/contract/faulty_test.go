package contract

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// slack is what a busy machine may add to the time limits of the contract: little beside the time that a client hangs
// when nothing ends its wait.
var slack = wait.Patience / 6

// fault is a kind of client that does not do its part once a pin came.
type fault struct {
	name   string
	before func(c *client, link int)                // before the pin can come; nil: nothing
	then   func(c *client, link int, stream uint64) // when it has come; nil: nothing
	deaf   bool                                     // it does not read its link
	dying  bool                                     // it dies by itself, which is not counted
	why    string                                   // how the fatal line ends, if the client can read it
}

var faults = []fault{
	{name: "no ack", why: "no reply within 10s"},
	{name: "nak", then: func(c *client, link int, stream uint64) { c.tell("write %d %d nak", link, stream) }, why: `expect "ack"; got "nak"`},
	{name: "close", then: func(c *client, link int, _ uint64) { c.tell("close %d", link) }},
	{name: "exit", then: func(c *client, _ int, _ uint64) { c.tell("exit") }, dying: true},
	{name: "killed", then: func(c *client, _ int, _ uint64) { c.cmd.Process.Kill() }, dying: true},
	{name: "SIGBUS caught", before: func(c *client, _ int) { c.expect("0", "catch") }, why: "no reply within 10s"},
	{name: "stopped", then: func(c *client, _ int, _ uint64) { c.cmd.Process.Signal(syscall.SIGSTOP) }},
	{name: "reads nothing", deaf: true},
}

// Every kind of faulty client, with a pin of a set-up and with a pin of a read, all at once: each is
// killed in time, a healthy client at the same revision is served in time, and readers go on.
func TestFaultyClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var files []zodb.Oid
	for range 2 * len(faults) {
		files = append(files, w.file(1))
	}
	w.start(short)
	at := w.db.Head()
	var cases []*faultyCase
	for i, f := range files {
		x := &faultyCase{w: w, t: t, fault: faults[i/2], f: f, at: at, onRead: i%2 == 1}
		x.prepare()
		cases = append(cases, x)
	}
	w.commitAll(files)
	for _, x := range cases {
		x.begin()
	}
	for _, x := range cases {
		x.end()
	}
	kills := 0
	for _, x := range cases {
		if !x.fault.dying {
			kills++
		}
	}
	// counted after the death is verified
	eventually(t, "the kills to be counted", func() bool { return w.stats()["pinkill"] >= kills })
	if n := w.stats()["pinkill"]; n != kills {
		t.Errorf("pinkill is %d, want %d", n, kills)
	}
	eventually(t, "the faulty links to be gone", func() bool { return w.stats()["WatchLink"] == len(cases) })
	for _, x := range cases {
		x.healthy.quiet()
		x.healthy.bye()
	}
}

func (w *world) commitAll(files []zodb.Oid) {
	w.t.Helper()
	for _, f := range files {
		w.change(f, 0)
	}
}

type faultyCase struct {
	fault
	w      *world
	t      *testing.T
	f      zodb.Oid
	at     zodb.Tid
	onRead bool // the pin is of a read, else of a set-up

	c       *client
	link    int
	healthy *stream
	m       *mapping
	read    <-chan error
	sent    time.Time // not before the pin was
}

func (x *faultyCase) String() string {
	return fmt.Sprintf("%s, read %v", x.name, x.onRead)
}

// prepare has the watches ready for the commit.
func (x *faultyCase) prepare() {
	x.c = startClient(x.t)
	x.link = x.c.num("open %s %d", x.w.at("head/watch"), unix.O_RDWR)
	if x.before != nil {
		x.before(x.c, x.link)
	}
	x.m = x.w.mmap(headFile(x.f), 1)
	if !x.onRead {
		x.w.touch(x.f, 0)
		return
	}
	x.c.num("write %d 1 %s", x.link, watchMsg(x.f, x.at))
	x.c.expect("1 ok", "line %d", x.link)
	x.healthy = x.w.link()
	x.healthy.watch(x.f, x.at, nil)
}

// begin has the pin sent and the fault happen.
func (x *faultyCase) begin() {
	x.t.Helper()
	want := map[int]zodb.Tid{0: x.at}
	if x.onRead {
		x.sent = time.Now()
		x.read = x.w.access(x.m, 0)
		x.healthy.ack(x.healthy.pins(x.f, want)) // in parallel, whatever the other does
	} else {
		x.w.touch(x.f, 0) // nobody watches
		x.sent = time.Now()
		x.c.num("write %d 1 %s", x.link, watchMsg(x.f, x.at))
		x.healthy = x.w.link()
		x.healthy.watch(x.f, x.at, want)
	}
	if !x.deaf {
		x.c.expect(fmt.Sprintf("2 pin %s #0 @%s", x.f, x.at), "line %d", x.link)
		if x.onRead {
			pending(x.t, "the read", x.read)
		}
	}
	if x.then != nil {
		x.then(x.c, x.link, 2)
	}
	if x.why != "" {
		if x.name == "nak" {
			x.c.answer()
		}
		x.c.tell("line %d", x.link)
	}
}

// end checks how it ended.
func (x *faultyCase) end() {
	x.t.Helper()
	x.c.ended()
	if took := x.c.died.Sub(x.sent); took > 2*pinTimeout+slack {
		x.t.Errorf("%s: the client died after %v", x, took)
	}
	if x.why != "" {
		want := fmt.Sprintf("0 fatal: pin #0 @%s: %s", x.at, x.why)
		if got := x.c.answer(); got != want {
			x.t.Errorf("%s: the client was sent %q, want %q", x, got, want)
		}
	}
	want := syscall.SIGBUS
	switch x.name {
	case "exit":
		if code := x.c.cmd.ProcessState.ExitCode(); code != 0 {
			x.t.Errorf("%s: exit code %d", x, code)
		}
		want = x.c.signal()
	case "killed", "SIGBUS caught", "stopped":
		want = syscall.SIGKILL
	}
	if got := x.c.signal(); got != want && !(want == syscall.SIGBUS && x.c.cmd.ProcessState.ExitCode() == 2) {
		x.t.Errorf("%s: the client ended by %v, want %v", x, got, want) // 2: Go's own end on SIGBUS
	}
	if x.onRead {
		if err := await(x.t, "the read", x.read); err != nil {
			x.t.Errorf("%s: the read: %v", x, err)
		}
		if took := time.Since(x.sent); took > 3*pinTimeout+slack {
			x.t.Errorf("%s: the read took %v", x, took)
		}
	}
	x.w.check(x.m, x.f, x.w.db.Head(), 0)
}

// A client killed while it waits in the kernel is gone at once, and nobody else notices.
func TestKilledWhileWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start()
	at := w.db.Head()
	w.lookup(f)
	gone := func(c *client, where string) {
		t.Helper()
		c.waits()
		began := time.Now()
		c.kill()
		if took := time.Since(began); took > slack {
			t.Errorf("killed %s: it took %v to end", where, took)
		}
	}

	c := startClient(t)
	c.tell("line %d", c.num("open %s %d", w.at("head/watch"), unix.O_RDWR))
	gone(c, "in read(2) of head/watch")
	c = startClient(t)
	c.tell("line %d", c.num("open %s %d", w.at(".wcfs/debug/zhead"), unix.O_RDONLY))
	gone(c, "in read(2) of zhead")
	eventually(t, "its link to be gone", func() bool { s := w.stats(); return s["WatchLink"] == 0 && s["ZHeadLink"] == 1 })

	// in a page fault, which waits for a pin of another client
	l := w.link()
	l.watch(f, at, nil)
	w.change(f, 0, 1)
	c = startClient(t)
	c.tell("byte %d 0", c.num("map %s %d", w.at(headFile(f)), 2*blksize))
	streams := l.pins(f, map[int]zodb.Tid{0: at})
	gone(c, "in a page fault")
	l.ack(streams) // the pin in progress was not given up
	l.quiet()
	w.check(w.mmap(headFile(f), 2), f, w.db.Head(), 0)

	// in a page fault that waits for its own pin: it was dying, so it is no kill
	c = startClient(t)
	link := c.num("open %s %d", w.at("head/watch"), unix.O_RDWR)
	c.num("write %d 1 %s", link, watchMsg(f, at))
	c.expect(fmt.Sprintf("2 pin %s #0 @%s", f, at), "line %d", link)
	c.num("write %d 2 ack", link)
	c.expect("1 ok", "line %d", link)
	c.tell("byte %d %d", c.num("map %s %d", w.at(headFile(f)), 2*blksize), blksize)
	l.ack(l.pins(f, map[int]zodb.Tid{1: at}))
	gone(c, "in a page fault that waits for its own pin")
	w.check(w.mmap(headFile(f), 2), f, w.db.Head(), 1)
	if n := w.stats()["pinkill"]; n != 0 {
		t.Errorf("pinkill is %d", n)
	}

	// in stat and open of a server that does not answer at all. The clients are there before: exec closes
	// this process's descriptors in the child, which a server that is stopped does not answer either.
	a, b := startClient(t), startClient(t)
	w.srv.Cmd.Process.Signal(syscall.SIGSTOP)
	a.tell("stat %s", w.at(headFile(f)))
	b.tell("open %s %d", w.at(headFile(f)), unix.O_RDONLY)
	gone(a, "in stat")
	gone(b, "in open")
	w.srv.Cmd.Process.Signal(syscall.SIGCONT)
	w.lookup(f)
	l.bye()
}

// While a pin is out for longer than usual, commits to the same block and others go on being applied,
// announced and served; several that are faulty at once do not add up.
func TestCommitsWhilePinsAreOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(3)
	w.start(short)
	at := w.db.Head()
	w.lookup(f)
	l := w.link()
	l.watch(f, at, nil)
	var faulty []*client
	for range 5 {
		c := startClient(t)
		link := c.num("open %s %d", w.at("head/watch"), unix.O_RDWR)
		c.num("write %d 1 %s", link, watchMsg(f, at))
		c.expect("1 ok", "line %d", link)
		faulty = append(faulty, c)
	}
	w.change(f, 0)
	m := w.mmap(headFile(f), 3)
	began := time.Now()
	done := w.access(m, 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: at}))
	for i := range 20 {
		w.change(f, 1+i%2)
		w.lookup(f)
	}
	pending(t, "the read", done)
	w.change(f, 0) // the READ of it is under way: step 3 waits for that
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*pinTimeout+slack/2 {
		t.Errorf("five faulty clients took %v", took)
	}
	for _, c := range faulty {
		c.ended()
	}
	w.touch(f, 0) // l has it pinned
	l.quiet()
	eventually(t, "the kills to be counted", func() bool { return w.stats()["pinkill"] == 5 })
	l.bye()
}
