package zcore

import (
	"wcfs/zcore/zodb"
)

const (
	prefetchAhead = 4       // blocks
	prefetches    = 6       // loads at once, over all files; fewer than a driver has connections
	prefetchMax   = 8 << 20 // larger blocks are not loaded ahead, bytes
	recentBlks    = 16      // blocks of a file that readers are remembered to be at
)

// follows notes that a reader begins with a block, and tells whether one has lately begun with the block
// before it, as those do who read in order.
func (f *HeadFile) follows(blk Blk) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := false
	for i, b := range f.recent {
		if b == blk-1 {
			f.recent[i], found = blk, true
			break
		}
	}
	if !found {
		f.recent[f.nextRecent] = blk
		f.nextRecent = (f.nextRecent + 1) % recentBlks
	}
	return found
}

// prefetch loads the blocks after blk as of v into memory while blk is being handed over. They are shown to
// nobody: who reads them takes his own view, and finds them loaded if they are still the same then. v is
// held by the caller.
func (f *HeadFile) prefetch(blk Blk, v zodb.Tid) {
	if f.h.Blksize > prefetchMax {
		return
	}
	end, _ := f.sizeNow()
	for next := blk + 1; next <= blk+prefetchAhead && int64(next)*f.h.Blksize < end; next++ {
		select {
		case f.c.prefetching <- struct{}{}:
		default:
			return // enough going on; it is only a help
		}
		hold := f.c.tail.Hold(v)
		go func() {
			defer func() { <-f.c.prefetching }()
			defer hold.Release()
			m, _, err := f.c.tail.Lookup(f.c.ctx, f.h.BigFile, next, v)
			if err != nil || m.Hole {
				return // who reads the block will see
			}
			f.c.step(StepPrefetch)
			f.c.tail.Block(f.c.ctx, m.ZBlk, v, f.h.Blksize)
		}()
	}
}
