package fusesrv

import (
	"sync"

	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

// inode is a node that the kernel knows.
type inode struct {
	node tree.Node
	id   uint64
	rev  *revDir // the revision directory it is or is under, nil if none; immutable once in the table

	lookups uint64 // LOOKUPs answered and not forgotten yet; guard: inodes.mu
	oid     zodb.Oid
	isHead  bool   // node is head/bigfile/<oid>
	dir     uint64 // id of the directory a head file was found in; immutable once in the table
}

// inodes is the table of nodes the kernel knows. Lock order: mu is a leaf.
type inodes struct {
	mu    sync.Mutex
	byID  map[uint64]*inode   // guard: mu
	heads map[zodb.Oid]uint64 // guard: mu; node ids of head files in byID
	revs  *revs               // guard: mu
}

func newInodes(root tree.Node, maxIdleRevs int) *inodes {
	return &inodes{
		byID:  map[uint64]*inode{1: {node: root, id: 1, lookups: 1}},
		heads: make(map[zodb.Oid]uint64),
		revs:  newRevs(maxIdleRevs),
	}
}

func (t *inodes) get(id uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// enter counts one more LOOKUP answered by fresh, found as name in parent, whose reference the table
// takes over. isRev tells that it is a directory that holds one revision.
func (t *inodes) enter(parent *inode, name string, fresh *inode, isRev bool) *inode {
	t.mu.Lock()
	in, known := t.byID[fresh.id]
	if !known {
		in = fresh
		t.byID[in.id] = in
		if in.dir = parent.id; in.isHead && in.id > t.heads[in.oid] { // an answer about one that has failed may come late
			t.heads[in.oid] = in.id
		}
		in.rev = parent.rev
		if isRev && in.rev == nil {
			in.rev = &revDir{parent: parent.id, name: name}
		}
		if in.rev != nil {
			in.rev.inodes++
		}
	}
	in.lookups++
	t.revs.touch(in.rev)
	t.mu.Unlock()
	if known {
		fresh.node.Release() // the table has one already
	}
	return in
}

// forget takes n LOOKUPs back.
func (t *inodes) forget(id, n uint64) {
	t.mu.Lock()
	in := t.byID[id]
	if in == nil || id == 1 {
		t.mu.Unlock()
		return
	}
	in.lookups -= min(n, in.lookups)
	if in.lookups > 0 {
		t.mu.Unlock()
		return
	}
	t.remove(in)
	t.mu.Unlock()
	in.node.Release()
}

// remove takes in out; mu must be held.
func (t *inodes) remove(in *inode) {
	delete(t.byID, in.id)
	if in.isHead && t.heads[in.oid] == in.id {
		delete(t.heads, in.oid)
	}
	if in.rev != nil {
		in.rev.inodes--
		t.revs.touch(in.rev)
	}
}

// use tells that in was made use of, opens by how many more files under it are open now.
func (t *inodes) use(in *inode, opens int) {
	if in.rev == nil {
		return
	}
	t.mu.Lock()
	in.rev.opens += opens
	t.revs.touch(in.rev)
	t.mu.Unlock()
}

// surplusRevs takes out of the list of idle revisions those that are too many.
func (t *inodes) surplusRevs() []*revDir {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revs.surplus()
}

// head returns the node id of head/bigfile/<oid>, if the kernel knows it: the one looked up last, should the file have
// failed and be another by now.
func (t *inodes) head(oid zodb.Oid) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.heads[oid]
	return id, ok
}

// headDir returns the node id of the directory that the kernel has found head/bigfile/<oid> in.
func (t *inodes) headDir(oid zodb.Oid) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.heads[oid]
	if !ok {
		return 0, false
	}
	return t.byID[id].dir, true
}

// ids lists all nodes, head files first: these are what may be stale.
func (t *inodes) ids() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]uint64, 0, len(t.byID))
	for _, heads := range []bool{true, false} {
		for id, in := range t.byID {
			if in.isHead == heads {
				list = append(list, id)
			}
		}
	}
	return list
}

func (t *inodes) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// drain forgets everything but the root: the kernel does not send FORGETs on unmount.
func (t *inodes) drain() {
	t.mu.Lock()
	var rest []*inode
	for id, in := range t.byID {
		if id != 1 {
			rest = append(rest, in)
			t.remove(in)
		}
	}
	t.mu.Unlock()
	for _, in := range rest {
		in.node.Release()
	}
}
