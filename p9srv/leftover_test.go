package p9srv

import (
	"encoding/binary"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// leaveAll ends a connection with fids open for a watch, a revision and head, and requests for each in flight. It may
// fail as the server likes.
func leaveAll(c *rawClient, i int) {
	defer c.c.Close()
	var all frame
	add := func(f frame) { all = append(all, f.done(0)...) }
	for j := range uint16(5) {
		add(readFrame(10+j, 1, 0, 4096))
		add(readFrame(20+j, 2, 0, 4096))
		add(readFrame(30+j, 3, 0, 60000)) // and does not take the replies
	}
	if i%2 == 0 {
		add(walkFrame(40, 0, 50, "head", "bigfile"))
		add(newFrame(tClunk, 41).u32(1))
	}
	if i%3 == 0 {
		all = append(all, readFrame(42, 3, 0, 10).done(0)[:9]...) // half a message
	}
	c.c.Write(all)
}

// TestNothingIsLeft: a thousand connections that end with reads of all kinds in flight return goroutines,
// fids, handles and descriptors to the start.
func TestNothingIsLeft(t *testing.T) {
	w := serve(t, nil)
	w.tree.at(revPath).hold = make(chan struct{}) // reads that wait for the database, say
	w.tree.at("head/bigfile").hold = nil
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	beforeFds, beforeGoroutines := descriptors(), runtime.NumGoroutine()
	for round := range 50 {
		var wg sync.WaitGroup
		for i := range 20 {
			c := w.raw()
			c.version(64<<10, version9P)
			c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("").u32(noFid), tAttach+1)
			c.open(1, "head/watch", 2)
			c.open(2, revPath, 0)
			c.open(3, bigPath, 0)
			wg.Go(func() { leaveAll(c, 20*round+i) })
		}
		wg.Wait()
	}
	w.clean(beforeGoroutines)
	eventually(t, "descriptors closed", func() bool { return descriptors() <= beforeFds })
	if n := w.srv.Stats().Accepted; n != 1000 {
		t.Errorf("%d connections were served", n)
	}
}

// TestLimits: each limit has its error, and is counted.
func TestLimits(t *testing.T) {
	w := serve(t, func(o *Options) { o.MaxConns, o.MaxFids, o.MaxReqs = 2, 5, 10 })
	c := w.client()
	for fid := range uint32(4) {
		c.ok(walkFrame(1, 0, 1+fid), tWalk+1)
	}
	c.fails(walkFrame(1, 0, 9), linux.EMFILE)
	c.fails(newFrame(tAttach, 1).u32(9).u32(noFid).str("").str("").u32(0), linux.EMFILE)
	c.ok(newFrame(tClunk, 1).u32(4), tClunk+1)
	c.ok(walkFrame(1, 0, 4, "head", "watch"), tWalk+1)
	c.ok(openFrame(1, 4, 2), tLopen+1)
	for i := range uint16(10) {
		c.send(readFrame(100+i, 4, 0, 10))
	}
	eventually(t, "reads wait", func() bool { return w.tree.waiting.Load() == 10 })
	if st := w.srv.Stats(); st.Fids != 5 || st.Requests != 10 || st.Conns != 1 {
		t.Errorf("in use: %+v", st)
	}
	c.fails(newFrame(tStatfs, 1).u32(0), linux.EAGAIN)
	c.ok(newFrame(tClunk, 1).u32(1), tClunk+1) // what frees something is let in
	c.send(flushFrame(1, 100))
	c.recv()
	c.recv()
	c.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)

	w.client()
	third := w.raw()
	third.closed()
	st := w.srv.Stats()
	if st.RefusedConns != 1 || st.RefusedRequests != 3 {
		t.Errorf("refused: %+v", st)
	}
	for _, text := range []string{ErrTooManyConns.Error(), "requests refused"} {
		if w.log.count(text) != 1 {
			t.Errorf("%q is %d times in the log", text, w.log.count(text))
		}
	}
	names := map[string]int64{}
	for _, l := range st.Lines() {
		names[l.Name] = l.Value
	}
	if names["P9Conn"] != 2 || names["p9connrefused"] != 1 || len(names) != 8 {
		t.Errorf("lines: %v", names)
	}
}

// onWrite is called for each line of a log.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// TestRefusedIsNotCounted: a connection beyond the limit is none of those in use while it is refused, where it would
// keep the next one out.
func TestRefusedIsNotCounted(t *testing.T) {
	var srv atomic.Pointer[Server]
	counted := make(chan int64, 100)
	w := serve(t, func(o *Options) {
		o.MaxConns = 2
		o.Log = slog.New(slog.NewTextHandler(onWrite(func() { counted <- srv.Load().Stats().Conns }), nil))
	})
	srv.Store(w.srv)
	w.client()
	w.client()
	w.raw().closed()
	if n := receive(t, "refusal logged", counted); n != 2 {
		t.Errorf("%d connections in use, of 2 that may be", n)
	}
}

