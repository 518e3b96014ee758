package zcore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// FileFailed says that a bigfile is not served under head any more as what it was when it was looked up: it was
// deleted, or its block size, its table or the shape of its state was replaced, or a commit to it cannot be read.
// It counts as ErrIO.
//
// The order of events: the failure is noted, so that no READ begins and none is answered well; then the
// file's watches end, whose pins were what READs under way wait for; then READs under way have ended and
// pages are dropped; then the file is forgotten, so that a look-up finds what is there now; then head is
// announced.
type FileFailed struct {
	Oid   zodb.Oid
	At    zodb.Tid // the commit
	Since time.Time
	Cause error
}

func (e *FileFailed) Error() string {
	return fmt.Sprintf("bigfile %s failed at %s: %v; look it up again", e.Oid, e.At, e.Cause)
}

// Is makes it an ErrIO. Its cause does not count: the cause belongs to another time.
func (e *FileFailed) Is(target error) bool { return target == ErrIO }

// Failure returns why the file has failed, nil if it has not.
func (f *HeadFile) Failure() *FileFailed { return f.failure.Load() }

// failed is Failure as an error.
func (f *HeadFile) failed() error {
	if e := f.failure.Load(); e != nil {
		return e
	}
	return nil
}

// Use tells how many more have the file open now.
func (f *HeadFile) Use(n int64) { f.uses.Add(n) }

// perFile runs a step of a commit until it goes well, failing the files that stand in its way. It belongs to
// the goroutine that applies commits.
func (c *Core) perFile(ctx context.Context, what string, com zodb.Commit, load func() error) error {
	for {
		err := c.retry(ctx, what, load)
		var of *history.FileError
		if ctx.Err() != nil || !errors.As(err, &of) || !isAnswer(err) || c.endsAll(err) {
			return err
		}
		for _, h := range of.Files {
			c.failFile(h, com.Tid, of.Err)
		}
	}
}

// endsAll tells whether an error about a file is to end the service of all, as clients of old count on.
func (c *Core) endsAll(err error) bool {
	var changed *history.FileChanged
	return c.opts.FileChangeEndsAll && errors.As(err, &changed)
}

// failFile has one file fail, whether or not it is known by more than its history.
func (c *Core) failFile(h *history.File, at zodb.Tid, cause error) {
	e := &FileFailed{Oid: h.Oid, At: at, Since: time.Now(), Cause: cause}
	c.mu.Lock()
	sweep := c.tail.Lose(h) // in the same critical section, so that nobody makes it a HeadFile any more
	f := c.files[h.Oid]
	if f != nil && f.h == h {
		f.failure.Store(e)
		c.failing = append(c.failing, f)
		c.vitals.noteFailed(f)
	} else {
		f = nil
	}
	c.mu.Unlock()
	sweep()
	if f == nil {
		return
	}
	c.step(StepFileLost)
	c.log.Error("bigfile failed; others are served on", "file", h.Oid, "at", at, "cause", cause)
	f.failWatches(e)
}

// failWatches ends the watches of a failed file, each with a line that says so. Their links go on.
func (f *HeadFile) failWatches(e *FileFailed) {
	f.mu.Lock()
	ws := make([]*clientWatch, 0, len(f.all))
	for w := range f.all {
		ws = append(ws, w)
	}
	f.mu.Unlock()
	for _, w := range ws {
		w.l.dropFailed(w, e)
	}
}

// maxFailLine bounds what is told of a failure: clients have buffers for lines.
const maxFailLine = 500

// dropFailed ends a watch of a failed file. The line is in the order of what else is told of the file: no pin comes after it.
func (l *Link) dropFailed(w *clientWatch, e *FileFailed) {
	at := w.atNow()
	w.remove()
	l.c.step(StepWatchDropped)
	l.mu.Lock()
	if on := l.byOid[w.f.Oid()]; on != nil && on.w == w {
		on.w = nil
		if on.cancel == nil {
			delete(l.byOid, w.f.Oid())
		}
		if !l.ended {
			msg := fmt.Sprintf("error: watch f<%s> @%s ended: %v", w.f.Oid(), at, e)
			l.out = append(l.out, watchproto.Line(0, msg[:min(len(msg), maxFailLine)])...)
		}
	}
	l.mu.Unlock()
	l.wake()
}

// forgetFailed drops what the page cache has of the files that the batch made fail, and forgets them.
func (c *Core) forgetFailed(ctx context.Context) error {
	c.mu.Lock()
	files := c.failing
	c.failing = nil
	c.mu.Unlock()
	for _, f := range files {
		if err := c.dropAll(ctx, f); err != nil {
			return err
		}
		c.mu.Lock()
		if c.files[f.Oid()] == f {
			delete(c.files, f.Oid())
			c.lost[f.Oid()] = f
		}
		c.mu.Unlock()
	}
	return c.dropNames(ctx, files)
}

// dropAll returns when no READ of a failed file is under way, and no page of it is left.
func (c *Core) dropAll(ctx context.Context, f *HeadFile) error {
	c.step(StepInvalidate)
	c.mu.Lock()
	blks := make([]Blk, 0, len(f.reads))
	for blk := range f.reads {
		blks = append(blks, blk)
	}
	c.mu.Unlock()
	for _, blk := range blks {
		if err := c.waitQuiet(ctx, f, blk, tidHead); err != nil {
			return err
		}
	}
	if c.pc == nil {
		return nil
	}
	f.mu.Lock()
	var uploads []chan struct{}
	for _, busy := range f.cacheLock { // of those that begin later none finds the block unchanged
		uploads = append(uploads, busy)
	}
	f.mu.Unlock()
	for _, busy := range uploads {
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.pc.Drop(f.Oid())
}

// nameWait is how long a commit waits for the kernel to drop the names of failed files: somebody may be looking a
// name up in that directory, in a database that does not answer. An old name leads to EIO.
const nameWait = time.Second

// dropNames has the kernel look files up anew.
func (c *Core) dropNames(ctx context.Context, files []*HeadFile) error {
	if c.pc == nil || len(files) == 0 {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, f := range files {
			errs = append(errs, c.pc.DropName(f.Oid()))
		}
		done <- errors.Join(errs...)
	}()
	late := time.NewTimer(nameWait)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wasKnown reports whether a file is known, or was.
func (c *Core) wasKnown(oid zodb.Oid) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[oid] != nil || c.lost[oid] != nil
}

// lostError is what a look-up answers that found no bigfile: there is no such file any more if there was one.
func (c *Core) lostError(oid zodb.Oid, err error) error {
	if !errors.Is(err, ErrInvalid) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost[oid] != nil {
		return ErrNotExist
	}
	return err
}
