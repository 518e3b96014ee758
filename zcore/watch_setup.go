package zcore

import (
	"context"
	"errors"
	"fmt"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// setup does `watch f @at`; it returns when every initial pin is acknowledged.
func (l *Link) setup(ctx context.Context, on *watchOnLink, r request) error {
	c := l.c
	if err := c.waitHead(ctx, r.At); err != nil {
		return errRemoved
	}
	hold := c.tail.Hold(r.least())
	c.step(StepWatchHold)
	f, err := l.checkAt(r)
	if err != nil {
		hold.Release()
		return err
	}
	c.step(StepWatchFile)
	w, known, err := l.enter(ctx, on, f, r, hold)
	if err != nil {
		hold.Release()
		return err
	}
	if err := f.failed(); err != nil { // before or after that ended the watches it knew
		w.drop(on)
		return err
	}
	c.step(StepWatchEnter)
	c.mu.Lock()
	v := c.view
	c.mu.Unlock()
	c.step(StepWatchView)
	var msgs []*pinMsg
	if w.hasBase {
		msgs, err = w.pinMarked(ctx, r.At)
	} else {
		msgs, err = w.pinChanged(ctx, r.At, v)
	}
	if failed := f.failed(); failed != nil {
		return failed
	}
	if err != nil {
		return l.unprotected(ctx, on, w, known, r, err)
	}
	for _, m := range msgs {
		select {
		case <-m.done:
			if m.err != nil {
				return m.err
			}
		case <-ctx.Done():
			return errRemoved
		}
	}
	if ctx.Err() != nil {
		return errRemoved
	}
	return f.failed()
}

// unprotected ends a watch for which it cannot be found out what to pin: history was packed away, or data
// is damaged. If it was there before, the client may be using it, and is told in the strongest way.
func (l *Link) unprotected(ctx context.Context, on *watchOnLink, w *clientWatch, known bool, r request, err error) error {
	if ctx.Err() != nil || w.ctx.Err() != nil {
		return errRemoved
	}
	l.c.log.Error("cannot tell what a watch must pin", "file", r.Oid, "at", r.At, "cause", err)
	if zodb.IsAbsent(err) {
		err = tooFar(r.At, l.c.Head())
	}
	if known {
		l.hangUp(setupError(r.Request, err.Error()))
		return err
	}
	w.drop(on)
	return err
}

func tooFar(at, head zodb.Tid) error {
	return fmt.Errorf("too far away back from head/at (@%s); δt = %s", head, head.Time().Sub(at.Time()))
}

// checkAt says whether a file can be watched as of at, which is announced and held.
func (l *Link) checkAt(r request) (*HeadFile, error) {
	c := l.c
	head := c.Head()
	if tail, _ := c.tail.Bounds(); r.At < tail || c.tail.Unknown(r.At) {
		return nil, tooFar(r.At, head)
	}
	f := c.file(r.Oid)
	if f == nil {
		return nil, errors.New(notKnown)
	}
	if err := f.failed(); err != nil {
		return nil, err
	}
	if f.h.Epoch > r.At {
		return nil, fmt.Errorf("file epoch detected @%s in between (at,head=@%s]", f.h.Epoch, head)
	}
	if r.HasBase {
		return f, l.checkBase(r.Request, f)
	}
	if l.baseOnly {
		return nil, errors.New("only base watches can be had here")
	}
	return f, nil
}

// least is the oldest tid that the watch depends on.
func (r request) least() zodb.Tid {
	if r.HasBase {
		return min(r.Base, r.At)
	}
	return r.At
}

// enter makes the watch known to readers, or sets the at of the one that is. It takes over hold. known tells
// that the client watched the file before.
func (l *Link) enter(ctx context.Context, on *watchOnLink, f *HeadFile, r request, hold *history.Hold) (w *clientWatch, known bool, err error) {
	l.mu.Lock()
	w = on.w
	l.mu.Unlock()
	if w != nil && (w.hasBase != r.HasBase || w.base != r.Base) {
		if err := w.replace(ctx, on, r.At); err != nil {
			return nil, false, err
		}
		w, known = nil, true
	}
	if w != nil {
		return w, true, w.advance(r.At, hold)
	}
	w = &clientWatch{l: l, f: f, hold: hold, at: r.At, hasBase: r.HasBase, base: r.Base, pins: map[Blk]*pinned{}}
	w.ctx, w.cancel = context.WithCancel(l.ctx)
	l.mu.Lock()
	if ctx.Err() != nil {
		l.mu.Unlock()
		return nil, false, errRemoved
	}
	on.w = w
	l.mu.Unlock()
	l.c.nWatch.Add(1)
	w.show()
	return w, known, nil
}

// advance sets at; on success it takes over hold.
func (w *clientWatch) advance(at zodb.Tid, hold *history.Hold) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.gone:
		return errRemoved
	case at < w.at:
		return errGoingBack
	}
	w.at = at
	if !w.hasBase {
		w.hold.Move(at)
	}
	hold.Release()
	return nil
}

// replace ends a watch whose file is to be watched over another base, after its pins are acknowledged.
func (w *clientWatch) replace(ctx context.Context, on *watchOnLink, at zodb.Tid) error {
	if at < w.atNow() {
		return errGoingBack
	}
	if err := w.l.c.waitPins(ctx, w.pending()); err != nil {
		return errRemoved
	}
	w.drop(on)
	return nil
}

// drop ends a watch on behalf of a request. It is removed first: from when a `-` does not find it any more,
// no pin of it may be sent.
func (w *clientWatch) drop(on *watchOnLink) {
	w.remove()
	w.l.c.step(StepWatchDropped)
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	if on.w == w {
		on.w = nil
	}
}

// damaged tells whether an error says that something is there and cannot be read.
func damaged(err error) bool { return err != nil && isAnswer(err) && !zodb.IsAbsent(err) }

// pinChanged has every tracked block that changed after at pinned, and those no longer needed
// unpinned; at is the watch's, and v a view taken after that was set. It returns what to wait for.
func (w *clientWatch) pinChanged(ctx context.Context, at, v zodb.Tid) ([]*pinMsg, error) {
	c := w.l.c
	var blks []Blk
	err := c.retry(ctx, "watch", func() (err error) {
		blks, err = c.tail.ChangedSince(ctx, w.f.h, at, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	want := make(map[Blk]zodb.Tid, len(blks))
	for _, blk := range blks {
		var rev zodb.Tid
		err := c.retry(ctx, "watch", func() (err error) {
			rev, err = c.tail.BlkRevAt(ctx, w.f.h, blk, at)
			return err
		})
		if ctx.Err() == nil && damaged(err) { // this block's loss
			rev, err = at, nil
		}
		if err != nil {
			return nil, err
		}
		want[blk] = rev
	}
	if w.f.h.Lost() { // what changed is not known any more
		return nil, errRemoved
	}
	c.step(StepWatchChanged)
	w.mu.Lock()
	defer w.mu.Unlock()
	for blk, p := range w.pins {
		if _, ok := want[blk]; ok {
			continue
		}
		want[blk] = tidHead // not changed in (at, v]
		if p.at == at {     // but by a reader's view, who had it pinned meanwhile: that stays, and is waited for
			want[blk] = p.target
		}
	}
	var msgs []*pinMsg
	for blk, rev := range want {
		if m := w.wantLocked(blk, rev, at, v); m != nil {
			msgs = append(msgs, m)
		}
	}
	return msgs, nil
}
