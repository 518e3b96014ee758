package zcore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// Blk is the number of a block in its file.
type Blk = zdata.Blk

// HeadFile is a bigfile under head/. Once looked up it is known until it fails or the server ends.
type HeadFile struct {
	c *Core
	h *history.File

	shown   atomic.Int64               // largest size that was ever announced, bytes
	uploads chan struct{}              // bounds uploads at once
	failure atomic.Pointer[FileFailed] // set once, under Core.mu
	uses    atomic.Int64               // how many have it open
	began   int64                      // size when it was looked up

	nReads, bytes, commits, changed atomic.Int64 // READs, what they returned; commits that changed it, and blocks

	reads map[Blk]*blkReads // Core.mu
	swept time.Time         // Core.mu

	mu        sync.Mutex
	watches   map[*Domain]*watchTable   // mu
	all       map[*clientWatch]struct{} // mu; those over a base too
	cacheLock map[Blk]chan struct{}     // mu; held per block over uploads and invalidations
	small     map[Blk]struct{}          // mu; blocks that had one small READ, at most maxSmall
	keeps     []*keep                   // mu; old blocks on their way to @rev

	recent     [recentBlks]Blk // mu; where readers in order are
	nextRecent int             // mu; the next of recent to be replaced
}

// FileAttr are the attributes of a bigfile.
type FileAttr struct {
	Size    int64 // bytes
	Blksize int64 // bytes
	Mtime   time.Time
}

// Oid is the ZBigFile's.
func (f *HeadFile) Oid() zodb.Oid { return f.h.Oid }

