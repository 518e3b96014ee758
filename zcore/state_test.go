package zcore

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A client that does not acknowledge is named as the one that a read waits for, in the state and by the slow log, while it lasts.
func TestStateOfAStalledClient(t *testing.T) {
	log := new(lockedBuffer)
	w := newWorld(t, Options{Slow: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	at := w.db.Head()
	l := w.linkOf(newFakeProcess())
	w.wantPins(l.pins(w.f, at), nil)
	tid := w.commit(map[Blk]string{0: "a1"})
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
	var s State
	eventually(t, "a read to wait", func() bool { s = w.core.State(); return len(s.Clients) == 1 && s.Clients[0].Waiting == 1 })
	c := s.Clients[0]
	if c.Name != "pid 1" || c.Pid != 1 || c.Front != "fuse" || c.Links != 1 || c.Watches != 1 || c.Owed != 1 || c.Pinned != 1 || c.OwedFor <= 0 {
		t.Errorf("%+v", c)
	}
	if len(c.Due) != 1 || c.Due[0].Oid != w.f.String() || c.Due[0].Blk != 0 || c.Due[0].Rev != at.String() {
		t.Errorf("due: %+v", c.Due)
	}
	if len(c.List) != 1 || c.List[0] != (WatchState{Oid: w.f.String(), At: at.String(), Pinned: 1}) {
		t.Errorf("watches: %+v", c.List)
	}
	slow := fmt.Sprintf("file=%s blk=0 pid=1", w.f)
	eventually(t, "the slow log", func() bool {
		return strings.Contains(log.String(), "a read waits for a client") && strings.Contains(log.String(), slow)
	})
	l.send("2 ack")
	<-got
	s = w.core.State()
	if c := s.Clients[0]; c.Waiting != 0 || c.Owed != 0 || len(c.Due) != 0 || c.Pinned != 1 {
		t.Errorf("after the ack: %+v", c)
	}
	eventually(t, "the end of the wait in the log", func() bool { return strings.Contains(log.String(), "a read has waited for a client") })
	if f := s.Files[0]; f.Oid != w.f.String() || f.Mtime != tid.String() || f.Reads != 2 || f.Commits != 1 || f.Blocks != 1 || f.Tracked != 1 || f.Watches != 1 {
		t.Errorf("%+v", f)
	}
	if s.Head.Commits != 1 || s.Head.Changed != 1 || s.Head.Lag.Count != 1 || s.Head.At != tid.String() || s.Pins.Acks.Count != 1 || s.Pins.Waits.Count != 1 {
		t.Errorf("%+v %+v", s.Head, s.Pins)
	}
	if f := s.Fronts["fuse"]; f.Head.Reads != 2 || f.Head.Bytes != 2*testBlksize || s.Fronts["9p"] != (FrontState{}) {
		t.Errorf("%+v", s.Fronts)
	}
	if s.Storage.Loads["block"].Count == 0 || s.Storage.Nodes.Misses == 0 {
		t.Errorf("%+v", s.Storage)
	}
	if where := w.core.Watches(w.f); len(where) != 1 || where[0] != (FileWatch{"pid 1", at.String()}) {
		t.Errorf("%+v", where)
	}
	l.l.end()
	l.l.Close()
	for _, line := range []string{
		`msg="watch link opened" link=1 pid=1`, "msg=watch link=1 pid=1 file=" + w.f.String() + " at=" + at.String(), "msg=commit tid=" + tid.String(),
		fmt.Sprintf(`msg=pin link=1 pid=1 pin="pin %s #0 @%s"`, w.f, at), `msg="pin ended" link=1 pid=1`, `msg="watch link closed" link=1 pid=1`,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log has no line %s\n%s", line, log)
		}
	}
	eventually(t, "the client to be gone", func() bool { return len(w.core.State().Clients) == 0 })
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Tracked blocks are counted by parts of a file.
func TestTrackedIn(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 1: "b", 5: "c", 9: "d"})
	for _, blk := range []Blk{0, 1, 9} {
		w.read(blk)
	}
	if got := fmt.Sprint(w.core.TrackedIn(w.f, 0, 10, 5)); got != "[2 0 0 0 1]" {
		t.Errorf("tracked: %s", got)
	}
	if got := fmt.Sprint(w.core.TrackedIn(w.f, 1, 3, 2)); got != "[1 0]" {
		t.Errorf("tracked from 1: %s", got)
	}
	if w.core.TrackedIn(w.f+1000, 0, 10, 5) != nil {
		t.Error("blocks of no file")
	}
}

// What a look at 1000 watches of as many clients takes. Divided by how often somebody looks, that is what it costs.
func BenchmarkState(b *testing.B) {
	w := newWatched(b, 1000)
	for b.Loop() {
		if s := w.core.State(); s.Stats.Watch != 1000 || len(s.Clients) != 1000 {
			b.Fatalf("%+v", s.Stats)
		}
	}
}

// What counting adds to one commit: compare with BenchmarkCommitWatched.
func BenchmarkMeterOfCommit(b *testing.B) {
	var m meter
	now := time.Now()
	for b.Loop() {
		m.commits.Add(1)
		m.age.Observe(time.Since(now))
		m.lag.Observe(time.Since(now))
		m.changed.Add(1)
		m.acks.Observe(time.Since(now))
		m.waits.Observe(time.Since(now))
	}
}

// What one commit of a block takes with 1000 watches, of other blocks.
func BenchmarkCommitWatched(b *testing.B) {
	w := newWatched(b, 1000)
	for b.Loop() {
		w.announced(w.write(map[Blk]string{0: "a1"}))
	}
}

func newWatched(tb testing.TB, n int) *world {
	w := newWorld(tb, Options{}, map[Blk]string{0: "a0"})
	w.core.Lookup(tb.Context(), w.f)
	at := w.db.Head()
	for i := range n {
		l, err := w.core.OpenLink(w.core.NewDomain(fmt.Sprint("guest", i), true), nil)
		if err != nil {
			tb.Fatal(err)
		}
		l.Write(tb.Context(), fmt.Appendf(nil, "1 watch %s @%s\n", w.f, at))
		if reply, err := l.Read(tb.Context(), 100); err != nil || string(reply) != "1 ok\n" {
			tb.Fatalf("%q %v", reply, err)
		}
	}
	return w
}
