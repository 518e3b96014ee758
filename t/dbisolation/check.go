package dbisolation

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// view shows the file as of a revision.
type view interface {
	move() (zodb.Tid, error) // to head
	read(buf []byte, blk int64) error
	pin(blk int64) string // what the block is pinned to, for messages
	close()
}

// served is a view that zcore/client has.
type served struct{ *client.View }

func openServed(mnt string, oid zodb.Oid, pinned *atomic.Int64) (view, error) {
	c, err := client.Connect(mnt)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := c.Open(ctx, oid, client.Head, client.Options{OnPin: func(client.Pin) { pinned.Add(1) }})
	return served{v}, err
}

func (v served) move() (zodb.Tid, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := v.Resync(ctx, client.Head)
	return v.At(), err
}

func (v served) read(buf []byte, blk int64) error {
	_, err := v.ReadAt(buf, blk*blkSize)
	return err
}

func (v served) pin(blk int64) string {
	if rev, ok := v.Pinned()[client.Blk(blk)]; ok {
		return rev.String()
	}
	return ""
}

func (v served) close() { v.Close() }

// checker is one client.
type checker struct {
	open          func(mnt string, oid zodb.Oid, pinned *atomic.Int64) (view, error)
	mnt           string
	w             *Writer
	rnd           *rand.Rand
	reads, pinned *atomic.Int64 // of all clients
}

// run has one view after the other until it is told to stop.
func (c *checker) run(stop *atomic.Bool) error {
	for !stop.Load() {
		v, err := c.open(c.mnt, c.w.oid, c.pinned)
		if err != nil {
			return err
		}
		for again := true; again && err == nil && !stop.Load(); again = c.rnd.IntN(10) != 0 {
			err = c.check(v)
		}
		v.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// check moves the view to head and compares blocks that it shows, while head goes on.
func (c *checker) check(v view) error {
	at, err := v.move()
	if err != nil {
		return err
	}
	want, err := c.w.at(at)
	if err != nil {
		return err
	}
	got := make([]byte, blkSize)
	for range 1 + c.rnd.IntN(200) {
		blk := c.rnd.Int64N(blocks)
		if err := v.read(got, blk); err != nil {
			return fmt.Errorf("block %d of @%s: %w", blk, at, err)
		}
		full := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(want[blk])), blkSize/8)
		if !bytes.Equal(got, full) {
			return fmt.Errorf("block %d of view @%s is of counter %d; want %d (pinned: %q)", blk, at,
				binary.LittleEndian.Uint64(got), want[blk], v.pin(blk))
		}
		c.reads.Add(1)
	}
	return nil
}

// Check has six clients at the mount for that long, three that speak the protocol themselves and three of
// zcore/client. disturb is called once a second.
func Check(t *testing.T, mnt string, w *Writer, seed uint64, long time.Duration, disturb func()) {
	t.Helper()
	var stop atomic.Bool
	var reads, pinned atomic.Int64
	errc := make(chan error, 6)
	for i := range cap(errc) {
		c := &checker{mnt: mnt, w: w, rnd: rand.New(rand.NewPCG(seed, uint64(i))), reads: &reads, pinned: &pinned}
		if c.open = openLinked; i%2 == 1 {
			c.open = openServed
		}
		go func() { errc <- c.run(&stop) }()
	}
	before := w.count()
	for end := time.Now().Add(long); time.Now().Before(end) && len(errc) == 0; time.Sleep(time.Second) {
		disturb()
	}
	stop.Store(true)
	for range cap(errc) {
		select {
		case err := <-errc:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("a client hangs")
		}
	}
	commits := w.count() - before
	t.Logf("%d commits, %d reads, %d pins", commits, reads.Load(), pinned.Load())
	if commits == 0 || reads.Load() == 0 || pinned.Load() == 0 {
		t.Error("too little happened to mean anything")
	}
}
