package zcore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// chaos has clients do whatever the protocol allows, at any moment, while others read and commit.
type chaos struct {
	w     *world
	files []*HeadFile
	stop  atomic.Bool
}

// Clients that do their part are never signalled, nobody waits for those that are gone, and in the end
// nothing is left of them.
func TestLinksComeAndGo(t *testing.T) {
	for i := range soaked(6) {
		seed := uint64(time.Now().UnixNano()) + uint64(i)
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testChaos(t, seed) })
	}
}

func testChaos(t *testing.T, seed uint64) {
	var rmu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 3))
	opts := Options{
		PinTimeout: 20 * time.Second, Grace: 20 * time.Microsecond, Retention: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w := newWorld(t, opts, map[Blk]string{0: "a", 1: "b", 2: "c", 3: "d"})
	yield := func() {
		rmu.Lock()
		r := rng.IntN(100)
		rmu.Unlock()
		if r < 10 {
			time.Sleep(time.Duration(r*10) * time.Microsecond)
		}
	}
	w.yield.Store(&yield)
	c := &chaos{w: w}
	for _, oid := range []zodb.Oid{w.f, w.newFile()} {
		f, err := w.core.Lookup(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, f)
	}
	var others, clients sync.WaitGroup
	for i := range 3 {
		others.Go(func() { c.reader(rand.New(rand.NewPCG(seed, uint64(10+i)))) })
	}
	for i := range 6 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(20+i)))
			for range 15 {
				c.client(rng)
			}
		})
	}
	others.Go(func() { c.writer(rand.New(rand.NewPCG(seed, 1))) })
	clients.Wait()
	c.stop.Store(true)
	others.Wait()
	eventually(t, "all to be forgotten", c.clean)
}

// clean reports whether nothing is left of any client.
func (c *chaos) clean() bool {
	core := c.w.core
	core.mu.Lock()
	revs := len(core.revs)
	core.mu.Unlock()
	for _, f := range c.files {
		f.mu.Lock()
		n := len(f.watches)
		f.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	s := core.Stats()
	return revs == 0 && s.Watch == 0 && s.WatchLink == 0 && s.PinnedBlk == 0 && s.PinKill == 0 && core.tail.Holds() == 1 // of head/base
}

func (c *chaos) writer(rng *rand.Rand) {
	for !c.stop.Load() {
		c.w.tx(func(tx *zgen.Tx) {
			for _, f := range c.files {
				tx.Write(f.Oid(), Blk(rng.IntN(6)), fmt.Append(nil, rng.Int()), zgen.Blk0)
			}
		})
		time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
	}
}

func (c *chaos) reader(rng *rand.Rand) {
	for !c.stop.Load() {
		f := c.files[rng.IntN(len(c.files))]
		patience := 10 * time.Second
		givesUp := rng.IntN(10) == 0
		if givesUp {
			patience = time.Duration(rng.IntN(200)) * time.Microsecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		f.Attr(ctx)
		d, err := f.Read(ctx, c.w.core.Host(), testBlksize, rng.Int64N(6)*testBlksize)
		if err == nil && d.Done != nil {
			d.Done()
		}
		cancel()
		if err != nil && !givesUp {
			c.w.t.Errorf("a read failed, or waited for ever: %v", err)
			return
		}
	}
}

// client opens a link, uses it, and ends it in one of the ways that are no fault.
func (c *chaos) client(rng *rand.Rand) {
	p := newFakeProcess()
	l := c.w.linkOf(p)
	ended := make(chan struct{})
	var mu sync.Mutex
	var owed []string // mu; pins that were not acknowledged
	lazy := false     // mu; no pin is acknowledged any more
	go func() {
		defer close(ended)
		for line := l.recv(); line != "EOF"; line = l.recv() {
			if strings.HasPrefix(line, "0 ") {
				c.w.t.Errorf("a client that did its part was told %q", line)
			}
			stream, msg, _ := strings.Cut(line, " ")
			if !strings.HasPrefix(msg, "pin ") {
				continue
			}
			mu.Lock()
			if lazy {
				owed = append(owed, stream)
			} else {
				l.send("%s ack", stream)
			}
			mu.Unlock()
		}
	}()
	for range 1 + rng.IntN(12) {
		f := c.files[rng.IntN(len(c.files))].Oid()
		switch rng.IntN(5) {
		case 0:
			l.send("3 watch %s -", f)
		case 1:
			l.send("5 watch %s @%s", f, c.w.core.Head()+zodb.Tid(rng.IntN(3)<<26)) // ahead, maybe for ever
		default:
			l.send("1 watch %s @%s", f, c.w.core.Head())
		}
		time.Sleep(time.Duration(rng.IntN(400)) * time.Microsecond)
	}
	mu.Lock()
	lazy = true
	mu.Unlock()
	time.Sleep(time.Duration(rng.IntN(400)) * time.Microsecond)
	if rng.IntN(2) == 0 {
		for i, f := range c.files { // all pins are off by that, so it may close without bye
			l.send("%d watch %s -", 2*i+1, f.Oid())
		}
		if rng.IntN(2) == 0 {
			mu.Lock()
			for _, stream := range owed {
				l.send("%s nak", stream)
			}
			mu.Unlock()
		}
	} else {
		l.send("9 bye")
	}
	l.l.Close()
	c.w.must("end of a link", p.closed)
	if n := p.signals.Load(); n != 0 {
		c.w.t.Errorf("a client that did its part was sent %d signals", n)
	}
	<-ended
}
