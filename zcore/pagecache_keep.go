package zcore

import (
	"context"
	"sync"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

const (
	keeps     = 16          // old blocks being kept at once, over all files
	keepStore = 2           // of those, being stored
	keepWait  = time.Second // how long a commit as a whole waits for old blocks to be kept: it is but a help
)

// keep is an old block on its way to its @rev: what it is was settled before the block was dropped from
// head, so that commits need not wait for the copy.
type keep struct {
	c    *Core
	f    *HeadFile
	blk  Blk
	ch   change
	hold *history.Hold // as of before the change

	// Place of the content. Neither is set for holes, nor if the content is read from the database again.
	mem  []byte // without trailing zeros, known to be right
	seen []byte // what the kernel had; to be trusted only with the hash of what was loaded
	give func() // gives seen back

	done chan struct{} // closed when it is kept, or is not going to be
}

// keepOld has the old content of a block that is cached whole kept under its @rev.
func (c *Core) keepOld(ctx, help context.Context, f *HeadFile, blk Blk, ch change) {
	if !c.canKeep(f, blk, ch) || !c.isCached(f, blk) || !c.takeKeeping(ctx, help) {
		return
	}
	k := &keep{c: c, f: f, blk: blk, ch: ch, done: make(chan struct{})}
	if !k.find() {
		<-c.keeping
		return
	}
	k.hold = c.tail.Hold(ch.tid - 1)
	f.mu.Lock()
	f.keeps = append(f.keeps, k)
	f.mu.Unlock()
	go k.run()
}

// forHelp is how long a commit waits for help, in all its steps. If the commit before waited in vain, and
// nothing has been kept since, it does not wait.
func (c *Core) forHelp(ctx context.Context) (help context.Context, done context.CancelFunc) {
	if c.keepStuck.Load() {
		help, done = context.WithCancel(ctx)
		done()
		return help, done
	}
	return context.WithTimeout(ctx, keepWait)
}

// takeKeeping takes the right to keep a block. Once help is over it does not wait for that.
func (c *Core) takeKeeping(ctx, help context.Context) bool {
	select {
	case c.keeping <- struct{}{}:
		return true
	default:
	}
	select {
	case c.keeping <- struct{}{}:
		return true
	case <-help.Done():
		c.keepStuck.Store(ctx.Err() == nil)
		return false
	}
}

// canKeep tells whether it is known what the block was, and that it was inside the file.
func (c *Core) canKeep(f *HeadFile, blk Blk, ch change) bool {
	if !ch.save.Hole && ch.save.Serial == 0 || f.h.Blksize%c.pageSize != 0 {
		return false
	}
	size, _ := c.tail.Attr(f.h, ch.tid-1)
	return (int64(blk)+1)*f.h.Blksize <= size
}

// isCached tells whether a block is in the page cache, by its first and last page.
func (c *Core) isCached(f *HeadFile, blk Blk) bool {
	has := func(off int64) bool {
		n, err := c.pc.Retrieve(f.Oid(), off, make([]byte, c.pageSize))
		return err == nil && int64(n) == c.pageSize
	}
	var last bool
	var wg sync.WaitGroup
	wg.Go(func() { last = has((int64(blk)+1)*f.h.Blksize - c.pageSize) })
	first := has(int64(blk) * f.h.Blksize)
	wg.Wait()
	return first && last
}

// find settles where the content comes from. Only where the database would have to be asked for something
// that is not at hand is it taken from the kernel, while that still has it.
func (k *keep) find() bool {
	save := k.ch.save
	if save.Hole || save.Hash == 0 {
		return true
	}
	if b := k.c.tail.Recent(save.ZBlk, k.ch.tid-1); b != nil && b.Serial == save.Serial {
		k.mem = b.Data
		return true
	}
	k.seen, k.give = k.c.buffer(k.f.h.Blksize)
	n, err := k.c.pc.Retrieve(k.f.Oid(), int64(k.blk)*k.f.h.Blksize, k.seen)
	if err != nil || n < len(k.seen) {
		k.give()
		return false
	}
	return true
}

func (k *keep) run() {
	defer k.end()
	c := k.c
	select {
	case c.keepStore <- struct{}{}:
		defer func() { <-c.keepStore }()
	case <-c.ctx.Done():
		return
	}
	c.step(StepKeep)
	if err := k.store(c.ctx); err != nil && c.ctx.Err() == nil {
		c.log.Debug("old block not kept in the page cache", "file", k.f.Oid(), "blk", k.blk, "cause", err)
	}
}

func (k *keep) end() {
	f := k.f
	if k.give != nil {
		k.give()
	}
	k.hold.Release()
	f.mu.Lock()
	for i, other := range f.keeps {
		if other == k {
			f.keeps = append(f.keeps[:i], f.keeps[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	close(k.done)
	k.c.keepStuck.Store(false)
	<-k.c.keeping
}

// store stores the content under @rev. Wrong bytes stored there would stay for ever.
func (k *keep) store(ctx context.Context) error {
	c, save := k.c, k.ch.save
	data := k.seen
	if data != nil {
		if c.tail.Hash(data) != save.Hash {
			return nil // a page is newer, or was not there
		}
	} else if int64(len(k.mem)) == k.f.h.Blksize {
		data = k.mem
	} else {
		var giveBack func()
		data, giveBack = c.buffer(k.f.h.Blksize)
		defer giveBack()
		if save.Hole || save.Hash != 0 {
			clear(data[copy(data, k.mem):])
		} else if ok, err := c.copyPlain(ctx, data, save.ZBlk, k.ch.tid-1, save.Serial); !ok || err != nil {
			return err
		}
	}
	rev, err := c.tail.BlkRevAt(ctx, k.f.h, k.blk, k.ch.tid-1)
	if err != nil {
		return err
	}
	if save.Hole { // data is inside the file, a hole may be past its end
		if size, _, err := c.tail.Size(ctx, k.f.h.BigFile, rev); err != nil || int64(k.blk) >= size/k.f.h.Blksize {
			return err
		}
	}
	return c.pc.StoreRev(rev, k.f.Oid(), int64(k.blk)*k.f.h.Blksize, data)
}

// waitKept waits until the old blocks of a file that are on their way to their @rev are there: for who
// looks at what is cached there. It does not wait for long: until help is over.
func (f *HeadFile) waitKept(ctx, help context.Context) {
	f.mu.Lock()
	list := append([]*keep(nil), f.keeps...)
	f.mu.Unlock()
	if len(list) == 0 {
		return
	}
	for _, k := range list {
		select {
		case <-k.done:
		case <-help.Done():
			f.c.keepStuck.Store(ctx.Err() == nil)
			return
		}
	}
}

// WaitKept is called when a file under @rev is opened, where old blocks are to be found from the
// moment head has moved on. It matters to those who share the page cache.
func (c *Core) WaitKept(ctx context.Context, dom *Domain, oid zodb.Oid) {
	if f := c.file(oid); f != nil && dom == c.host && c.reachable() {
		help, done := context.WithTimeout(ctx, keepWait)
		defer done()
		f.waitKept(ctx, help)
	}
}
