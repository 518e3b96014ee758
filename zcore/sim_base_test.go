package zcore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/watchproto"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

var baseSimsFlag = flag.Int("basesims", 15, "how many simulations with guests to run")

// TestBaseIsolation runs two guests, whose kernels keep what they have read of a base for ever, with
// clients at different revisions over shared bases, and one client of the host beside them.
func TestBaseIsolation(t *testing.T) {
	base, n := uint64(time.Now().UnixNano()), soaked(*baseSimsFlag)
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	kept, pins, moves := 0, 0, 0
	for i := range n {
		s := newSim(t, base+uint64(i))
		guests := []*guestKernel{newGuestKernel(s, "one"), newGuestKernel(s, "two")}
		if err := s.runGuests(guests); err != nil {
			t.Fatalf("go test -run TestBaseIsolation -seed %d: %v", s.seed, err)
		}
		for _, g := range guests {
			kept, pins, moves = kept+g.hits, pins+g.pins, moves+g.moves
		}
	}
	t.Logf("%d pages found in a guest's cache, %d pins, %d moves to another base", kept, pins, moves)
	if *seedFlag == 0 && (kept == 0 || pins == 0 || moves == 0) {
		t.Error("the simulation shows nothing")
	}
}

// guestKernel is the page cache of a guest: nobody tells it that a page of a base is outdated, as none is.
type guestKernel struct {
	s   *sim
	dom *Domain

	mu    sync.Mutex
	cond  *sync.Cond
	pages map[guestPage]*simPg
	bases map[zodb.Oid]zodb.Tid // what its clients like to share
	hits  int
	pins  int
	moves int
}

type guestPage struct {
	base zodb.Tid
	simKey
}

func newGuestKernel(s *sim, name string) *guestKernel {
	g := &guestKernel{s: s, dom: s.core.NewDomain(name, true), pages: map[guestPage]*simPg{}, bases: map[zodb.Oid]zodb.Tid{}}
	g.cond = sync.NewCond(&g.mu)
	return g
}

// fault returns the page at off of a base, which must have it, and reads some more behind it.
func (g *guestKernel) fault(ctx context.Context, b *BaseFile, off int64, npages int) (string, error) {
	page := func(i int) guestPage { return guestPage{b.rev, simKey{b.f, off + int64(i)*simPage}} }
	g.mu.Lock()
	for g.pages[page(0)] != nil && g.pages[page(0)].locked {
		g.cond.Wait()
	}
	if p := g.pages[page(0)]; p != nil && p.cached {
		defer g.mu.Unlock()
		g.hits++
		return p.data, nil
	}
	var mine []*simPg
	for i := range npages {
		p := g.pages[page(i)]
		if p == nil {
			p = &simPg{}
			g.pages[page(i)] = p
		}
		if p.locked || p.cached {
			break
		}
		p.locked = true
		mine = append(mine, p)
	}
	g.mu.Unlock()
	d, err := b.Read(ctx, g.dom, len(mine)*simPage, off)
	text := dataText(d)
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, p := range mine {
		p.locked = false
		if err == nil && len(text) >= (i+1)*simPage {
			p.cached, p.data = true, text[i*simPage:(i+1)*simPage]
		}
	}
	g.cond.Broadcast()
	if err == nil && !mine[0].cached {
		err = fmt.Errorf("read of f<%s> at %d under base @%s is short", b.f.Oid(), off, b.rev)
	}
	return mine[0].data, err
}

// pickBase returns a base that others use already, or the head.
func (g *guestKernel) pickBase(f *HeadFile, fresh bool) zodb.Tid {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b, ok := g.bases[f.Oid()]; ok && !fresh {
		return b
	}
	g.bases[f.Oid()] = g.s.core.Head()
	return g.bases[f.Oid()]
}

