package zeo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"wcfs/t/wait"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// book is the transactions of a fake server, answered as ZEO over a FileStorage does.
type book struct {
	mu    sync.Mutex
	tids  []zodb.Tid // ascending; each changed object 7; guarded by mu
	last  zodb.Tid   // told as the last one; guarded by mu
	iters map[int64][]zodb.Tid
	conn  *fakeConn // the newest; guarded by mu
}

func (b *book) answer(c *fakeConn, id int64, method string, args []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = c
	tid := func(i int) zodb.Tid { t, _ := asTid(args[i]); return t }
	switch method {
	case "iterator_start":
		var list []zodb.Tid
		for _, t := range b.tids {
			if t >= tid(0) && t <= tid(1) {
				list = append(list, t)
			}
		}
		b.iters[id] = list
		c.reply(id, id)
	case "iterator_next":
		it := args[0].(int64)
		if len(b.iters[it]) == 0 {
			delete(b.iters, it)
			c.reply(id, nil)
			return
		}
		c.reply(id, []any{idBytes(b.iters[it][0]), " "})
		b.iters[it] = b.iters[it][1:]
	case "iterator_gc":
		delete(b.iters, args[0].([]any)[0].(int64))
		c.reply(id, nil)
	case "iterator_record_start":
		c.reply(id, id)
	case "iterator_record_next":
		c.reply(id, nil)
	case "getInvalidations":
		last, oids := zodb.Tid(0), []any{}
		for _, t := range b.tids {
			if last = t; t > tid(0) {
				oids = []any{idBytes(zodb.Oid(7))}
			}
		}
		c.reply(id, []any{idBytes(last), oids})
	case "lastTransaction":
		c.reply(id, idBytes(b.last))
	case "loadBefore":
		c.revision(id, "data", b.tids[0], 0)
	}
}

// phantoms is a Storage over a book, followed.
type phantoms struct {
	t   *testing.T
	b   *book
	f   *fake
	s   *Storage
	got chan zodb.Commit
	err chan error
}

func startPhantoms(t *testing.T, last zodb.Tid, tids ...zodb.Tid) *phantoms {
	p := &phantoms{t: t, b: &book{iters: map[int64][]zodb.Tid{}}, got: make(chan zodb.Commit, 100), err: make(chan error, 1)}
	p.f = startFake(&fake{t: t, answer: p.b.answer, iterates: true})
	p.set(last, tids...)
	p.s = openFake(t, p.f, 20*time.Second)
	if head, err := p.s.Head(t.Context()); head != last || err != nil {
		t.Fatalf("head: %s, %v", head, err)
	}
	go func() {
		p.err <- p.s.Follow(t.Context(), last, func(c zodb.Commit) error { p.got <- c; return nil })
	}()
	return p
}

func (p *phantoms) set(last zodb.Tid, tids ...zodb.Tid) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.tids, p.b.last = tids, last
	p.f.last.Store(uint64(last))
}

// restart replaces the server by one that has this.
func (p *phantoms) restart(last zodb.Tid, tids ...zodb.Tid) {
	p.t.Helper()
	p.set(last, tids...)
	n := p.f.conns.Load()
	p.b.mu.Lock()
	p.b.conn.Close()
	p.b.mu.Unlock()
	zeotest.Eventually(p.t, "there is another connection", func() bool { return p.f.conns.Load() > n })
	if rec, err := p.s.LoadAt(context.Background(), 7, 90); err != nil || string(rec.Data) != "data" {
		p.t.Errorf("load: %q, %v", rec.Data, err)
	}
}

// commit has the server tell of a transaction.
func (p *phantoms) commit(tid zodb.Tid) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.tids, p.b.last = append(p.b.tids, tid), tid
	p.b.conn.invalidate(tid, 7)
}

func (p *phantoms) want(want string) {
	p.t.Helper()
	select {
	case c := <-p.got:
		got := fmt.Sprintf("%d %d", c.Tid, len(c.Oids))
		if c.Gap != 0 {
			got = fmt.Sprintf("gap %d %d", c.Gap, c.Tid)
		}
		if got != want {
			p.t.Fatalf("reported %s; want %s", got, want)
		}
	case err := <-p.err:
		p.t.Fatalf("following ended: %v", err)
	case <-time.After(wait.Patience):
		p.t.Fatalf("nothing is reported; want %s", want)
	}
}

func (p *phantoms) ended() {
	p.t.Helper()
	select {
	case err := <-p.err:
		if !errors.Is(err, ErrOtherDatabase) || !strings.Contains(err.Error(), "clock go back") {
			p.t.Errorf("following ended: %v", err)
		}
	case <-time.After(wait.Patience):
		p.t.Error("following goes on")
	}
}

// A server that was killed in the middle of a commit tells a last transaction that is none, and after
// the next restart the right one. Nothing is skipped, told twice or a gap, and following does not end.
func TestPhantom(t *testing.T) {
	t.Parallel()
	p := startPhantoms(t, 100, 90, 100)
	p.restart(200, 90, 100)
	p.want("200 0")
	if head, err := p.s.Head(t.Context()); head != 200 || err != nil {
		t.Errorf("head: %s, %v", head, err)
	}
	p.restart(100, 90, 100)
	if head, err := p.s.Head(t.Context()); head != 200 || err != nil { // does not go back
		t.Errorf("head: %s, %v", head, err)
	}
	p.commit(250)
	p.want("250 1")
	p.restart(400, 90, 100, 250, 300) // missed one, and was killed in the next
	p.want("300 1")
	p.want("400 0")
	p.commit(410)
	p.want("410 1")
	p.restart(410, 90, 100, 250, 300, 410)
	p.restart(430, 90, 100, 250, 300, 410, 430)
	p.want("430 1")
	if n := len(p.b.iters); n != 0 {
		t.Errorf("%d iterators are left at the server", n)
	}
}

// A server that tells one from the beginning.
func TestPhantomAtStart(t *testing.T) {
	t.Parallel()
	start := zodb.TidFromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	p := startPhantoms(t, start+1<<40, 90, start)
	p.restart(start, 90, start)
	p.commit(start + 1<<41)
	p.want(fmt.Sprintf("%d 1", start+1<<41))

	p = startPhantoms(t, 50) // an empty database
	p.set(0, 90)             // for restart's load
	p.restart(90, 90)
	p.want("90 1")
}

// A server whose clock went back commits behind what was told as head: there is no view of that.
func TestPhantomOvertaken(t *testing.T) {
	t.Parallel()
	p := startPhantoms(t, 100, 90, 100)
	p.restart(200, 90, 100)
	p.want("200 0")
	p.restart(100, 90, 100)
	p.commit(180)
	p.ended()

	p = startPhantoms(t, 100, 90, 100)
	p.restart(200, 90, 100)
	p.want("200 0")
	p.restart(180, 90, 100, 180)
	p.ended()

	p = startPhantoms(t, 200, 90, 100)
	p.restart(300, 90, 100, 180, 300)
	p.ended()
}
