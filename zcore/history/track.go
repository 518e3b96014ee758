package history

import (
	"context"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// Epoch returns the tid since which bf has its blksize and blktab, or 0 if that is before all that can be asked about.
func (t *Tail) Epoch(ctx context.Context, bf zdata.BigFile) (zodb.Tid, error) {
	serial := bf.Serial
	for serial > t.back {
		old, err := t.BigFile(ctx, bf.Oid, serial-1)
		how, err := changedHow(&File{BigFile: bf}, old, err)
		switch {
		case err != nil && !isAnswer(err):
			return 0, err
		case err != nil || how != "": // it was another file, or none, or cannot be read any more
			return serial, nil
		}
		serial = old.Serial
	}
	return 0, nil
}

// AddFile makes a file that was looked up at view v known, with its size and the nodes that determine
// it. If a commit published after v touched any of that, it adds nothing and returns that commit: look
// again at a view that has it. A file already known is returned as it is.
func (t *Tail) AddFile(v zodb.Tid, bf zdata.BigFile, epoch zodb.Tid, size int64, path []btree.Step) (*File, zodb.Tid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[bf.Oid]; f != nil {
		return f, 0
	}
	if w := max(t.touchedAfter(bf.Oid, v), t.pathTouched(path, v)); w != 0 {
		return nil, w
	}
	f := &File{BigFile: bf, Epoch: epoch, no: fileNo(len(t.byNo)), revs: map[Blk][]zodb.Tid{}, attrs: []attr{{0, size, bf.Serial}}}
	t.byNo = append(t.byNo, f)
	t.files[bf.Oid] = f
	t.addNodes(f, path)
	return f, 0
}

// File returns a known file, or nil.
func (t *Tail) File(oid zodb.Oid) *File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[oid]
}

// Attr returns a file's size in bytes, and the last commit known to have changed it, as of view v.
func (t *Tail) Attr(f *File, v zodb.Tid) (size int64, mtime zodb.Tid) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := len(f.attrs) - 1
	for i > 0 && f.attrs[i].tid > v {
		i--
	}
	return f.attrs[i].size, f.attrs[i].mtime
}

// pathTouched returns the newest commit > v that touched a node of path, or 0. mu must be held.
func (t *Tail) pathTouched(path []btree.Step, v zodb.Tid) zodb.Tid {
	var w zodb.Tid
	for _, s := range path {
		w = max(w, t.touchedAfter(s.Oid, v))
	}
	return w
}

// Track makes a block tracked whose mapping was looked up at view v, in one critical section with the
// check that this is still so: if a commit published after v touched the path or the ZBlk, nothing is
// tracked and that commit is returned; the caller looks again once the view has reached it. From a
// return of 0 on, every later commit that changes the block names it in its Delta.
func (t *Tail) Track(f *File, blk Blk, v zodb.Tid, m Mapping, path []btree.Step) zodb.Tid {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.pathTouched(path, v)
	if !m.Hole {
		w = max(w, t.touchedAfter(m.ZBlk, v))
	}
	if w != 0 {
		return w
	}
	if f.Lost() || f.find(blk) != nil {
		return 0 // nobody may be answered from it; or kept right by Delta since it was first tracked
	}
	f.dropRecent(t.tail)
	b := block{blk: blk, since: v, pathMax: pathMax(path)}
	b.setMapping(m)
	f.insert(b)
	t.addNodes(f, path)
	t.addBlk(f, blk, m)
	return 0
}

func pathMax(path []btree.Step) zodb.Tid {
	var s zodb.Tid
	for _, p := range path {
		s = max(s, p.Serial)
	}
	return s
}

// addNodes registers the nodes of a path. mu must be held.
func (t *Tail) addNodes(f *File, path []btree.Step) {
	var buf [2]nodeRef
next:
	for _, s := range path {
		for _, r := range t.nodeRefs.appendOf(buf[:0], s.Oid) {
			if r.file == f.no {
				if wider := newNodeRef(f, min(r.lo, s.Lo), max(r.hi(), s.Hi)); wider != r {
					t.nodeRefs.replace(s.Oid, r, wider)
				}
				continue next
			}
		}
		t.nodeRefs.add(s.Oid, newNodeRef(f, s.Lo, s.Hi))
	}
}

// addBlk registers which ZBlk a block maps to. mu must be held.
func (t *Tail) addBlk(f *File, blk Blk, m Mapping) {
	if !m.Hole {
		t.blkRefs.add(m.ZBlk, blkRef{f.no, blk})
	}
}

// dropBlk undoes addBlk. mu must be held.
func (t *Tail) dropBlk(f *File, blk Blk, m Mapping) {
	if !m.Hole {
		t.blkRefs.drop(m.ZBlk, blkRef{f.no, blk})
	}
}

// Loaded remembers serial and hash (0: not known) of the content that a tracked block had at view v.
func (t *Tail) Loaded(f *File, blk Blk, v zodb.Tid, m Mapping, serial zodb.Tid, hash uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := f.find(blk); b != nil && b.mapping() == m && f.current(b, v) {
		b.zserial, b.hash = serial, hash
	}
}

// Unchanged reports whether a tracked block is still, as of the last published commit, what it was at
// view v.
func (t *Tail) Unchanged(f *File, blk Blk, v zodb.Tid, m Mapping) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := f.find(blk)
	if b == nil || b.mapping() != m || !f.current(b, v) {
		return false
	}
	return t.head == v || t.listTouches(f, b, v) == 0
}

// listTouches returns a commit published after v that touches the ZBlk or any node whose range has
// the block, or 0: too much rather than too little. mu must be held.
func (t *Tail) listTouches(f *File, b *block, v zodb.Tid) zodb.Tid {
	var buf [2]nodeRef
	for _, p := range t.list[t.after(v):] {
		if p.Gap != 0 {
			return p.Tid
		}
		for _, oid := range p.Oids {
			if oid == b.zblk {
				return p.Tid
			}
			for _, r := range t.nodeRefs.appendOf(buf[:0], oid) {
				if r.file == f.no && r.has(b.blk) {
					return p.Tid
				}
			}
		}
	}
	return 0
}

// Holds returns how many holds there are.
func (t *Tail) Holds() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.holds)
}

// Tracked returns how many blocks are tracked in all files.
func (t *Tail) Tracked() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, f := range t.files {
		n += f.blocks.n
	}
	return n
}
