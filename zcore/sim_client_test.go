package zcore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// simClient is a program that maps one file as of at.
type simClient struct {
	s    *sim
	f    *HeadFile
	link *Link
	rng  *rand.Rand

	mmap sync.RWMutex // held over a fault that is sent again, and to re-map

	mu   sync.Mutex
	at   zodb.Tid         // mu
	pins map[Blk]zodb.Tid // mu; what is mapped from @rev
	last Blk              // mu; was sent back to head last
	got  chan string      // replies to requests
}

// client runs one client for a while.
func (s *sim) client(ctx context.Context, rng *rand.Rand, stop chan struct{}) error {
	at := s.core.Head()
	files := s.db.Files(at)
	f, err := s.k.lookup(ctx, files[rng.IntN(len(files))])
	if s.forgiven(err) || s.epochs && (errors.Is(err, ErrNotExist) || errors.Is(err, ErrInvalid)) {
		return nil // deleted since
	}
	if err != nil {
		return err
	}
	if rng.IntN(3) == 0 { // from the past
		if tids := s.db.Tids(); len(tids) > 0 {
			at = max(s.oldest(), f.h.Epoch, min(at, tids[rng.IntN(len(tids))]))
		}
	}
	c := &simClient{s: s, f: f, rng: rng, pins: map[Blk]zodb.Tid{}, got: make(chan string, 1)}
	if c.link, err = s.core.OpenLink(s.core.Host(), nil); err != nil {
		return err
	}
	pinner := make(chan error, 1)
	go func() { pinner <- c.pinner(ctx) }()
	if err = c.use(ctx, at, stop); c.f.Failure() != nil {
		err = s.afterFailure(c, err)
	}
	if rng.IntN(2) == 0 {
		c.link.Write(ctx, []byte("9 bye\n"))
	}
	c.link.end()
	c.link.Close()
	return errors.Join(err, <-pinner)
}

// afterFailure sees that what a client met when its file failed is that failure, and no wrong byte.
func (s *sim) afterFailure(c *simClient, err error) error {
	s.k.mu.Lock()
	for key, p := range s.k.pages {
		if key.ino == c.f && p.cached && s.core.Head() >= c.f.Failure().At {
			s.k.mu.Unlock()
			return fmt.Errorf("a page of f<%s>, which failed at %s, is left at head @%s", c.f.Oid(), c.f.Failure().At, s.core.Head())
		}
	}
	s.k.mu.Unlock()
	s.failures.Add(1)
	var failed *FileFailed
	if errors.As(err, &failed) || err != nil && strings.Contains(err.Error(), errRemoved.Error()) || err != nil && strings.Contains(err.Error(), "look it up again") ||
		err != nil && strings.Contains(err.Error(), notKnown) {
		return nil
	}
	return err
}

