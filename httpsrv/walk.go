package httpsrv

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// walk goes back through the revisions of a bigfile, newest first, at a cost that grows with what changed and not with what is there: each
// object of the file is in a queue under the revision that is current, and the newest of those is the revision of the file. Only what a
// transaction wrote is looked at anew, as of the moment before it. (`wcfs history` goes another way, and the tests compare the two.)
type walk struct {
	stor zodb.Storage
	file zdata.BigFile

	queue queue
	nodes map[zodb.Oid]bool        // of the tree as of now
	users map[zodb.Oid][]zdata.Blk // blocks that a ZBlk serves
	nodeV map[zodb.Oid]*btree.Node // nodes as they are now
	blks  map[zdata.Blk]zodb.Oid   // the table as it is now
	begun func(done, of int)       // told how far the first look at all blocks is
}

// object is one of a file's, and since when it is as it is.
type object struct {
	oid    zodb.Oid
	serial zodb.Tid
}

// queue has the object that changed last in front.
type queue []object

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].serial != q[j].serial {
		return q[i].serial > q[j].serial
	}
	return q[i].oid < q[j].oid
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(object)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// revision is one revision of the file.
type revision struct {
	tid  zodb.Tid
	size int64
	blks []zdata.Blk // that changed, ascending
}

// maxMapBlocks is up to how many blocks a map is made.
const maxMapBlocks = 1 << 22

// maxLoads is how many blocks are loaded for a map where their revisions are not told otherwise.
const maxLoads = 4096

var errTooManyBlocks = fmt.Errorf("the file has more than %d blocks, too many for a map", maxMapBlocks)

// run calls fn for every revision at or below at, until there are no more or it returns an error.
func (w *walk) run(ctx context.Context, oid zodb.Oid, at zodb.Tid, fn func(revision) error) error {
	if err := w.load(ctx, oid, at); err != nil {
		return err
	}
	heap.Init(&w.queue)
	for {
		rev, first, err := w.step(ctx)
		if err != nil {
			return err
		}
		if rev != nil {
			if err := fn(*rev); err != nil {
				return err
			}
		}
		if first {
			return nil
		}
	}
}

// load looks at all of the file as of at.
func (w *walk) load(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
	rec, err := w.stor.LoadAt(ctx, oid, at)
	if err != nil {
		return err
	}
	if w.file, err = zdata.DecodeBigFile(oid, rec); err != nil {
		return err
	}
	w.file.Oid = oid
	w.nodes, w.users = map[zodb.Oid]bool{}, map[zodb.Oid][]zdata.Blk{}
	w.nodeV, w.blks = map[zodb.Oid]*btree.Node{}, map[zdata.Blk]zodb.Oid{}
	w.queue = append(w.queue[:0], object{oid, rec.Serial})
	if err := w.addTree(ctx, w.file.Blktab, at); err != nil {
		return err
	}
	if _, cheap := w.stor.(zodb.SerialLoader); !cheap && len(w.users) > maxLoads {
		return fmt.Errorf("this kind of database tells no revision without the data, and the file has more than %d blocks", maxLoads)
	}
	n := 0
	for zblk := range w.users {
		if n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if w.begun != nil {
				w.begun(n, len(w.users))
			}
		}
		n++
		if err := w.addBlk(ctx, zblk, at); err != nil {
			return err
		}
	}
	return nil
}

// addTree enters a node and all below it as of at.
func (w *walk) addTree(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
	if w.nodes[oid] {
		return nil
	}
	n, serial, err := (btree.Direct{Storage: w.stor}).Node(ctx, oid, at)
	if err != nil {
		return present(err)
	}
	w.nodes[oid], w.nodeV[oid] = true, n
	w.queue = append(w.queue, object{oid, serial})
	for i, ref := range n.Refs {
		if !n.Leaf {
			if err := w.addTree(ctx, ref, at); err != nil {
				return err
			}
			continue
		}
		w.enter(zdata.Blk(n.Keys[i]), ref)
	}
	if len(w.blks) > maxMapBlocks {
		return errTooManyBlocks
	}
	return nil
}

