package zcore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"wcfs/zcore/watch"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run the simulation of this seed only")
	simsFlag = flag.Int("sims", 60, "how many simulations to run")
)

// TestIsolation runs clients at different revisions against a simulated kernel and a writer that
// commits as fast as it can. Every byte a client sees must be of its own revision.
func TestIsolation(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	n := soaked(*simsFlag)
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	saved, puts := 0, 0
	for i := range n {
		s := newSim(t, base+uint64(i))
		if err := s.run(); err != nil {
			t.Fatalf("go test -run TestIsolation -seed %d: %v", s.seed, err)
		}
		s.k.mu.Lock() // uploads may still be under way
		saved, puts = saved+s.k.saved, puts+s.k.puts
		s.k.mu.Unlock()
	}
	t.Logf("%d blocks kept under @rev, %d uploads", saved, puts)
	if *seedFlag == 0 && (saved == 0 || puts == 0) {
		t.Errorf("nothing was kept under @rev (%d) or uploaded (%d)", saved, puts)
	}
}

// soaked is how often to do what is done n times by default.
func soaked(n int) int {
	if os.Getenv("WCFS_SOAK") != "" {
		return 50 * n
	}
	return n
}

type sim struct {
	t    *testing.T
	seed uint64
	stor *memstorage.Store
	ext  *extents // nil: blocks are in memory
	db   *zgen.DB
	core *Core
	k    *simKernel

	rmu sync.Mutex
	rng *rand.Rand // rmu; for steps
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, seed: seed, stor: memstorage.New(), rng: rand.New(rand.NewPCG(seed, 9))}
	stor := zodb.Storage(s.stor)
	if seed%2 == 0 {
		s.ext = newExtents(t, s.stor, 20)
		stor = s.ext
	}
	s.db = zgen.New(s.stor, zgen.Options{LeafMax: 3, NodeMax: 3, ChunkSize: 16})
	for range 1 + s.rng.IntN(6) {
		if _, err := s.db.Random(s.rng, zgen.Mix{MaxFiles: 2, MaxBlk: 12}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	memory := 0 // enough for all
	if seed%3 == 0 {
		memory = 1
	}
	s.core, err = New(context.Background(), stor, Options{
		BlockBytes: memory, Grace: 20 * time.Microsecond, PinTimeout: time.Minute, Step: s.step,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.core.pageSize, s.core.smallRead = simPage, simPage
	s.k = newSimKernel(s.core, s.db)
	s.core.SetPageCache(s.k)
	return s
}

// step is where the simulation lets others run.
func (s *sim) step(Step) {
	s.rmu.Lock()
	r := s.rng.IntN(100)
	s.rmu.Unlock()
	switch {
	case r < 30:
		runtime.Gosched()
	case r < 36:
		time.Sleep(time.Duration(r) * time.Microsecond)
	}
}

func (s *sim) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.core.Run(ctx) }()
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	stop := make(chan struct{})
	for i := range 4 {
		rng := rand.New(rand.NewPCG(s.seed, uint64(100+i)))
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.client(ctx, rng, stop); err != nil {
					errs <- fmt.Errorf("client %d: %w", i, err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(s.seed, 50))
	for range 40 {
		if _, err := s.db.Random(rng, zgen.Mix{MaxFiles: 2, MaxBlk: 12}); err != nil {
			return err
		}
		s.step(StepReceived)
		time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
	}
	close(stop)
	wg.Wait()
	var err error
	select {
	case err = <-errs:
	default:
		err = s.freshWatch(ctx, rng)
	}
	cancel()
	err = errors.Join(err, <-served)
	if s.ext != nil {
		err = errors.Join(err, s.ext.check())
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return errors.Join(err, s.k.wrong)
}

// simClient is a program that maps one file as of at.
type simClient struct {
	s    *sim
	f    *HeadFile
	link *Link
	rng  *rand.Rand

	mu   sync.Mutex
	at   zodb.Tid         // mu
	pins map[Blk]zodb.Tid // mu; what is mapped from @rev
	got  chan string      // replies to requests
}

// client runs one client for a while.
func (s *sim) client(ctx context.Context, rng *rand.Rand, stop chan struct{}) error {
	at := s.core.Head()
	files := s.db.Files(at)
	f, err := s.core.Lookup(ctx, files[rng.IntN(len(files))])
	if err != nil {
		return err
	}
	if rng.IntN(3) == 0 { // from the past
		if tids := s.db.Tids(); len(tids) > 0 {
			at = max(s.core.T0(), f.h.Epoch, min(at, tids[rng.IntN(len(tids))]))
		}
	}
	c := &simClient{s: s, f: f, rng: rng, pins: map[Blk]zodb.Tid{}, got: make(chan string, 1)}
	if c.link, err = s.core.OpenLink(s.core.Host(), nil); err != nil {
		return err
	}
	pinner := make(chan error, 1)
	go func() { pinner <- c.pinner(ctx) }()
	err = c.use(ctx, at, stop)
	if rng.IntN(2) == 0 {
		c.link.Write(ctx, []byte("9 bye\n"))
	}
	c.link.end()
	c.link.Close()
	return errors.Join(err, <-pinner)
}

func (c *simClient) use(ctx context.Context, at zodb.Tid, stop chan struct{}) error {
	for range 1 + c.rng.IntN(4) {
		if _, ok := c.s.db.File(c.f.Oid(), at); !ok {
			return nil
		}
		if err := c.watch(ctx, at); err != nil || c.at != at {
			return err
		}
		for range 10 + c.rng.IntN(40) {
			if err := c.touch(ctx); err != nil {
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

func (c *simClient) watch(ctx context.Context, at zodb.Tid) error {
	c.link.Write(ctx, []byte(fmt.Sprintf("1 watch %s @%s\n", c.f.Oid(), at)))
	select {
	case reply := <-c.got:
		if strings.Contains(reply, "file epoch detected") {
			return nil
		}
		if reply != "ok" {
			return fmt.Errorf("watch @%s: %s", at, reply)
		}
		c.at = at
		return nil
	case <-ctx.Done():
		return fmt.Errorf("watch @%s: no reply", at)
	}
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
			stream, msg, err := watch.Frame(line)
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
			c.link.Write(ctx, []byte(watch.Line(stream, "ack")))
		}
	}
}

func (c *simClient) rng2(n int) int {
	c.s.rmu.Lock()
	defer c.s.rmu.Unlock()
	return c.s.rng.IntN(n)
}

func (c *simClient) pin(stream uint64, msg string) error {
	p, err := watch.ParsePin(msg)
	if err != nil {
		return fmt.Errorf("stream %d: %w", stream, err)
	}
	c.s.step(StepPinSend)
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Head {
		delete(c.pins, p.Blk)
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
	blk := Blk(off / c.f.h.Blksize)
	if c.rng.IntN(4) == 0 {
		c.s.k.evict(simKey{oid, off})
	}
	var data string
	var rev zodb.Tid
	for {
		c.mu.Lock()
		was, pinned := c.pins[blk]
		c.mu.Unlock()
		if pinned {
			data, err = c.readRev(ctx, was, off)
		} else {
			data, err = c.s.k.fault(ctx, c.f, off, 1+c.rng.IntN(3))
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

func (c *simClient) readRev(ctx context.Context, rev zodb.Tid, off int64) (string, error) {
	r, err := c.s.core.LookupRev(ctx, rev, c.f.Oid())
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

// freshWatch sets up a watch when all is quiet, and compares its pins with the model.
func (s *sim) freshWatch(ctx context.Context, rng *rand.Rand) error {
	if err := s.core.waitHead(ctx, s.db.Head()); err != nil {
		return fmt.Errorf("head @%s is not announced: %w", s.db.Head(), err)
	}
	for _, oid := range s.core.HeadFiles() {
		f := s.core.file(oid)
		tids := s.db.Tids()
		at := tids[rng.IntN(len(tids))]
		if at < max(s.core.T0(), f.h.Epoch) {
			continue
		}
		c := &simClient{s: s, f: f, rng: rng, pins: map[Blk]zodb.Tid{}, got: make(chan string, 1)}
		c.link, _ = s.core.OpenLink(s.core.Host(), nil)
		go c.pinner(ctx)
		if err := c.watch(ctx, at); err != nil {
			return err
		}
		want := map[Blk]zodb.Tid{}
		for blk := range s.k.seen[oid] {
			if s.db.BlkRevAt(oid, blk, s.db.Head()) > at {
				want[blk] = max(s.db.BlkRevAt(oid, blk, at), s.core.T0())
			}
		}
		if fmt.Sprint(c.pins) != fmt.Sprint(want) {
			return fmt.Errorf("watch f<%s> @%s pins %v, want %v", oid, at, c.pins, want)
		}
		c.link.end()
		c.link.Close()
	}
	return nil
}