func (c *simClient) use(ctx context.Context, at zodb.Tid, stop chan struct{}) error {
	for range 1 + c.rng.IntN(4) {
		if _, ok := c.s.db.File(c.f.Oid(), at); !ok {
			return nil
		}
		if err := c.watch(ctx, at); err != nil || c.at != at {
			return err
		}
		if err := c.touches(ctx); err != nil {
			return err
		}
		if c.rng.IntN(4) == 0 {
			if err := c.stop(ctx); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if at = c.s.core.Head(); c.rng.IntN(3) == 0 { // ahead of head
			for _, tid := range c.s.db.Tids() {
				at = max(at, tid)
			}
		}
	}
	return nil
}

func (c *simClient) ask(ctx context.Context, at zodb.Tid) {
	c.link.Write(ctx, fmt.Appendf(nil, "1 watch %s @%s\n", c.f.Oid(), at))
}

func (c *simClient) watch(ctx context.Context, at zodb.Tid) error {
	c.ask(ctx, at)
	reply, err := replied(ctx, c.got)
	if err != nil {
		return fmt.Errorf("watch @%s: %w", at, err)
	}
	switch {
	case refused(reply):
	case reply != "ok":
		return fmt.Errorf("watch @%s: %s", at, reply)
	default:
		c.at = at
	}
	return nil
}

// pinner reads the link and re-maps.
func (c *simClient) pinner(ctx context.Context) error {
	buf := ""
	for {
		p, err := c.link.Read(ctx, 1+c.rng2(200))
		if err != nil {
			return err
		}
		if len(p) == 0 {
			return nil
		}
		buf += string(p)
		for {
			line, rest, ok := strings.Cut(buf, "\n")
			if !ok {
				break
			}
			buf = rest
			if c.f.Failure() != nil && strings.HasPrefix(line, fmt.Sprintf("0 error: watch f<%s>", c.f.Oid())) {
				continue // its watch has ended
			}
			if fatal(line) {
				return errors.New(line)
			}
			stream, msg, err := watchproto.Frame(line)
			if err != nil {
				return err
			}
			if stream%2 == 1 {
				c.got <- msg
				continue
			}
			if err := c.pin(stream, msg); err != nil {
				return err
			}
			c.link.Write(ctx, []byte(watchproto.Line(stream, "ack")))
		}
	}
}

func (c *simClient) rng2(n int) int {
	c.s.rmu.Lock()
	defer c.s.rmu.Unlock()
	return c.s.rng.IntN(n)
}

func (c *simClient) pin(stream uint64, msg string) error {
	p, err := watchproto.ParsePin(msg)
	if err != nil {
		return fmt.Errorf("stream %d: %w", stream, err)
	}
	c.s.step(StepPinSend)
	c.mmap.Lock()
	defer c.mmap.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Head {
		delete(c.pins, p.Blk)
		c.last = p.Blk
	} else {
		c.pins[p.Blk] = p.Rev
	}
	return nil
}

// touch reads a page through the mapping, as a page fault does: when the mapping has changed by the
// time the page is there, the fault is tried again.
func (c *simClient) touch(ctx context.Context) error {
	oid := c.f.Oid()
	size := c.s.db.Size(oid, c.at)
	now, err := c.f.Attr(ctx)
	if err != nil {
		return err
	}
	size = min(size, now.Size)
	if size == 0 {
		return nil
	}
	off := c.rng.Int64N(size/simPage) * simPage
	if c.rng.IntN(3) == 0 {
		c.mu.Lock()
		off = min(off, int64(c.last)*c.f.h.Blksize)
		c.mu.Unlock()
	}
	blk := Blk(off / c.f.h.Blksize)
	if c.rng.IntN(4) == 0 {
		c.s.k.evict(simKey{c.f, off})
	}
	var data string
	var rev zodb.Tid
	for {
		c.mu.Lock()
		was, pinned := c.pins[blk]
		c.mu.Unlock()
		if pinned {
			data, err = c.s.readRev(ctx, was, oid, off)
		} else {
			data, err = c.faultOf(ctx, off, 1+c.rng.IntN(3))
		}
		if c.s.forgiven(err) {
			return nil
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		is, still := c.pins[blk]
		c.mu.Unlock()
		if is == was && still == pinned {
			rev = was
			break
		}
	}
	o := off % c.f.h.Blksize
	if want := string(c.s.db.Data(oid, blk, c.at)[o : o+simPage]); data != want {
		return fmt.Errorf("f<%s>[%d]+%d as of @%s (pinned @%s; head @%s): %q, want %q", oid, blk, o, c.at, rev, c.s.core.Head(), data, want)
	}
	return nil
}

func (s *sim) readRev(ctx context.Context, rev zodb.Tid, oid zodb.Oid, off int64) (string, error) {
	r, err := s.core.LookupRev(ctx, rev, oid)
	if err != nil {
		return "", fmt.Errorf("@%s: %w", rev, err)
	}
	d, err := r.Read(ctx, simPage, off)
	text := dataText(d)
	if d.Done != nil {
		d.Done()
	}
	return text + strings.Repeat("\x00", simPage-len(text)), err
}

func (c *simClient) touches(ctx context.Context) error {
	ask := func() { c.ask(ctx, c.at) }
	return touches(ctx, c.rng, 10+c.rng.IntN(40), ask, c.touch, c.got)
}

// stop unmaps the file and ends the watch, half of the times while that is being set up anew.
func (c *simClient) stop(ctx context.Context) error {
	n := 1 + c.rng.IntN(2)
	if n == 2 {
		c.ask(ctx, max(c.at, c.s.core.Head()))
		c.s.step(StepWatchHold)
	}
	c.link.Write(ctx, fmt.Appendf(nil, "3 watch %s -\n", c.f.Oid()))
	return unwatched(ctx, n, c.got, &c.mu, c.pins)
}
