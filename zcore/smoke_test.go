package zcore

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// world is a core over a database in memory that is being written to.
type world struct {
	t    *testing.T
	stor *memstorage.Store
	db   *zgen.DB
	f    zodb.Oid
	core *Core
}

const testBlksize = 4096

func newWorld(t *testing.T, opts Options, init map[Blk]string) *world {
	w := &world{t: t, stor: memstorage.New()}
	w.db = zgen.New(w.stor, zgen.Options{LeafMax: 3, NodeMax: 3})
	tx := w.db.Begin()
	w.f = tx.NewFile(testBlksize)
	for blk, s := range init {
		tx.Write(w.f, blk, []byte(s), zgen.Blk0)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	core, err := New(context.Background(), w.stor, opts)
	if err != nil {
		t.Fatal(err)
	}
	w.core = core
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); core.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) commit(blks map[Blk]string) zodb.Tid {
	w.t.Helper()
	tx := w.db.Begin()
	for blk, s := range blks {
		tx.Write(w.f, blk, []byte(s), zgen.Blk0)
	}
	tid, err := tx.Commit()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.core.waitHead(ctx, tid); err != nil {
		w.t.Fatalf("commit %s is not announced: %v", tid, err)
	}
	return tid
}

func (w *world) read(blk Blk) string {
	w.t.Helper()
	f, err := w.core.Lookup(context.Background(), w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	f.Attr(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d, err := f.Read(ctx, w.core.Host(), testBlksize, int64(blk)*testBlksize)
	if err != nil {
		w.t.Fatal(err)
	}
	var s strings.Builder
	for _, p := range d.Pieces {
		s.Write(p.Mem)
	}
	if d.Done != nil {
		d.Done()
	}
	return strings.TrimRight(s.String(), "\x00")
}

// testLink is a client of head/watch that acknowledges by hand.
type testLink struct {
	t    *testing.T
	l    *Link
	part string
}

func (w *world) link() *testLink {
	l, err := w.core.OpenLink(w.core.Host(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &testLink{t: w.t, l: l}
}

func (tl *testLink) send(format string, args ...any) {
	tl.l.Write(context.Background(), []byte(fmt.Sprintf(format, args...)+"\n"))
}

func (tl *testLink) recv() string {
	tl.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		if line, rest, ok := strings.Cut(tl.part, "\n"); ok {
			tl.part = rest
			return line
		}
		p, err := tl.l.Read(ctx, 100)
		if err != nil {
			tl.t.Fatal(err)
		}
		if len(p) == 0 {
			return "EOF"
		}
		tl.part += string(p)
	}
}

func (tl *testLink) want(line string) {
	tl.t.Helper()
	if got := tl.recv(); got != line {
		tl.t.Fatalf("got %q, want %q", got, line)
	}
}

func TestWatchBasics(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0", 2: "c0"})
	at0 := w.db.Head()
	for blk, s := range []string{"a0", "b0", "c0", ""} {
		if got := w.read(Blk(blk)); got != s {
			t.Fatalf("block %d is %q", blk, got)
		}
	}
	l := w.link()
	l.send("1 watch %s @%s", w.f, at0)
	l.want("1 ok")
	at1 := w.commit(map[Blk]string{1: "b1", 3: "d1"})
	got := make(chan string, 1)
	go func() { got <- w.read(1) }()
	l.want(fmt.Sprintf("2 pin %s #1 @%s", w.f, at0))
	select {
	case <-got:
		t.Fatal("block was shown before the pin was acknowledged")
	case <-time.After(50 * time.Millisecond):
	}
	l.send("2 ack")
	if s := <-got; s != "b1" {
		t.Fatalf("got %q", s)
	}
	if s := w.read(1); s != "b1" { // no pin a second time
		t.Fatalf("got %q", s)
	}
	// another link at at0 needs the block that was read at set-up; nobody read #3, past the end then
	l2 := w.link()
	l2.send("3 watch %s @%s", w.f, at0)
	l2.want(fmt.Sprintf("2 pin %s #1 @%s", w.f, at0))
	l2.send("2 ack")
	l2.want("3 ok")
	// advance: back to head
	l.send("1 watch %s @%s", w.f, at1)
	l.want(fmt.Sprintf("4 pin %s #1 @head", w.f))
	l.send("4 ack")
	l.want("1 ok")
	l.send("1 watch %s @%s", w.f, at0)
	l.want(fmt.Sprintf("1 error setup watch f<%s> @%s: going back in history is forbidden", w.f, at0))
	l.send("bla bla")
	l.want(`0 error: invalid frame: "bla bla\n" (invalid stream)`)
	l.want("EOF")
}