// enter notes what serves a block. It reports whether that ZBlk was not there before.
func (w *walk) enter(blk zdata.Blk, zblk zodb.Oid) (fresh bool) {
	w.blks[blk] = zblk
	if zblk == btree.NoValue {
		return false
	}
	fresh = w.users[zblk] == nil
	w.users[zblk] = append(w.users[zblk], blk)
	return fresh
}

// leave notes that a ZBlk does not serve a block any more.
func (w *walk) leave(blk zdata.Blk, zblk zodb.Oid) {
	delete(w.blks, blk)
	if left := slices.DeleteFunc(w.users[zblk], func(b zdata.Blk) bool { return b == blk }); len(left) > 0 {
		w.users[zblk] = left
	} else {
		delete(w.users, zblk)
	}
}

// addBlk queues a ZBlk.
func (w *walk) addBlk(ctx context.Context, zblk zodb.Oid, at zodb.Tid) error {
	serial, err := serialAt(ctx, w.stor, zblk, at)
	if err != nil {
		return present(err)
	}
	w.queue = append(w.queue, object{zblk, serial})
	return nil
}

// step takes the newest transaction off, and goes back to the moment before it. rev is nil where that changed nothing that can be seen.
func (w *walk) step(ctx context.Context) (rev *revision, first bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	tid := w.queue[0].serial
	var written []zodb.Oid
	for len(w.queue) > 0 && w.queue[0].serial == tid {
		if oid := heap.Pop(&w.queue).(object).oid; !slices.Contains(written[max(0, len(written)-1):], oid) {
			written = append(written, oid)
		}
	}
	rev = &revision{tid: tid, size: w.size()}
	changed := map[zdata.Blk]bool{}
	var nodes, zblks []zodb.Oid
	fileToo := false
	for _, oid := range written {
		switch {
		case oid == w.file.Oid:
			fileToo = true
		case w.nodes[oid]:
			nodes = append(nodes, oid)
		case w.users[oid] != nil: // else it serves nothing any more
			zblks = append(zblks, oid)
			for _, blk := range w.users[oid] {
				changed[blk] = true
			}
		}
	}
	size := rev.size
	if fileToo {
		if first, err = w.fileBefore(ctx, tid, changed, &nodes, &zblks); err != nil {
			return nil, false, err
		}
	} else if err := w.treeBefore(ctx, nodes, tid, changed); err != nil {
		return nil, false, err
	}
	if !first {
		size = w.size()
	}
	for _, zblk := range zblks {
		if w.users[zblk] == nil || first {
			continue
		}
		serial, err := serialAt(ctx, w.stor, zblk, tid-1)
		if err != nil {
			return nil, false, present(err)
		}
		heap.Push(&w.queue, object{zblk, serial})
	}
	if len(changed) == 0 && !first && size == rev.size && !fileToo {
		return nil, false, nil
	}
	for blk := range changed {
		rev.blks = append(rev.blks, blk)
	}
	slices.Sort(rev.blks)
	return rev, first, nil
}

// size is that of the file as of now. The last bucket has the last key.
func (w *walk) size() int64 {
	oid := w.file.Blktab
	for n := w.nodeV[oid]; n != nil; n = w.nodeV[oid] {
		if !n.Leaf {
			oid = n.Refs[len(n.Refs)-1]
			continue
		}
		if len(n.Keys) == 0 {
			return w.sizeOfAll()
		}
		return (int64(n.Keys[len(n.Keys)-1]) + 1) * w.file.Blksize
	}
	return 0
}

// sizeOfAll is for a tree whose last bucket is empty.
func (w *walk) sizeOfAll() int64 {
	last := zdata.Blk(-1)
	for blk := range w.blks {
		last = max(last, blk)
	}
	return (int64(last) + 1) * w.file.Blksize
}

