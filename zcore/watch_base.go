package zcore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// A client whose page cache this server does not control (a guest) maps an immutable file as its base
// instead of head. Blocks that differ between base and the client's at are pinned when they were, or as
// they are, read under the base in the client's domain.

// BaseFile is base/<tid>/bigfile/<oid>: the bytes of @<tid>, whose reads may wait for base watches.
type BaseFile struct {
	*RevFile
	f *HeadFile
}

// baseKey names the readers of one file under one base.
type baseKey struct {
	base zodb.Tid
	oid  zodb.Oid
}

// baseSet has the blocks that a domain read of one file under one base, and the watches over that.
// It lives as long as the domain: the domain's kernel may still cache the blocks.
type baseSet struct {
	mu      sync.Mutex
	read    map[Blk]bool              // mu; true: and a read of it was answered
	watches map[*clientWatch]struct{} // mu
	bad     map[Blk]struct{}          // mu; a client that cannot be killed did not acknowledge: EIO
}

// LookupBase finds the bigfile oid as of base, T0 <= base <= head. It becomes known under head too.
func (c *Core) LookupBase(ctx context.Context, base zodb.Tid, oid zodb.Oid) (*BaseFile, error) {
	if base < c.T0() {
		return nil, ErrNotExist
	}
	r, err := c.LookupRev(ctx, base, oid)
	if err != nil {
		return nil, err
	}
	f, err := c.Lookup(ctx, oid)
	if err != nil {
		return nil, err
	}
	if f.h.Epoch > base { // it is another file by now
		return nil, ErrInvalid
	}
	return &BaseFile{r, f}, nil
}

// base returns the set for a file under a base, made at need; nil when there are too many.
func (d *Domain) base(key baseKey) *baseSet {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.bases[key]
	if s == nil && len(d.bases) >= d.maxBases {
		return nil
	}
	if s == nil {
		s = &baseSet{read: map[Blk]bool{}, watches: map[*clientWatch]struct{}{}, bad: map[Blk]struct{}{}}
		d.bases[key] = s
	}
	return s
}

// mark notes a block as read and returns the watches to be asked, in one critical section: a watch that
// enters later, or moves to a later at, sees the mark. Nobody is asked about a block that was answered before: the kernel may have
// had it since, so it is the set-up of such a watch that waits. A page fault that reads a page twice can count on that:
// the second time it keeps all threads of its process from mapping anything.
func (s *baseSet) mark(blk Blk) (ws []*clientWatch, bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, bad = s.bad[blk]
	if s.read[blk] {
		return nil, bad
	}
	s.read[blk] = false
	for w := range s.watches {
		ws = append(ws, w)
	}
	return ws, bad
}

// answered notes that a read of the blocks is answered: every watch that was asked has acknowledged. It must not
// be if one has failed to meanwhile: that watch may have been gone when it was its turn to be asked.
func (s *baseSet) answered(parts []part) (bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		if _, bad := s.bad[p.blk]; bad {
			return true
		}
	}
	for _, p := range parts {
		s.read[p.blk] = true
	}
	return false
}

// marked returns the blocks read.
func (s *baseSet) marked() []Blk {
	s.mu.Lock()
	defer s.mu.Unlock()
	blks := make([]Blk, 0, len(s.read))
	for blk := range s.read {
		blks = append(blks, blk)
	}
	return blks
}

// Read reads for a client in dom; it waits until every base watch of dom that must show another
// revision of the blocks has been told so and has acknowledged.
func (b *BaseFile) Read(ctx context.Context, dom *Domain, size int, off int64) (Data, error) {
	c := b.f.c
	if dom.Failed() {
		return Data{}, errDomainFailed
	}
	if err := b.f.failed(); err != nil { // nobody says any more what watches over it must not see
		return Data{}, err
	}
	if off < 0 || off >= b.size || size <= 0 {
		return b.RevFile.Read(ctx, size, off)
	}
	wctx, done := c.within(ctx)
	defer done()
	set := dom.base(baseKey{b.rev, b.f.Oid()})
	if set == nil {
		c.nRefused.Add(1)
		return Data{}, fmt.Errorf("%w: files under %d bases were read, take the base from head/base", ErrTooMany, dom.maxBases)
	}
	parts := splitBlocks(off, int(min(int64(size), b.size-off)), b.bf.Blksize)
	msgs, wait, err := b.pinReaders(wctx, dom, set, parts)
	var d Data
	if err == nil {
		d, err = b.RevFile.Read(ctx, size, off)
	}
	err = c.awaitPins(wctx, msgs, err, wait)
	if dom.Failed() || pinsDone(msgs) == nil && set.answered(parts) { // by an error too: after one the kernel reads again
		err = errDomainFailed
	}
	if failed := b.f.failed(); failed != nil { // watches that were asked may be gone by that
		err = failed
	}
	if err != nil {
		if d.Done != nil {
			d.Done()
		}
		dom.erred.note(b.rev, b.f.Oid(), parts, err)
		return Data{}, err
	}
	dom.noteRead(d.Size())
	c.meter.front(dom).base.note(d.Size())
	d.Failed = func() { dom.erred.note(b.rev, b.f.Oid(), parts, ErrIO) }
	return d, nil
}

