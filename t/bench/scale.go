package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"wcfs/t/bench/kit"
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
	c.file, err = c.Lookup(ctx, c.oid)
	for off := int64(0); err == nil && off < int64(n)*smallBlk; off += 1 << 20 {
		err = c.read(ctx, 1<<20, off)
	}
	if err != nil {
		c.stop()
		return nil, err
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

// cores makes one core for each number of blocks.
func cores(ctx context.Context, ns ...int) (list []*core, stop func(), err error) {
	stop = func() {
		for _, c := range list {
			c.stop()
		}
	}
	for _, n := range ns {
		c, err := newCore(ctx, n)
		if err != nil {
			stop()
			return nil, nil, err
		}
		list = append(list, c)
	}
	runtime.GC() // of what making them left, and not while they are measured
	return list, stop, nil
}

// tracked commits ten changed blocks, with more and more blocks that somebody has read.
func tracked(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	ns := []int{1e3, 1e4, 1e5, 1e6}
	list, stop, err := cores(ctx, ns...)
	if err != nil {
		return nil, err
	}
	defer stop()
	var points []kit.Point
	for i, c := range list {
		round := 0
		points = append(points, kit.Point{Name: fmt.Sprintf("tracked blocks: %d", ns[i]), Run: each(100, func(int) error {
			round++
			return c.commit(round, ns[i])
		})})
	}
	rows, err := b.Curve(ctx, "commit of 10 blocks", points...)
	if err != nil {
		return nil, err
	}
	row, err := setup(ctx, b, list[len(list)-1], ns[len(ns)-1], list[1], ns[1])
	return append(lastTarget(rows, 1.5), row), err
}

// each is the mean time of n calls.
func each(n int, fn func(i int) error) kit.Run {
	return func() (time.Duration, error) {
		t, err := kit.Timed(func() error {
			for i := range n {
				if err := fn(i); err != nil {
					return err
				}
			}
			return nil
		})
		return t / time.Duration(n), err
	}
}

// lastTarget says what the last point of a curve must not exceed.
func lastTarget(rows []kit.Row, target float64) []kit.Row {
	if len(rows) > 0 {
		rows[len(rows)-1].Target = target
	}
	return rows
}

// watches reads a block with more and more watches at head.
func watches(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	const blocks = 1000
	ns := []int{1, 10, 100, 1000}
	list, stop, err := cores(ctx, blocks, blocks, blocks, blocks)
	if err != nil {
		return nil, err
	}
	defer stop()
	var points []kit.Point
	for i, c := range list {
		for range ns[i] {
			if err := c.watch(ctx, c.Head()); err != nil {
				return nil, err
			}
		}
		points = append(points, kit.Point{Name: fmt.Sprintf("watches: %d", ns[i]), Run: each(5000, func(k int) error {
			return c.read(ctx, smallBlk, int64(k%blocks)*smallBlk)
		})})
	}
	rows, err := b.Curve(ctx, "read of a head block", points...)
	return lastTarget(rows, 1.5), err
}

// setup sets a watch up at a revision after which 100 blocks changed, with many and with few tracked blocks.
func setup(ctx context.Context, b *kit.Bench, large *core, n int, small *core, m int) (kit.Row, error) {
	var took [2]kit.Run
	for i, c := range []*core{large, small} {
		at := c.Head()
		for round := range 10 {
			if err := c.commit(round, []int{n, m}[i]); err != nil {
				return kit.Row{}, err
			}
		}
		took[i] = each(5, func(int) error { return c.watch(ctx, at) })
	}
	p, err := b.Pair(ctx, took[0], took[1])
	if err != nil {
		return kit.Row{}, err
	}
	return p.Cost(fmt.Sprintf("set-up of a watch, 100 changed of %d tracked blocks", n), 2, fmt.Sprintf("other: of %d", m)), nil
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
