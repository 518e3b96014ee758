package zcore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// Run follows the database until ctx is done (nil) or following fails for good: then the core is in
// EIO mode, everything answers ErrNotConn, and Run returns the cause.
func (c *Core) Run(ctx context.Context) error {
	defer c.cancel(context.Canceled)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.follow(ctx) })
	g.Go(func() error { return c.apply(ctx) })
	g.Go(func() error { // EIO mode may be entered by others too
		select {
		case <-c.failed:
			return c.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// follow receives commits. A changed ZBigFile that ends all is noticed here, before any wait.
func (c *Core) follow(ctx context.Context) error {
	err := c.stor.Follow(ctx, c.tail.T0(), func(com zodb.Commit) error {
		c.step(StepReceived)
		if c.opts.FileChangeEndsAll {
			check := func() error { return c.tail.CheckFiles(ctx, com) }
			if err := c.retry(ctx, "check files", check); err != nil && c.endsAll(err) {
				return err
			}
		}
		c.mu.Lock()
		c.queue = append(c.queue, com)
		c.received = append(c.received, time.Now())
		c.mu.Unlock()
		select {
		case c.queued <- struct{}{}:
		default:
		}
		return nil
	})
	return c.failUnlessDone(ctx, err)
}

// nextBatch takes commits off the queue.
func (c *Core) nextBatch() (batch []zodb.Commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxBatch)
	batch, c.queue = c.queue[:n:n], c.queue[n:]
	return batch
}

func (c *Core) failUnlessDone(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		c.fail(err)
	}
	return err
}

// delta finds out what a commit did, to those files that it leaves whole.
func (c *Core) delta(ctx context.Context, com zodb.Commit) (d []history.FileDelta, err error) {
	err = c.perFile(ctx, "check files", com, func() error { return c.tail.CheckFiles(ctx, com) })
	if err == nil {
		err = c.perFile(ctx, "delta", com, func() (err error) {
			d, err = c.tail.Delta(ctx, com)
			return err
		})
	}
	if err != nil {
		err = fmt.Errorf("commit %s: %w", com.Tid, err)
	}
	return d, err
}

// maxBatch bounds how many commits are taken at once: readers of what a batch touches wait for all of it.
const maxBatch = 256

// apply takes the commits received so far, as one batch or some, again and again.
func (c *Core) apply(ctx context.Context) error {
	for {
		select {
		case <-c.queued:
		case <-ctx.Done():
			return ctx.Err()
		}
		for batch := c.nextBatch(); len(batch) > 0 && ctx.Err() == nil; batch = c.nextBatch() {
			if err := c.commit(ctx, batch); err != nil {
				return c.failUnlessDone(ctx, err)
			}
			c.tail.Trim()
			c.endOldest()
		}
	}
}

// commit takes a batch through all steps. The next batch is published only after this one is announced,
// so that a read that waits for the view never depends on the kernel.
func (c *Core) commit(ctx context.Context, batch []zodb.Commit) error {
	c.tail.Publish(batch)
	c.step(StepPublished)
	var deltas [][]history.FileDelta
	for _, com := range batch {
		d, err := c.delta(ctx, com)
		if err != nil {
			return err
		}
		deltas = append(deltas, d)
	}
	c.step(StepDelta)
	old, last := c.moveView(batch[len(batch)-1].Tid)
	c.step(StepView)
	if err := c.forgetFailed(ctx); err != nil {
		return err
	}
	files := c.dirty(batch, deltas)
	help, helped := c.forHelp(ctx)
	defer helped()
	if err := c.dropChanged(ctx, help, files, old, last); err != nil {
		return err
	}
	c.step(StepDropped)
	changed := 0
	var lines []zheadLine
	for i, com := range batch {
		lines = append(lines, c.announce(com.Tid)...)
		for _, d := range deltas[i] {
			changed += len(d.Blocks)
		}
	}
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.Debug("commit", "tid", batch[len(batch)-1].Tid, "commits", len(batch), "files", len(files), "blocks", changed)
	}
	c.moveBase(changed)
	c.step(StepAnnounced)
	if len(lines) > 0 { // they come when all is applied
		for _, d := range files {
			d.f.waitKept(ctx, help)
		}
		c.tellZheads(lines)
	}
	return nil
}

func (c *Core) moveView(tid zodb.Tid) (old, now zodb.Tid) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, c.view = c.view, tid
	c.viewWaits.reached(tid)
	return old, tid
}

// announce returns what is to be told to the zhead streams that are open now.
func (c *Core) announce(tid zodb.Tid) (lines []zheadLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = tid
	c.meter.commits.Add(1)
	c.meter.age.Observe(time.Since(tid.Time()))
	if len(c.received) > 0 {
		c.meter.lag.Observe(time.Since(c.received[0]))
	}
	c.received = c.received[min(1, len(c.received)):]
	c.headWaits.reached(tid)
	for z := range c.zheads {
		lines = append(lines, zheadLine{z, tid})
	}
	return lines
}