// fileBefore goes back over a change of the ZBigFile itself, which is rare: all of the file is looked at anew where its table changed.
func (w *walk) fileBefore(ctx context.Context, tid zodb.Tid, changed map[zdata.Blk]bool, nodes, zblks *[]zodb.Oid) (first bool, err error) {
	rec, err := w.stor.LoadAt(ctx, w.file.Oid, tid-1)
	if zodb.IsAbsent(err) {
		for blk := range w.blks {
			changed[blk] = true
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	old, err := zdata.DecodeBigFile(w.file.Oid, rec)
	if err != nil {
		return false, err
	}
	if old.Blktab == w.file.Blktab && old.Blksize == w.file.Blksize {
		heap.Push(&w.queue, object{w.file.Oid, rec.Serial})
		return false, w.treeBefore(ctx, *nodes, tid, changed)
	}
	now := w.blks
	if err := w.load(ctx, w.file.Oid, tid-1); err != nil {
		return false, err
	}
	heap.Init(&w.queue)
	*nodes, *zblks = nil, nil
	for blk, zblk := range now {
		if was, ok := w.blks[blk]; !ok || was != zblk {
			changed[blk] = true
		}
	}
	for blk := range w.blks {
		if _, ok := now[blk]; !ok {
			changed[blk] = true
		}
	}
	return false, nil
}

// treeBefore goes back over what a transaction wrote of the tree. What it moved from one node to another is in both lists, and is no change.
func (w *walk) treeBefore(ctx context.Context, nodes []zodb.Oid, tid zodb.Tid, changed map[zdata.Blk]bool) error {
	if len(nodes) == 0 {
		return nil
	}
	now, was := map[zdata.Blk]zodb.Oid{}, map[zdata.Blk]zodb.Oid{}
	for _, oid := range nodes { // first all that is there now, then all that was
		entries(w.nodeV[oid], now)
		delete(w.nodes, oid)
		delete(w.nodeV, oid)
	}
	if err := w.nodesBefore(ctx, nodes, tid, was); err != nil {
		return err
	}
	for blk, zblk := range now {
		if old, ok := was[blk]; !ok || old != zblk {
			changed[blk] = true
			w.leave(blk, zblk)
		}
	}
	for blk, zblk := range was {
		if cur, ok := now[blk]; ok && cur == zblk {
			continue
		}
		changed[blk] = true
		if w.enter(blk, zblk) {
			serial, err := serialAt(ctx, w.stor, zblk, tid-1)
			if err != nil {
				return present(err)
			}
			heap.Push(&w.queue, object{zblk, serial})
		}
	}
	return nil
}

// nodesBefore enters nodes as of the moment before tid, with those below them that are not there now. The root is looked at whatever is
// written, so a node that only was there before is found from it.
func (w *walk) nodesBefore(ctx context.Context, nodes []zodb.Oid, tid zodb.Tid, was map[zdata.Blk]zodb.Oid) error {
	written := map[zodb.Oid]bool{}
	for _, oid := range nodes {
		written[oid] = true
	}
	seen := map[zodb.Oid]bool{}
	var add func(oid zodb.Oid) error
	add = func(oid zodb.Oid) error {
		if seen[oid] || w.nodes[oid] {
			return nil
		}
		seen[oid] = true
		n, serial, err := (btree.Direct{Storage: w.stor}).Node(ctx, oid, tid-1)
		if err != nil {
			if zodb.IsAbsent(err) && written[oid] { // made by that transaction
				return nil
			}
			return present(err)
		}
		w.nodes[oid], w.nodeV[oid] = true, n
		heap.Push(&w.queue, object{oid, serial})
		entries(n, was)
		if n.Leaf {
			return nil
		}
		for _, ref := range n.Refs {
			if err := add(ref); err != nil {
				return err
			}
		}
		return nil
	}
	for _, oid := range nodes {
		if err := add(oid); err != nil {
			return err
		}
	}
	return nil
}

// entries adds what a bucket has.
func entries(n *btree.Node, to map[zdata.Blk]zodb.Oid) {
	if n == nil || !n.Leaf {
		return
	}
	for i, key := range n.Keys {
		to[zdata.Blk(key)] = n.Refs[i]
	}
}

// present hides that an object is absent which the file refers to.
func present(err error) error {
	if zodb.IsAbsent(err) {
		return fmt.Errorf("what is older was packed away: %s", err)
	}
	return err
}

// serialAt avoids loading 2 MiB for 8 bytes where the driver can.
func serialAt(ctx context.Context, stor zodb.Storage, oid zodb.Oid, at zodb.Tid) (zodb.Tid, error) {
	if sl, ok := stor.(zodb.SerialLoader); ok {
		serial, _, err := sl.SerialAt(ctx, oid, at)
		return serial, err
	}
	rec, err := stor.LoadAt(ctx, oid, at)
	return rec.Serial, err
}

var errEnough = errors.New("enough")