func (s *sim) runGuests(guests []*guestKernel) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.core.Run(ctx) }()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	loop := func(name string, n uint64, once func(rng *rand.Rand) error) {
		rng := rand.New(rand.NewPCG(s.seed, n))
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := once(rng); err != nil {
					errs <- fmt.Errorf("%s: %w", name, err)
					return
				}
			}
		})
	}
	loop("host", 100, func(rng *rand.Rand) error { return s.client(ctx, rng, stop) })
	for _, g := range guests {
		for n := range uint64(3) {
			loop("guest "+g.dom.Name(), 200+n, func(rng *rand.Rand) error { return g.client(ctx, rng, stop) })
		}
	}
	rng := rand.New(rand.NewPCG(s.seed, 50))
	for range 40 {
		if _, err := s.db.Random(rng, zgen.Mix{MaxFiles: 2, MaxBlk: 12}); err != nil {
			return err
		}
		time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
	}
	close(stop)
	wg.Wait()
	var err error
	select {
	case err = <-errs:
	default:
	}
	cancel()
	return errors.Join(err, <-served)
}

// guestClient is a program in a guest that maps a file over a base.
type guestClient struct {
	g    *guestKernel
	f    *HeadFile
	rng  *rand.Rand
	at   zodb.Tid
	base *BaseFile
	link *guestLink
	lost bool // a watch was refused: it must give up
}

// guestLink is one watch link, and what its pins made the client map.
type guestLink struct {
	g    *guestKernel
	base zodb.Tid
	l    *Link
	done chan error
	got  chan string // replies to requests

	mu   sync.Mutex
	pins map[Blk]zodb.Tid // mu
}