// pinReaders is as that of HeadFile, for all blocks of a read. wait tells how long they may be waited for.
func (b *BaseFile) pinReaders(ctx context.Context, dom *Domain, set *baseSet, parts []part) (msgs []*pinMsg, wait pinWait, err error) {
	for _, p := range parts {
		wait = wait.least(dom.erred.patience(b.rev, b.f.Oid(), p.blk, b.f.c.opts.PinTimeout))
		ws, bad := set.mark(p.blk)
		if bad {
			return msgs, wait, errDomainFailed
		}
		for _, w := range ws {
			m, werr := w.protectBase(ctx, p.blk)
			if werr != nil {
				m, err = w.protectBaseAt(p.blk), b.f.c.ioError(ctx, werr, "history of block of", b.f.Oid(), b.rev)
			}
			if m != nil {
				msgs = append(msgs, m)
			}
		}
	}
	return msgs, wait, err
}

// protectBase has the watch pin a block if it changed between its base and its at.
func (w *clientWatch) protectBase(ctx context.Context, blk Blk) (*pinMsg, error) {
	at := w.atNow()
	for {
		rev, err := w.f.c.tail.BlkRevAbove(ctx, w.f.h, blk, at, w.base)
		if err != nil && isAnswer(err) { // packed away, or damaged: this client's loss, not the reader's
			rev, err = at, nil
		}
		if err != nil {
			return nil, err
		}
		w.l.c.step(StepPinDecide)
		w.mu.Lock()
		if w.at == at {
			var m *pinMsg
			if rev > w.base {
				m = w.wantLocked(blk, rev, at, 0)
			}
			w.mu.Unlock()
			return m, nil
		}
		at = w.at
		w.mu.Unlock()
	}
}

// protectBaseAt has the watch pin a block as of its at, which is always right. Nothing is asked of the database.
func (w *clientWatch) protectBaseAt(blk Blk) *pinMsg {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at <= w.base {
		return nil
	}
	return w.wantLocked(blk, w.at, w.at, 0)
}

// pinMarked does for a base watch what pinChanged does for one over head.
func (w *clientWatch) pinMarked(ctx context.Context, at zodb.Tid) ([]*pinMsg, error) {
	c := w.l.c
	want := map[Blk]zodb.Tid{}
	for _, blk := range w.set().marked() {
		var rev zodb.Tid
		err := c.retry(ctx, "watch", func() (err error) {
			rev, err = c.tail.BlkRevAbove(ctx, w.f.h, blk, at, w.base)
			return err
		})
		if ctx.Err() == nil && damaged(err) { // this block's loss
			rev, err = at, nil
		}
		if err != nil {
			return nil, err
		}
		if rev > w.base {
			want[blk] = rev
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var msgs []*pinMsg
	for blk, rev := range want {
		if m := w.wantLocked(blk, rev, at, 0); m != nil {
			msgs = append(msgs, m)
		}
	}
	return msgs, nil
}

func (w *clientWatch) set() *baseSet { return w.l.dom.base(baseKey{w.base, w.f.Oid()}) }

// poison makes blocks unreadable under the base of a client that cannot be killed: those whose first read
// waited for its acknowledgement in vain. Blocks whose read was already answered stay readable: the guest may
// have them cached anyway, and their pending pin belongs to a watch request that never got its "ok".
func (w *clientWatch) poison() {
	w.mu.Lock()
	var blks []Blk
	for blk, p := range w.pins {
		if len(p.queue) > 0 {
			blks = append(blks, blk)
		}
	}
	w.mu.Unlock()
	s := w.set()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, blk := range blks {
		if !s.read[blk] {
			s.bad[blk] = struct{}{}
		}
	}
}

// checkBase says whether a base watch may be set up.
func (l *Link) checkBase(r watchproto.Request, f *HeadFile) error {
	switch {
	case l.dom.anonymous:
		return fmt.Errorf("a base watch needs a mount that says who it is: mount with -o uname=NAME")
	case r.Base > r.At:
		return fmt.Errorf("base @%s is newer than that", r.Base)
	case r.Base < l.c.T0():
		return fmt.Errorf("base @%s is older than this server (@%s): take a new one from head/base", r.Base, l.c.T0())
	case r.Base < f.h.Epoch:
		return fmt.Errorf("file epoch detected @%s in between (base,head=@%s]", f.h.Epoch, l.c.Head())
	case l.dom.base(baseKey{r.Base, r.Oid}) == nil:
		l.c.nRefused.Add(1)
		return fmt.Errorf("files under %d bases are in use: take the base from head/base", l.dom.maxBases)
	}
	return nil
}

const (
	baseLasts   = 10 * time.Minute // head/base moves after this, if anything changed
	baseChanges = 4096             // or after this many changed blocks
)

// headBase is what remote clients should take as base, so that they share it. Guarded by Core.mu.
type headBase struct {
	tid     zodb.Tid
	since   time.Time
	changed int // blocks, since
	hold    *history.Hold
}

// Base returns the tid that remote clients should take as base. It moves seldom.
func (c *Core) Base() zodb.Tid {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.tid
}

// leaveBase makes the announced head the base, where that is tid yet.
func (c *Core) leaveBase(tid zodb.Tid) bool {
	c.mu.Lock()
	b := &c.base
	head, move := c.head, b.tid == tid && c.head > tid
	if move {
		b.tid, b.since, b.changed = head, time.Now(), 0
	}
	c.mu.Unlock()
	if move {
		b.hold.Move(head)
	}
	return move
}

// moveBase counts changed blocks, and makes the announced head the base when it is time.
func (c *Core) moveBase(changed int) {
	c.mu.Lock()
	b := &c.base
	b.changed += changed
	move := b.changed >= baseChanges || b.changed > 0 && time.Since(b.since) >= baseLasts
	if move {
		b.tid, b.since, b.changed = c.head, time.Now(), 0
	}
	tid := b.tid
	c.mu.Unlock()
	if move {
		b.hold.Move(tid)
	}
}
