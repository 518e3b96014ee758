package history

import (
	"container/list"
	"slices"

	"wcfs/zcore/zodb"
)

// mvcc keeps versions of objects, each with the interval [serial, until) of tids at which it is the
// current one. The least recently used go when the bound is passed. Guarded by its owner's mutex.
type mvcc[T any] struct {
	versions map[zodb.Oid][]*version[T] // by ascending serial
	lru      *list.List                 // of *version[T], most recently used first
	bytes    int
	bound    int

	hits, misses int64
}

type version[T any] struct {
	oid    zodb.Oid
	serial zodb.Tid
	until  zodb.Tid
	val    T
	bytes  int
	elem   *list.Element
}

func newMVCC[T any](bound int) *mvcc[T] {
	return &mvcc[T]{versions: map[zodb.Oid][]*version[T]{}, lru: list.New(), bound: bound}
}

// get returns the version of oid that is current as of at, if it is known.
func (c *mvcc[T]) get(oid zodb.Oid, at zodb.Tid) (*version[T], bool) {
	vs := c.versions[oid]
	for i := len(vs) - 1; i >= 0; i-- {
		if v := vs[i]; v.serial <= at {
			if at >= v.until {
				break
			}
			c.lru.MoveToFront(v.elem)
			c.hits++
			return v, true
		}
	}
	c.misses++
	return nil, false
}

func (c *mvcc[T]) stats() CacheStats {
	return CacheStats{Hits: c.hits, Misses: c.misses, Entries: c.lru.Len(), Bytes: c.bytes, Bound: c.bound}
}

// put adds a version. Every interval put is true for itself, so of two for one serial the longer is kept.
func (c *mvcc[T]) put(oid zodb.Oid, serial, until zodb.Tid, val T, bytes int) {
	if until <= serial || bytes > c.bound {
		return
	}
	vs := c.versions[oid]
	i, found := slices.BinarySearchFunc(vs, serial, func(v *version[T], s zodb.Tid) int {
		return int(int64(v.serial - s))
	})
	if found {
		vs[i].until = max(vs[i].until, until)
		return
	}
	v := &version[T]{oid: oid, serial: serial, until: until, val: val, bytes: bytes}
	v.elem = c.lru.PushFront(v)
	c.versions[oid] = slices.Insert(vs, i, v)
	c.bytes += bytes
	for c.bytes > c.bound {
		c.drop(c.lru.Back().Value.(*version[T]))
	}
}

func (c *mvcc[T]) drop(v *version[T]) {
	c.lru.Remove(v.elem)
	c.bytes -= v.bytes
	vs := slices.DeleteFunc(c.versions[v.oid], func(x *version[T]) bool { return x == v })
	if len(vs) == 0 {
		delete(c.versions, v.oid)
	} else {
		c.versions[v.oid] = vs
	}
}

// closeAt ends what is known of oid at tid, a commit that changed it.
func (c *mvcc[T]) closeAt(oid zodb.Oid, tid zodb.Tid) {
	for _, v := range c.versions[oid] {
		if v.serial < tid {
			v.until = min(v.until, tid)
		}
	}
}

// closeAll ends everything at tid.
func (c *mvcc[T]) closeAll(tid zodb.Tid) {
	for oid := range c.versions {
		c.closeAt(oid, tid)
	}
}
