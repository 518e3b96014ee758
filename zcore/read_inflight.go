package zcore

import (
	"context"
	"slices"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// blkReads are the READs of one block that may put pages into the kernel's cache: a second READ of a
// fault may come while its caller holds mmap_lock, so a block is left alone while READs under an older
// view are under way and for a grace after the last of them was answered.
type blkReads struct {
	views   []zodb.Tid    // views of READs under way
	newView zodb.Tid      // newest view of an answered READ
	newDone time.Time     // when the last READ under newView was answered
	oldDone time.Time     // when the last READ under an older one was
	ended   chan struct{} // closed when a READ ends; nil if nobody waits
}

// read is one READ of one block under way.
type read struct {
	f    *HeadFile
	blk  Blk
	dom  *Domain
	view zodb.Tid
	hold *history.Hold
}

// beginRead takes the current view and, in the same critical section, notes the READ as under way. None
// begins in a file that has failed.
func (f *HeadFile) beginRead(dom *Domain, blk Blk) (*read, error) {
	r := &read{f: f, blk: blk, dom: dom, hold: f.c.tail.Hold(0)}
	c := f.c
	c.mu.Lock()
	if err := f.failed(); err != nil {
		c.mu.Unlock()
		r.hold.Release()
		return nil, err
	}
	r.view = c.view
	r.addLocked()
	c.mu.Unlock()
	r.hold.Move(r.view)
	return r, nil
}

// renew takes the current view anew.
func (r *read) renew() {
	c := r.f.c
	c.mu.Lock()
	r.dropLocked()
	r.view = c.view
	r.addLocked()
	c.mu.Unlock()
	r.hold.Move(r.view)
}

func (r *read) addLocked() {
	if !r.dom.local {
		return
	}
	b := r.f.reads[r.blk]
	if b == nil {
		b = &blkReads{}
		r.f.reads[r.blk] = b
	}
	b.views = append(b.views, r.view)
}

func (r *read) dropLocked() {
	if !r.dom.local {
		return
	}
	b := r.f.reads[r.blk]
	i := slices.Index(b.views, r.view)
	b.views = slices.Delete(b.views, i, i+1)
	if b.ended != nil {
		close(b.ended)
		b.ended = nil
	}
}

// end notes that the reply has been written, or that there is none.
func (r *read) end() {
	r.hold.Release()
	if !r.dom.local {
		return
	}
	c, now := r.f.c, time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.dropLocked()
	b := r.f.reads[r.blk]
	switch {
	case r.view > b.newView:
		b.oldDone = later(b.oldDone, b.newDone)
		b.newView, b.newDone = r.view, now
	case r.view == b.newView:
		b.newDone = now
	default:
		b.oldDone = now
	}
	r.f.sweepReads(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sweepReads forgets blocks that nobody reads, now and then. Core.mu must be held.
func (f *HeadFile) sweepReads(now time.Time) {
	if len(f.reads) < 256 || now.Sub(f.swept) < 10*f.c.opts.Grace {
		return
	}
	f.swept = now
	for blk, b := range f.reads {
		if len(b.views) == 0 && b.ended == nil && now.Sub(b.newDone) > 2*f.c.opts.Grace && now.Sub(b.oldDone) > 2*f.c.opts.Grace {
			delete(f.reads, blk)
		}
	}
}

// waitQuiet waits until no READ of the block under a view older than t is under way, and the grace since
// the last such answer has passed.
func (c *Core) waitQuiet(ctx context.Context, f *HeadFile, blk Blk, t zodb.Tid) error {
	for {
		c.mu.Lock()
		b := f.reads[blk]
		if b == nil {
			c.mu.Unlock()
			return nil
		}
		busy := slices.ContainsFunc(b.views, func(v zodb.Tid) bool { return v < t })
		done := b.oldDone
		if b.newView < t {
			done = later(done, b.newDone)
		}
		pause := c.opts.Grace - time.Since(done)
		var ended chan struct{}
		if busy {
			if b.ended == nil {
				b.ended = make(chan struct{})
			}
			ended = b.ended
		}
		c.mu.Unlock()
		switch {
		case busy:
			select {
			case <-ended:
			case <-ctx.Done():
				return ctx.Err()
			case <-c.failed:
				return ErrNotConn
			}
		case pause > 0:
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			case <-c.failed:
				return ErrNotConn
			}
		default:
			return nil
		}
	}
}