// Lookup finds the bigfile oid at head. ErrInvalid when it is none, ErrNotExist when it is none any more, ErrIO when
// the database fails.
func (c *Core) Lookup(ctx context.Context, oid zodb.Oid) (*HeadFile, error) {
	if c.isFailed() {
		return nil, ErrNotConn
	}
	if f := c.file(oid); f != nil {
		return f, nil
	}
	ctx, done := c.within(ctx)
	defer done()
	for {
		h, wait, err := c.lookupOnce(ctx, oid)
		switch {
		case err != nil:
			return nil, c.lostError(oid, err)
		case wait == 0:
			if f := c.addFile(h); f != nil {
				return f, nil
			}
			continue // it failed meanwhile
		}
		if err := c.waitView(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// lookupOnce looks a file up as of the current view; wait is the view to wait for if that is outdated.
func (c *Core) lookupOnce(ctx context.Context, oid zodb.Oid) (h *history.File, wait zodb.Tid, err error) {
	hold := c.tail.Hold(0)
	defer hold.Release()
	c.mu.Lock()
	v := c.view
	c.mu.Unlock()
	bf, err := c.tail.BigFile(ctx, oid, v)
	if err != nil {
		return nil, 0, c.lookupError(ctx, err, oid, v)
	}
	epoch, err := c.tail.Epoch(ctx, bf)
	if err != nil {
		return nil, 0, c.ioError(ctx, err, "lookup", oid, v)
	}
	size, path, err := c.tail.Size(ctx, bf, v)
	if err != nil {
		return nil, 0, c.ioError(ctx, err, "lookup", oid, v)
	}
	h, wait = c.tail.AddFile(v, bf, epoch, size, path)
	return h, wait, nil
}

// lookupError tells objects that are no bigfiles from a database that fails.
func (c *Core) lookupError(ctx context.Context, err error, oid zodb.Oid, at zodb.Tid) error {
	if zodb.IsAbsent(err) || errors.Is(err, zdata.ErrNotBigFile) {
		return ErrInvalid
	}
	return c.ioError(ctx, err, "lookup", oid, at)
}

// addFile returns the known file, or makes h known; nil if that is lost.
func (c *Core) addFile(h *history.File) *HeadFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[h.Oid]; f != nil {
		return f
	}
	if h.Lost() {
		return nil
	}
	size, _ := c.tail.Attr(h, c.view)
	f := &HeadFile{
		c: c, h: h, began: size, uploads: make(chan struct{}, uploads), reads: map[Blk]*blkReads{},
		watches: map[*Domain]*watchTable{}, all: map[*clientWatch]struct{}{}, cacheLock: map[Blk]chan struct{}{},
		small: map[Blk]struct{}{},
	}
	c.files[h.Oid] = f
	delete(c.lost, h.Oid)
	return f
}

// Attr waits neither for pins nor for page cache work.
func (f *HeadFile) Attr(ctx context.Context) (FileAttr, error) {
	if f.c.isFailed() {
		return FileAttr{}, ErrNotConn
	}
	if err := f.failed(); err != nil {
		return FileAttr{}, err
	}
	size, mtime := f.sizeNow()
	for old := f.shown.Load(); old < size && !f.shown.CompareAndSwap(old, size); old = f.shown.Load() {
	}
	return FileAttr{Size: size, Blksize: f.h.Blksize, Mtime: mtime.StatTime()}, nil
}

func (f *HeadFile) sizeNow() (size int64, mtime zodb.Tid) {
	f.c.mu.Lock()
	v := f.c.view
	f.c.mu.Unlock()
	return f.c.tail.Attr(f.h, v)
}

// Read reads [off, off+size) for a client in dom; it may wait for pins of dom's watches.
//
// Through a page cache a read inside a size that was once announced is answered in full, with zeros
// past the end: a short answer would leave pages of zeros behind and shrink the file.
func (f *HeadFile) Read(ctx context.Context, dom *Domain, size int, off int64) (Data, error) {
	if f.c.isFailed() {
		return Data{}, ErrNotConn
	}
	if dom.Failed() {
		return Data{}, errDomainFailed
	}
	if err := f.failed(); err != nil {
		return Data{}, err
	}
	end, _ := f.sizeNow()
	if dom.local {
		end = max(end, f.shown.Load())
	}
	if off < 0 || off >= end || size <= 0 {
		return Data{}, nil
	}
	size = int(min(int64(size), end-off))
	ctx, done := f.c.within(ctx)
	defer done()

	parts := splitBlocks(off, size, f.h.Blksize)
	got := make([]blkData, len(parts))
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i := range parts[1:] {
		wg.Go(func() { got[i+1], errs[i+1] = f.readBlk(ctx, dom, parts[i+1].blk) })
	}
	got[0], errs[0] = f.readBlk(ctx, dom, parts[0].blk)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, g := range got {
			if g.r != nil {
				g.end()
			}
		}
		err := firstError(errs)
		f.noteErred(dom, parts, err)
		f.c.meter.front(dom).errors.Add(1)
		return Data{}, err
	}
	f.nReads.Add(1)
	f.bytes.Add(int64(size))
	dom.noteRead(size)
	f.c.meter.front(dom).head.note(size)
	d := f.answer(dom, size, parts, got)
	d.Failed = func() { f.noteErred(dom, parts, ErrIO) }
	return d, nil
}

// noteErred notes that a READ ends in an error. In a file that has failed the next one does too, and another file
// may have its name by then.
func (f *HeadFile) noteErred(dom *Domain, parts []part, err error) {
	if f.failed() == nil {
		dom.erred.note(0, f.Oid(), parts, err)
	}
}

// answer makes the reply; what follows it is done once it is written.
func (f *HeadFile) answer(dom *Domain, size int, parts []part, got []blkData) Data {
	var d Data
	for i, p := range parts {
		d.Pieces = f.c.appendPieces(d.Pieces, got[i].b, p.off, p.len)
		if p.off == 0 && size > f.c.smallRead {
			f.goOn(got[i])
		}
	}
	d.Done = func() {
		for _, g := range got {
			g.end()
		}
		if dom.local && f.c.pc != nil && size <= f.c.smallRead && int64(size) < f.h.Blksize {
			for _, g := range got {
				f.maybeUpload(g)
			}
		}
	}
	return d
}

// goOn has what somebody who reads in order will read next made ready.
func (f *HeadFile) goOn(g blkData) {
	switch {
	case g.b.plain.File != nil:
		g.b.readAhead()
	case !g.m.Hole && f.follows(g.r.blk):
		f.prefetch(g.r.blk, g.r.view)
	}
}

// maybeUpload has the whole block of a small READ uploaded in the background. If the READ was served from the
// database file without loading the block, upload it only after a second small READ, or when the server is
// idle.
func (f *HeadFile) maybeUpload(g blkData) {
	end, _ := f.sizeNow()
	if g.m.Hole || f.h.Blksize%f.c.pageSize != 0 || (int64(g.r.blk)+1)*f.h.Blksize > end {
		return
	}
	if g.b.plain.File != nil && !f.readBefore(g.r.blk) {
		go f.c.uploadLater(f, g)
		return
	}
	go f.c.upload(f, g)
}

// readBefore tells whether a block lately had a small READ before this one.
func (f *HeadFile) readBefore(blk Blk) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, before := f.small[blk]
	switch {
	case before:
		delete(f.small, blk)
	case len(f.small) >= maxSmall:
		clear(f.small)
		fallthrough
	default:
		f.small[blk] = struct{}{}
	}
	return before
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// blkData is a block as a reader may be shown it: every older watch of its domain is pinned.
type blkData struct {
	r      *read
	m      history.Mapping
	b      content
	serial zodb.Tid // of the ZBlk
}

// end is called when the reply has been written, or when there is none.
func (g blkData) end() {
	g.r.end()
	g.b.release()
}

// readBlk is the order of events of a read: view, look up, track and check, load, pins. One that fails on the way
// waits for pins too.
func (f *HeadFile) readBlk(ctx context.Context, dom *Domain, blk Blk) (blkData, error) {
	c := f.c
	r, err := f.beginRead(dom, blk)
	if err != nil {
		return blkData{}, err
	}
	wait := pinWait{}.least(dom.erred.patience(0, f.Oid(), blk, c.opts.PinTimeout))
	g, err := f.loadBlk(ctx, r)
	if failed := f.failed(); failed != nil { // for good: no READ of the file waits for pins
		g.end()
		return blkData{}, failed
	}
	if err == nil {
		c.step(StepReadLoad)
	}
	msgs, perr := f.pinReaders(ctx, dom, blk, r.view)
	err = c.awaitPins(ctx, msgs, errors.Join(err, perr), wait)
	if err == nil && dom.Failed() { // the watch that did not acknowledge is gone by now, and was not asked
		err = errDomainFailed
	}
	if failed := f.failed(); failed != nil { // as above
		err = failed
	}
	if err != nil {
		g.end()
		return blkData{}, err
	}
	c.step(StepReadPins)
	return g, nil
}

// loadBlk looks a block up, tracks and loads it.
func (f *HeadFile) loadBlk(ctx context.Context, r *read) (g blkData, err error) {
	c := f.c
	g.r = r
	if g.m, err = f.trackBlk(ctx, r); err != nil {
		return g, err
	}
	c.step(StepReadTrack)
	if g.m.Hole {
		return g, nil
	}
	var hash uint64
	if g.b, g.serial, hash, err = c.loadContent(ctx, g.m.ZBlk, r.view, f.h.Blksize); err != nil {
		return g, c.ioError(ctx, err, "read block", g.m.ZBlk, r.view)
	}
	c.tail.Loaded(f.h, r.blk, r.view, g.m, g.serial, hash)
	return g, nil
}

// trackBlk looks the block up and tracks it, until no published commit after the view touches that.
func (f *HeadFile) trackBlk(ctx context.Context, r *read) (history.Mapping, error) {
	c := f.c
	for {
		c.step(StepReadView)
		m, path, err := c.tail.Lookup(ctx, f.h.BigFile, r.blk, r.view)
		if err != nil {
			return m, c.ioError(ctx, err, "look up block", f.Oid(), r.view)
		}
		c.step(StepReadFound)
		wait := c.tail.Track(f.h, r.blk, r.view, m, path)
		if wait == 0 {
			return m, nil
		}
		if err := c.waitView(ctx, wait); err != nil {
			return m, err
		}
		if err := f.failed(); err != nil {
			return m, err
		}
		r.renew()
	}
}

// part is the piece of a read that falls into one block.
type part struct {
	blk Blk
	off int64 // in the block
	len int
}

func splitBlocks(off int64, size int, blksize int64) []part {
	var parts []part
	for size > 0 {
		o := off % blksize
		n := int(min(int64(size), blksize-o))
		parts = append(parts, part{Blk(off / blksize), o, n})
		off, size = off+int64(n), size-n
	}
	return parts
}

// LoadAt loads an object as of at <= head, for what is not a bigfile's. An object that is absent or damaged
// gives the driver's error; ErrIO when the database fails.
func (c *Core) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	if c.isFailed() {
		return zodb.Record{}, ErrNotConn
	}
	ctx, done := c.within(ctx)
	defer done()
	rec, err := c.stor.LoadAt(ctx, oid, at)
	if err == nil || isAnswer(err) {
		c.noteAnswer()
		return rec, err
	}
	return zodb.Record{}, c.ioError(ctx, err, "load", oid, at)
}

// LastTid returns the last transaction not after at. A storage that cannot tell has at itself, or the head: the data as of
// it is the same. ErrNotExist when there was none yet.
func (c *Core) LastTid(ctx context.Context, at zodb.Tid) (zodb.Tid, error) {
	if c.isFailed() {
		return 0, ErrNotConn
	}
	head := c.Head()
	ch, ok := c.stor.(zodb.Chronicler)
	if at >= head || !ok {
		return min(at, head), nil
	}
	ctx, done := c.within(ctx)
	defer done()
	tid, err := ch.LastTid(ctx, at)
	switch {
	case err == nil && tid == 0:
		return 0, ErrNotExist
	case err == nil:
		c.noteAnswer()
		return tid, nil
	}
	return 0, c.ioError(ctx, err, "last transaction", 0, at)
}
