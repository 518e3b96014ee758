package history

import (
	"slices"
	"sort"

	"wcfs/zcore/zodb"
)

// touches says which commits touched an object, for a search of any of them. Most objects are touched once.
type touches struct {
	last  map[zodb.Oid]zodb.Tid   // the newest
	older map[zodb.Oid][]zodb.Tid // those before it, ascending; absent if there are none
}

func newTouches() touches {
	return touches{map[zodb.Oid]zodb.Tid{}, map[zodb.Oid][]zodb.Tid{}}
}

// add notes a commit that is newer than all before.
func (t touches) add(oid zodb.Oid, tid zodb.Tid) {
	switch last := t.last[oid]; {
	case last == tid:
		return
	case last != 0:
		t.older[oid] = append(t.older[oid], last)
	}
	t.last[oid] = tid
}

// drop forgets the oldest commit that touched an object.
func (t touches) drop(oid zodb.Oid, tid zodb.Tid) {
	older := t.older[oid]
	switch {
	case len(older) > 1 && older[0] == tid:
		t.older[oid] = older[1:] // what is before it goes when append makes room
	case len(older) == 1 && older[0] == tid:
		delete(t.older, oid)
	case len(older) == 0 && t.last[oid] == tid:
		delete(t.last, oid)
	}
}

// after returns the first commit > v that touched an object, or TidMax.
func (t touches) after(oid zodb.Oid, v zodb.Tid) zodb.Tid {
	last, ok := t.last[oid]
	if !ok || last <= v {
		return zodb.TidMax
	}
	older := t.older[oid]
	if i := sort.Search(len(older), func(i int) bool { return older[i] > v }); i < len(older) {
		return older[i]
	}
	return last
}

// upTo returns the last commit <= at that touched an object, or 0.
func (t touches) upTo(oid zodb.Oid, at zodb.Tid) zodb.Tid {
	if last := t.last[oid]; last <= at {
		return last
	}
	older := t.older[oid]
	i, found := slices.BinarySearch(older, at)
	switch {
	case found:
		return at
	case i > 0:
		return older[i-1]
	}
	return 0
}