// TestLimitsOfAll: what one connection may have, all together may not; but each may have some.
func TestLimitsOfAll(t *testing.T) {
	w := serve(t, func(o *Options) { o.MaxConns, o.MaxFidsAll, o.MaxReqsAll = 2, 8, 8 }) // 2 each, and 4 shared
	a, b := w.client(), w.client()
	a.ok(walkFrame(1, 0, 1, "head", "watch"), tWalk+1)
	for fid := uint32(2); fid < 6; fid++ {
		a.ok(walkFrame(1, 0, fid), tWalk+1)
	}
	for _, c := range []*rawClient{a, b} {
		if c == b {
			b.ok(walkFrame(1, 0, 1), tWalk+1)
		}
		c.fails(walkFrame(1, 0, 6), linux.EMFILE)
	}
	a.ok(openFrame(1, 1, 0), tLopen+1)
	for i := range uint16(6) {
		a.send(readFrame(100+i, 1, 0, 10))
	}
	eventually(t, "reads wait", func() bool { return w.tree.waiting.Load() == 6 })
	a.fails(newFrame(tStatfs, 1).u32(0), linux.EAGAIN)
	b.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)
	a.c.Close()
	eventually(t, "what a had is free", func() bool { return w.srv.Stats().Conns == 1 })
	for fid := uint32(2); fid < 6; fid++ {
		b.ok(walkFrame(1, 0, fid), tWalk+1)
	}
	b.fails(walkFrame(1, 0, 6), linux.EMFILE)
}

// TestBudget: reads that wait for pins never keep others from being answered, and reads beyond the
// budget wait and are answered in the end.
func TestBudget(t *testing.T) {
	w := serve(t, func(o *Options) { o.MaxMsize, o.MaxBytes = 64<<10, 256<<10 })
	hold := make(chan struct{})
	w.tree.at(bigPath).hold = hold
	c := w.client()
	c.open(1, bigPath, 0)
	c.open(2, revPath, 0)
	c.open(3, "head/watch", 2)
	const n = 20 // ten times the half of the budget
	for i := range uint16(n) {
		c.send(readFrame(100+i, 1, uint64(i), 60<<10))
	}
	eventually(t, "as many as fit wait", func() bool { return w.tree.waiting.Load() == 2 })
	c.ok(readFrame(1, 2, 0, 60<<10), tRead+1)
	w.tree.at("head/watch").msgs <- "2 pin\n"
	c.ok(readFrame(1, 3, 0, 4096), tRead+1)
	c.ok(writeFrame(1, 3, "2 ack\n"), tWrite+1)
	if got := w.tree.waiting.Load(); got != 2 {
		t.Errorf("%d reads wait at once", got)
	}
	close(hold)
	for range n {
		if r := c.recv(); len(r.data()) != 60<<10 {
			t.Fatalf("got %v", r)
		}
	}
}

// TestBigWrite: a write takes at most maxWrite, the client goes on from there.
func TestBigWrite(t *testing.T) {
	w := serve(t, nil)
	c := w.raw()
	c.version(1<<20, version9P)
	c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("").u32(noFid), tAttach+1)
	c.open(1, "head/watch", 2)
	r := c.ok(writeFrame(1, 1, string(make([]byte, 500<<10))), tWrite+1)
	if n := binary.LittleEndian.Uint32(r.body); n != maxWrite {
		t.Errorf("wrote %d", n)
	}
	c.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)
}

// TestOptions: what is wrong is named.
func TestOptions(t *testing.T) {
	tree := newFakeTree()
	for want, change := range map[string]func(*Options){
		"--9p-max-conns":         func(o *Options) { o.MaxConns = -1 },
		"--9p-max-msize":         func(o *Options) { o.MaxMsize = 1 << 21 },
		"--9p-max-bytes":         func(o *Options) { o.MaxBytes = 1 << 20 },
		"--9p-max-reqs":          func(o *Options) { o.MaxReqs = 1 << 20 },
		"--9p-stall-timeout":     func(o *Options) { o.StallTimeout = -1 },
		"no tree":                func(o *Options) { o.Tree = nil },
		"--insecure":             func(o *Options) { o.Addr = []string{"tcp:0.0.0.0:564"} },
		"or --insecure":          func(o *Options) { o.Addr = []string{"tcp::564"} },
		"--tls-cert is needed":   func(o *Options) { o.Addr = []string{"tls:127.0.0.1:0"} },
		"--tls-client-ca is nee": func(o *Options) { o.Addr = []string{"tls:127.0.0.1:0"}; o.TLSCert, o.TLSKey = "x", "y" },
		"no path":                func(o *Options) { o.Addr = []string{"unix:"} },
		"use unix:PATH":          func(o *Options) { o.Addr = []string{"vsock:1"} },
		"no descriptor":          func(o *Options) { o.Addr = []string{"fd:x"} },
		"nothing may follow":     func(o *Options) { o.Addr = []string{"systemd:1"} },
	} {
		o := Options{Tree: tree}
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	for _, addr := range []string{"tcp:127.0.0.1:0", "tcp:[::1]:0", "tcp:localhost:0", "unix:/x", "fd:3", "systemd"} {
		if _, err := New(Options{Tree: tree, Addr: []string{addr}}); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
