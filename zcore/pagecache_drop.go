package zcore

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

const (
	dropParallel = 8                     // blocks invalidated at once
	uploadPause  = 50 * time.Millisecond // before a block is uploaded that had but one small READ; such go one by one
	maxSmall     = 4096                  // small READs remembered per file
	uploads      = 4                     // uploads at once over all files
)

// dirty is what a batch changed of one file.
type dirty struct {
	f      *HeadFile
	blks   map[Blk]change
	size   int64 // after the batch
	resize bool
}

// change is the first change of a block in a batch.
type change struct {
	tid  zodb.Tid // the block did not change in the batch before this
	save history.Save
}

// dirty unites the deltas of a batch.
func (c *Core) dirty(batch []zodb.Commit, deltas [][]history.FileDelta) map[zodb.Oid]*dirty {
	out := map[zodb.Oid]*dirty{}
	for i, ds := range deltas {
		first := batch[i].Tid
		if gap := batch[i].Gap; gap != 0 {
			first = gap + 1
		}
		for _, d := range ds {
			f := c.file(d.File.Oid)
			if f == nil || f.h != d.File { // being looked up, or failed: nothing of it is cached
				continue
			}
			x := out[d.File.Oid]
			if x == nil {
				x = &dirty{f: f, blks: map[Blk]change{}}
				out[d.File.Oid] = x
			}
			for j, blk := range d.Blocks {
				if _, twice := x.blks[blk]; !twice {
					x.blks[blk] = change{first, d.Old[j]}
				}
			}
			f.commits.Add(1)
			f.changed.Add(int64(len(d.Blocks)))
			c.meter.changed.Add(int64(len(d.Blocks)))
			x.size, x.resize = d.Size, x.resize || d.Resize
		}
	}
	return out
}

// dropChanged removes what changed from the page cache, keeping it for @rev where it can, then has
// sizes and mtimes asked anew. It returns when no page with content older than t is left.
func (c *Core) dropChanged(ctx, help context.Context, files map[zodb.Oid]*dirty, old, t zodb.Tid) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(dropParallel)
	for _, d := range files {
		for blk, ch := range d.blks {
			g.Go(func() error { return c.dropBlk(gctx, help, d.f, blk, ch, t) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if c.pc == nil {
		return nil
	}
	for oid, d := range files {
		if was, _ := c.tail.Attr(d.f.h, old); d.resize && was%c.pageSize != 0 {
			// The tail of the last page was filled with zeros; after growth they are wrong.
			if err := c.pc.Invalidate(oid, was-was%c.pageSize, c.pageSize); err != nil {
				return err
			}
		}
		if err := c.pc.InvalidateAttr(oid); err != nil {
			return err
		}
	}
	return nil
}

// dropBlk invalidates one block, having it kept for @rev where it can.
func (c *Core) dropBlk(ctx, help context.Context, f *HeadFile, blk Blk, ch change, t zodb.Tid) error {
	c.step(StepInvalidate)
	if err := c.waitQuiet(ctx, f, blk, t); err != nil {
		return err
	}
	if c.pc == nil {
		return nil
	}
	unlock, err := f.lockBlk(ctx, blk)
	if err != nil {
		return err
	}
	defer unlock()
	c.keepOld(ctx, help, f, blk, ch)
	return c.pc.Invalidate(f.Oid(), int64(blk)*f.h.Blksize, f.h.Blksize)
}

// uploadLater uploads after a pause, unless it already has another to do.
func (c *Core) uploadLater(f *HeadFile, g blkData) {
	select {
	case c.uploadIdle <- struct{}{}:
		defer func() { <-c.uploadIdle }()
	default:
		return // it is only a help
	}
	select {
	case <-time.After(uploadPause):
		c.upload(f, g)
	case <-c.ctx.Done():
	}
}

// upload stores the whole of a block that was read in part, if it still is what was read.
func (c *Core) upload(f *HeadFile, g blkData) {
	blk := g.r.blk
	select {
	case f.uploads <- struct{}{}:
		defer func() { <-f.uploads }()
	default:
		return // enough going on; it is only a help
	}
	unlock, err := f.lockBlk(c.ctx, blk)
	if err != nil {
		return
	}
	defer unlock()
	if !c.tail.Unchanged(f.h, blk, g.r.view, g.m) {
		return
	}
	c.step(StepUpload)
	data := g.b.mem
	if int64(len(data)) < f.h.Blksize {
		whole, giveBack := c.buffer(f.h.Blksize)
		defer giveBack()
		data = whole
		if g.b.plain.File == nil {
			clear(data[copy(data, g.b.mem):])
		} else if ok, err := c.copyPlain(c.ctx, data, g.m.ZBlk, g.r.view, g.serial); !ok || err != nil {
			return // it is only a help
		}
	}
	if err := c.pc.Upload(f.Oid(), int64(blk)*f.h.Blksize, data); err != nil && !errors.Is(err, context.Canceled) {
		c.log.Debug("block not uploaded", "file", f.Oid(), "blk", blk, "cause", err)
	}
}

// lockBlk takes the lock that makes uploads and invalidations of one block follow each other. No
// request handler takes it: it is held while the kernel waits for page locks.
func (f *HeadFile) lockBlk(ctx context.Context, blk Blk) (unlock func(), err error) {
	for {
		f.mu.Lock()
		busy := f.cacheLock[blk]
		if busy == nil {
			mine := make(chan struct{})
			f.cacheLock[blk] = mine
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.cacheLock, blk)
				f.mu.Unlock()
				close(mine)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