// client runs one client for a while.
func (g *guestKernel) client(ctx context.Context, rng *rand.Rand, stop chan struct{}) (err error) {
	files := g.s.db.Files(g.s.core.Head())
	f, err := g.s.core.Lookup(ctx, files[rng.IntN(len(files))])
	if err != nil {
		return err
	}
	c := &guestClient{g: g, f: f, rng: rng}
	defer func() {
		if c.link != nil {
			err = errors.Join(err, c.link.close(ctx, rng.IntN(2) == 0))
		}
	}()
	for range 1 + rng.IntN(5) {
		if c.link == nil || rng.IntN(3) == 0 {
			err = c.move(ctx)
		} else {
			err = c.advance(ctx)
		}
		if err != nil || c.lost {
			return err
		}
		if err = c.touches(ctx); err != nil {
			return err
		}
		if rng.IntN(4) == 0 {
			if err = c.stop(ctx); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
	return nil
}

// move maps the file over another base, watched on a link of its own, and lets the old one go.
func (c *guestClient) move(ctx context.Context) error {
	tid := c.g.pickBase(c.f, c.rng.IntN(4) == 0)
	base, err := c.g.s.core.LookupBase(ctx, tid, c.f.Oid())
	if err != nil {
		return fmt.Errorf("base @%s: %w", tid, err)
	}
	l := &guestLink{g: c.g, base: tid, done: make(chan error, 1), got: make(chan string, 1), pins: map[Blk]zodb.Tid{}}
	if l.l, err = c.g.s.core.OpenLink(c.g.dom, nil); err != nil {
		return err
	}
	go func() { l.done <- l.pinner(ctx) }()
	old := c.link
	c.link, c.base = l, base
	err = c.advance(ctx)
	if old == nil {
		return err
	}
	if err != nil || c.lost {
		return errors.Join(err, old.close(ctx, true))
	}
	if old.base != tid {
		c.g.count(&c.g.moves)
	}
	return old.close(ctx, true)
}

func (g *guestKernel) count(n *int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*n++
}

// advance watches as of a newer revision than before.
func (c *guestClient) advance(ctx context.Context) error {
	tids := c.g.s.db.Tids()
	at := max(c.at, c.base.rev, tids[len(tids)-1-c.rng.IntN(min(4, len(tids)))])
	c.ask(ctx, at)
	reply, err := replied(ctx, c.link.got)
	switch {
	case err != nil:
		return fmt.Errorf("watch @%s base @%s: %w", at, c.base.rev, err)
	case refused(reply):
		c.lost = true
	case reply != "ok":
		return fmt.Errorf("watch @%s base @%s: %s", at, c.base.rev, reply)
	default:
		c.at = at
	}
	return nil
}

func (c *guestClient) ask(ctx context.Context, at zodb.Tid) {
	c.link.l.Write(ctx, fmt.Appendf(nil, "1 watch %s @%s base @%s\n", c.f.Oid(), at, c.base.rev))
}

func (l *guestLink) close(ctx context.Context, bye bool) error {
	if bye {
		l.l.Write(ctx, []byte("9 bye\n"))
	}
	l.l.end()
	l.l.Close()
	return <-l.done
}

// pinner reads the link, re-maps and acknowledges.
func (l *guestLink) pinner(ctx context.Context) error {
	buf := ""
	for {
		p, err := l.l.Read(ctx, 200)
		if err != nil || len(p) == 0 {
			return err
		}
		buf += string(p)
		for line, rest, ok := strings.Cut(buf, "\n"); ok; line, rest, ok = strings.Cut(buf, "\n") {
			buf = rest
			stream, msg, err := watchproto.Frame(line)
			if err != nil {
				return err
			}
			if stream%2 == 1 {
				l.got <- msg
				continue
			}
			if err := l.pin(msg); err != nil {
				return fmt.Errorf("stream %d: %w", stream, err)
			}
			l.l.Write(ctx, []byte(watchproto.Line(stream, "ack")))
		}
	}
}

func (l *guestLink) pin(msg string) error {
	p, err := watchproto.ParsePin(msg)
	if err != nil {
		return err
	}
	if p.Head {
		return fmt.Errorf("a guest over base @%s is sent to head: %s", l.base, msg)
	}
	l.g.count(&l.g.pins)
	l.g.s.step(StepPinSend)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pins[p.Blk] = p.Rev; p.Rev == l.base {
		delete(l.pins, p.Blk)
	}
	return nil
}

// pinned returns how a block is mapped.
func (l *guestLink) pinned(blk Blk) (rev zodb.Tid, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rev, ok = l.pins[blk]
	return rev, ok
}

// touches reads pages for a while. Sometimes what is watched is watched again meanwhile.
func (c *guestClient) touches(ctx context.Context) error {
	ask := func() { c.ask(ctx, c.at) }
	return touches(ctx, c.rng, 5+c.rng.IntN(20), ask, c.touch, c.link.got)
}

// stop unmaps the file and ends the watch, half of the times while that is being set up anew.
func (c *guestClient) stop(ctx context.Context) error {
	n := 1 + c.rng.IntN(2)
	if n == 2 {
		c.ask(ctx, max(c.at, c.g.s.core.Head()))
		c.g.s.step(StepWatchHold)
	}
	c.link.l.Write(ctx, fmt.Appendf(nil, "3 watch %s -\n", c.f.Oid()))
	return unwatched(ctx, n, c.link.got, &c.link.mu, c.link.pins)
}

// touch reads a page through the mapping: what is past the end of the base is mapped from @at.
func (c *guestClient) touch(ctx context.Context) error {
	db, oid := c.g.s.db, c.f.Oid()
	size := db.Size(oid, c.at)
	if size == 0 {
		return nil
	}
	off := c.rng.Int64N(size/simPage) * simPage
	blk, o := Blk(off/c.f.h.Blksize), off%c.f.h.Blksize
	var data string
	var rev zodb.Tid
	for {
		was, pinned := c.link.pinned(blk)
		var err error
		switch {
		case off >= c.base.size:
			data, err = c.g.s.readRev(ctx, c.at, oid, off)
		case pinned:
			data, err = c.g.s.readRev(ctx, was, oid, off)
		default:
			data, err = c.g.fault(ctx, c.base, off, 1+c.rng.IntN(6))
		}
		if err != nil {
			return err
		}
		if is, still := c.link.pinned(blk); is == was && still == pinned {
			rev = was
			break
		}
	}
	if want := string(db.Data(oid, blk, c.at)[o : o+simPage]); data != want {
		return fmt.Errorf("f<%s>[%d]+%d as of @%s over base @%s (pinned @%s): %q, want %q", oid, blk, o, c.at, c.base.rev, rev, data, want)
	}
	return nil
}
