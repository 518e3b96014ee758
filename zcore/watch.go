package zcore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"wcfs/zcore/history"
	"wcfs/zcore/watch"
	"wcfs/zcore/zodb"
)

// tidHead as the revision of a pin means: back to the head file.
const tidHead = zodb.TidMax

// watchTable has the watches of one file in one domain.
type watchTable struct {
	ws      map[*clientWatch]struct{}
	minAt   zodb.Tid // no watch has a lower at; it may lag behind
	entered int      // how many watches were ever added
}

// watchOnLink is what a link has to do with one file: its watch, and requests that run one by one.
type watchOnLink struct {
	w      *clientWatch       // Link.mu; nil if there is none
	todo   []request          // Link.mu; not begun
	cancel context.CancelFunc // Link.mu; ends the request that runs; nil if none does
}

type request struct {
	stream uint64
	watch.Request
}

// clientWatch is one client's view of one file.
type clientWatch struct {
	l    *Link
	f    *HeadFile
	hold *history.Hold // on at, or on base

	hasBase bool // over base instead of head
	base    zodb.Tid

	ctx    context.Context // ends when the watch is gone
	cancel context.CancelFunc

	mu   sync.Mutex
	at   zodb.Tid        // mu
	gone bool            // mu
	pins map[Blk]*pinned // mu
}

var (
	errRemoved   = errors.New("the watch was removed meanwhile")
	errGoingBack = errors.New("going back in history is forbidden")
)

// request takes a watch request. Requests for one file run one after another; `-` overtakes them.
func (l *Link) request(stream uint64, r watch.Request) {
	l.mu.Lock()
	on := l.byOid[r.Oid]
	if on == nil {
		on = &watchOnLink{}
		l.byOid[r.Oid] = on
	}
	if r.Stop {
		todo, w := on.todo, on.w
		on.todo, on.w = nil, nil
		if on.cancel != nil {
			on.cancel() // in the same critical section, so that it enters no watch any more
		}
		l.mu.Unlock()
		l.stopWatch(stream, r, todo, w)
		return
	}
	on.todo = append(on.todo, request{stream, r})
	idle := on.cancel == nil
	var ctx context.Context
	if idle {
		ctx, on.cancel = context.WithCancel(l.ctx)
	}
	l.mu.Unlock()
	if idle {
		go l.serve(ctx, on)
	}
}

// stopWatch does `watch f -`.
func (l *Link) stopWatch(stream uint64, r watch.Request, todo []request, w *clientWatch) {
	if w != nil {
		w.remove()
	}
	for _, t := range todo {
		l.push(t.stream, "error "+setupError(t.Request, errRemoved.Error()))
	}
	if l.c.file(r.Oid) == nil {
		l.push(stream, "error "+setupError(r, notKnown))
		return
	}
	l.push(stream, "ok")
}

// serve runs the requests for one file until there are none.
func (l *Link) serve(ctx context.Context, on *watchOnLink) {
	for {
		l.mu.Lock()
		if len(on.todo) == 0 {
			on.cancel()
			on.cancel = nil
			l.mu.Unlock()
			return
		}
		if ctx.Err() != nil { // cancelled by `-`, and asked again since
			on.cancel()
			ctx, on.cancel = context.WithCancel(l.ctx)
		}
		r := on.todo[0]
		on.todo = on.todo[1:]
		l.mu.Unlock()
		err := l.setup(ctx, on, r)
		switch {
		case l.ctx.Err() != nil:
			return // the client reads EOF
		case err != nil:
			l.push(r.stream, "error "+setupError(r.Request, err.Error()))
		default:
			l.push(r.stream, "ok")
		}
	}
}

const notKnown = "file not yet known to wcfs or is not a ZBigFile"

