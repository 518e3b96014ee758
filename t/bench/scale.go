package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// core is a core over a database in memory with one file of n small blocks, all of which were read.
type core struct {
	*zcore.Core
	db   *zgen.DB
	oid  zodb.Oid
	file *zcore.HeadFile
	stop func()
}

const smallBlk = 4096

func newCore(ctx context.Context, n int) (*core, error) {
	stor := memstorage.New()
	db := zgen.New(stor, zgen.Options{NoModel: true})
	tx := db.Begin()
	c := &core{db: db, oid: tx.NewFile(smallBlk)}
	for blk := range zdata.Blk(n) {
		tx.Write(c.oid, blk, fmt.Appendf(nil, "block %d", blk), zgen.Blk0)
	}
	if _, err := tx.Commit(); err != nil {
		return nil, err
	}
	var err error
	if c.Core, err = zcore.New(ctx, stor, zcore.Options{}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	c.stop = func() {
		cancel()
		<-done
		stor.Close()
	}
	if c.file, err = c.Lookup(ctx, c.oid); err != nil {
		return c, err
	}
	for off := int64(0); off < int64(n)*smallBlk; off += 1 << 20 {
		if err := c.read(ctx, 1<<20, off); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *core) read(ctx context.Context, size int, off int64) error {
	data, err := c.file.Read(ctx, c.Host(), size, off)
	if data.Done != nil {
		data.Done()
	}
	return err
}

// commit changes ten blocks and waits until head shows that.
func (c *core) commit(round, n int) error {
	tx := c.db.Begin()
	for i := range 10 {
		blk := zdata.Blk((round*7919 + i*n/10) % n)
		tx.Write(c.oid, blk, fmt.Appendf(nil, "round %d", round), zgen.Blk0)
	}
	tid, err := tx.Commit()
	if err != nil {
		return err
	}
	for c.Head() < tid {
		select {
		case <-c.Failed():
			return c.Err()
		default:
			time.Sleep(10 * time.Microsecond)
		}
	}
	return nil
}

// tracked commits ten changed blocks, with many and with few blocks that somebody has read.
func tracked(ctx context.Context, b *bench) ([]Row, error) {
	var took [2]func() (time.Duration, error)
	for i, n := range []int{1e6, 1e3} {
		c, err := newCore(ctx, n)
		if c != nil && c.stop != nil {
			defer c.stop()
		}
		if err != nil {
			return nil, err
		}
		round := 0
		took[i] = func() (time.Duration, error) {
			const commits = 20
			t, err := timed(func() error {
				for range commits {
					round++
					if err := c.commit(round, n); err != nil {
						return err
					}
				}
				return nil
			})
			return t / commits, err
		}
	}
	large, small, err := b.pair(took[0], took[1])
	return []Row{cost("commit of 10 blocks, 10^6 and 10^3 tracked", large, small, 1.5)}, err
}

// watches reads a block with many and with one watch at head.
func watches(ctx context.Context, b *bench) ([]Row, error) {
	var took [2]func() (time.Duration, error)
	for i, n := range []int{1000, 1} {
		c, err := newCore(ctx, 1000)
		if c != nil && c.stop != nil {
			defer c.stop()
		}
		if err != nil {
			return nil, err
		}
		for range n {
			if err := c.watch(ctx, c.Head()); err != nil {
				return nil, err
			}
		}
		took[i] = func() (time.Duration, error) {
			const reads = 2000
			t, err := timed(func() error {
				for k := range reads {
					if err := c.read(ctx, smallBlk, int64(k%1000)*smallBlk); err != nil {
						return err
					}
				}
				return nil
			})
			return t / reads, err
		}
	}
	large, small, err := b.pair(took[0], took[1])
	return []Row{cost("read of a head block, 1000 and 1 watches", large, small, 1.5)}, err
}

// setup sets a watch up at a revision after which 100 blocks changed, with many and with few tracked blocks.
func setup(ctx context.Context, b *bench) ([]Row, error) {
	var took [2]func() (time.Duration, error)
	for i, n := range []int{1e6, 1e4} {
		c, err := newCore(ctx, n)
		if c != nil && c.stop != nil {
			defer c.stop()
		}
		if err != nil {
			return nil, err
		}
		at := c.Head()
		for round := range 10 {
			if err := c.commit(round, n); err != nil {
				return nil, err
			}
		}
		took[i] = func() (time.Duration, error) {
			return timed(func() error { return c.watch(ctx, at) })
		}
	}
	large, small, err := b.pair(took[0], took[1])
	return []Row{cost("watch set-up, 100 changed of 10^6 and 10^4 tracked", large, small, 2)}, err
}

// watch opens a link, watches the file as of at, and acknowledges every pin.
func (c *core) watch(ctx context.Context, at zodb.Tid) error {
	l, err := c.OpenLink(c.Host(), nil)
	if err != nil {
		return err
	}
	if _, err := l.Write(ctx, fmt.Appendf(nil, "1 watch %s @%s\n", c.oid, at)); err != nil {
		return err
	}
	for {
		p, err := l.Read(ctx, 1<<16)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(p)) {
			stream, msg, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case stream == "1" && msg == "ok":
				return nil
			case strings.HasPrefix(msg, "pin "):
				if _, err := l.Write(ctx, []byte(stream+" ack\n")); err != nil {
					return err
				}
			default:
				return errors.New(line)
			}
		}
	}
}
