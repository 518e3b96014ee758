package zcore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// tidHead as the revision of a pin means: back to the head file.
const tidHead = zodb.TidMax

// watchOnLink is what a link has to do with one file: its watch, and requests that run one by one.
type watchOnLink struct {
	w      *clientWatch       // Link.mu; nil if there is none
	todo   []request          // Link.mu; not begun
	cancel context.CancelFunc // Link.mu; ends the request that runs; nil if none does
}

type request struct {
	stream uint64
	watchproto.Request
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
func (l *Link) request(stream uint64, r watchproto.Request) {
	l.debug("watch", "file", r.Oid, "at", r.At, "stop", r.Stop)
	if why := l.refuse(r); why != "" {
		l.push(stream, "error "+setupError(r, why))
		return
	}
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
		} else {
			delete(l.byOid, r.Oid)
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
		go l.serve(ctx, on, r.Oid)
	}
}

// refuse says why a request is not even begun, or "". One about a file that is not known waits for nothing.
func (l *Link) refuse(r watchproto.Request) string {
	switch {
	case r.Stop:
		return ""
	case r.At > l.c.Head() && !l.c.wasKnown(r.Oid):
		return notKnown
	}
	if d := l.c.stalls.refusedFor(l.staller); d > 0 {
		l.c.nRefused.Add(1)
		return fmt.Sprintf("clients of %s did not acknowledge pins and made others wait: no watches for %s", l.staller, d.Round(time.Second))
	}
	return l.beginRequest()
}

// stopWatch does `watch f -`.
func (l *Link) stopWatch(stream uint64, r watchproto.Request, todo []request, w *clientWatch) {
	if w != nil {
		w.remove()
	}
	l.endRequests(len(todo))
	for _, t := range todo {
		l.push(t.stream, "error "+setupError(t.Request, errRemoved.Error()))
	}
	if !l.c.wasKnown(r.Oid) {
		l.push(stream, "error "+setupError(r, notKnown))
		return
	}
	l.push(stream, "ok")
}

// serve runs the requests for one file until there are none.
func (l *Link) serve(ctx context.Context, on *watchOnLink, oid zodb.Oid) {
	for {
		l.mu.Lock()
		if len(on.todo) == 0 {
			on.cancel()
			on.cancel = nil
			if on.w == nil && l.byOid[oid] == on {
				delete(l.byOid, oid)
			}
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
		l.endRequests(1)
		switch {
		case l.ctx.Err() != nil:
			l.mu.Lock()
			todo := on.todo
			on.todo = nil
			l.mu.Unlock()
			l.endRequests(len(todo))
			return // the client reads EOF
		case err == nil && l.pushOK(on, r.stream):
		default:
			if err == nil {
				err = errRemoved
			}
			l.push(r.stream, "error "+setupError(r.Request, err.Error()))
		}
	}
}

// pushOK tells that a watch is set up, unless its file has failed meanwhile: that is told after this, or instead.
func (l *Link) pushOK(on *watchOnLink, stream uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on.w == nil {
		return false
	}
	if !l.ended {
		l.out = append(l.out, watchproto.Line(stream, "ok")...)
	}
	l.wake()
	return true
}

const notKnown = "file not yet known to wcfs or is not a ZBigFile"

func setupError(r watchproto.Request, why string) string {
	at := r.At
	if r.Stop {
		at = ^zodb.Tid(0)
	}
	return fmt.Sprintf("setup watch f<%s> @%s: %s", r.Oid, at, why)
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

func (w *clientWatch) atNow() zodb.Tid {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// remove ends a watch: pins not sent yet are dropped, replies to sent ones ignored, readers that wait
// for them go on.
func (w *clientWatch) remove() {
	w.cancel() // first: who finds it gone counts on that
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
	w.hold.Release()
	w.hide()
	w.l.c.nWatch.Add(-1)
}