func setupError(r watch.Request, why string) string {
	at := r.At
	if r.Stop {
		at = ^zodb.Tid(0)
	}
	return fmt.Sprintf("setup watch f<%s> @%s: %s", r.Oid, at, why)
}

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
	w, err := l.enter(ctx, on, f, r, hold)
	if err != nil {
		hold.Release()
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
	if err != nil {
		if ctx.Err() == nil && w.ctx.Err() == nil {
			c.fail(fmt.Errorf("watch f<%s> @%s: %w", r.Oid, r.At, err))
		}
		return errRemoved
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
	return nil
}

// checkAt says whether a file can be watched as of at, which is announced and held.
func (l *Link) checkAt(r request) (*HeadFile, error) {
	c := l.c
	head := c.Head()
	if tail, _ := c.tail.Bounds(); r.At < tail || c.tail.Unknown(r.At) {
		return nil, fmt.Errorf("too far away back from head/at (@%s); δt = %s", head, head.Time().Sub(r.At.Time()))
	}
	f := c.file(r.Oid)
	if f == nil {
		return nil, errors.New(notKnown)
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

// enter makes the watch known to readers, or sets the at of the one that is. It takes over hold.
func (l *Link) enter(ctx context.Context, on *watchOnLink, f *HeadFile, r request, hold *history.Hold) (*clientWatch, error) {
	l.mu.Lock()
	w := on.w
	l.mu.Unlock()
	if w != nil && (w.hasBase != r.HasBase || w.base != r.Base) {
		if err := w.replace(ctx, on, r.At); err != nil {
			return nil, err
		}
		w = nil
	}
	if w != nil {
		return w, w.advance(r.At, hold)
	}
	w = &clientWatch{l: l, f: f, hold: hold, at: r.At, hasBase: r.HasBase, base: r.Base, pins: map[Blk]*pinned{}}
	w.ctx, w.cancel = context.WithCancel(l.ctx)
	l.mu.Lock()
	if ctx.Err() != nil {
		l.mu.Unlock()
		return nil, errRemoved
	}
	on.w = w
	l.mu.Unlock()
	l.c.nWatch.Add(1)
	w.show()
	return w, nil
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
	w.l.mu.Lock()
	if on.w == w {
		on.w = nil
	}
	w.l.mu.Unlock()
	w.remove()
	return nil
}

// pending returns the last message of each block that is not acknowledged.
func (w *clientWatch) pending() []*pinMsg {
	w.mu.Lock()
	defer w.mu.Unlock()
	var msgs []*pinMsg
	for _, p := range w.pins {
		if n := len(p.queue); n > 0 {
			msgs = append(msgs, p.queue[n-1])
		}
	}
	return msgs
}

// show makes the watch known to readers, hide undoes it.
func (w *clientWatch) show() {
	if !w.hasBase {
		w.f.addWatch(w, w.at)
	} else {
		s := w.set()
		s.mu.Lock()
		s.watches[w] = struct{}{}
		s.mu.Unlock()
	}
	if w.ctx.Err() != nil { // removed meanwhile
		w.hide()
	}
}

func (w *clientWatch) hide() {
	if !w.hasBase {
		w.f.dropWatch(w)
		return
	}
	s := w.set()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, w)
}

func (f *HeadFile) addWatch(w *clientWatch, at zodb.Tid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.watches[w.l.dom]
	if t == nil {
		t = &watchTable{ws: map[*clientWatch]struct{}{}, minAt: at}
		f.watches[w.l.dom] = t
	}
	t.ws[w] = struct{}{}
	t.entered++
	t.minAt = min(t.minAt, at)
}

// watchesBelow returns the watches of a domain whose at may be < rev.
func (f *HeadFile) watchesBelow(dom *Domain, rev zodb.Tid) []*clientWatch {
	f.mu.Lock()
	t := f.watches[dom]
	if t == nil || rev <= t.minAt {
		f.mu.Unlock()
		return nil
	}
	ws := make([]*clientWatch, 0, len(t.ws))
	for w := range t.ws {
		ws = append(ws, w)
	}
	entered := t.entered
	f.mu.Unlock()
	least := zodb.TidMax
	ws = slices.DeleteFunc(ws, func(w *clientWatch) bool {
		at := w.atNow()
		least = min(least, at)
		return at >= rev
	})
	f.mu.Lock()
	if t.entered == entered { // at of a watch only grows
		t.minAt = max(t.minAt, least)
	}
	f.mu.Unlock()
	return ws
}

func (w *clientWatch) atNow() zodb.Tid {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// remove ends a watch: pins not sent yet are dropped, replies to sent ones ignored, readers that wait
// for them go on.
func (w *clientWatch) remove() {
	w.mu.Lock()
	if w.gone {
		w.mu.Unlock()
		return
	}
	w.gone = true
	for _, p := range w.pins {
		if p.target != tidHead {
			w.l.c.nPinned.Add(-1)
		}
	}
	w.mu.Unlock()
	w.cancel()
	w.hold.Release()
	w.hide()
	w.l.c.nWatch.Add(-1)
}

func (f *HeadFile) dropWatch(w *clientWatch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.watches[w.l.dom]
	if t == nil {
		return
	}
	delete(t.ws, w)
	if len(t.ws) == 0 {
		delete(f.watches, w.l.dom)
	}
}

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
		if err != nil {
			return nil, err
		}
		want[blk] = rev
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for blk := range w.pins { // pinned, and not changed in (at, v]
		if _, ok := want[blk]; !ok {
			want[blk] = tidHead
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
