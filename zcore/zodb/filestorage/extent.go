package filestorage

import (
	"sync"

	"wcfs/zcore/zodb"
)

// maxExtents bounds how many objects of a file have their extent remembered.
const maxExtents = 1 << 15

// extent is where the data of a revision lies. It was checked and, as the file only grows, stays right.
type extent struct {
	last   int64    // record of the newest revision when this was found: while it is the newest, until holds
	serial zodb.Tid // of the revision
	until  zodb.Tid // of the next one
	off    int64
	len    int64
	plain  bool // not compressed
}

// extents remembers the extent of each object that was asked for last, since a block is read in many pieces.
type extents struct {
	mu sync.Mutex          // a leaf
	m  map[zodb.Oid]extent // mu
}

func (x *extents) get(v view, at zodb.Tid) (extent, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.m[v.oid]
	return e, ok && e.last == v.pos && e.serial <= at && at < e.until
}

func (x *extents) put(v view, e extent) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.m == nil:
		x.m = map[zodb.Oid]extent{}
	case len(x.m) >= maxExtents:
		clear(x.m)
	}
	x.m[v.oid] = e
}
