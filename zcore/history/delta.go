package history

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// FileDelta is what one commit did to one file.
type FileDelta struct {
	File   *File
	Blocks []Blk  // tracked blocks that changed, ascending
	Old    []Save // for each of Blocks: what it was before
	Size   int64  // after the commit
	Resize bool   // the size changed
}

// Save tells what a changed block was before the commit, as far as that is known.
type Save struct {
	Hole   bool
	ZBlk   zodb.Oid // that it was, if no hole
	Serial zodb.Tid // of the ZBlk as last loaded; 0: what readers were given is not known
	Hash   uint64   // of that content; 0 where it lies as it is in a file and was not looked at
}

// CheckFiles looks at the known ZBigFile objects that c changes. Of the first that cannot be served any more as
// what it was it tells in a *FileError, which is about a *FileChanged.
func (t *Tail) CheckFiles(ctx context.Context, c zodb.Commit) error {
	var files []*File
	t.mu.Lock()
	if c.Gap != 0 {
		for _, f := range t.files {
			files = append(files, f)
		}
	}
	for _, oid := range c.Oids {
		if f := t.files[oid]; f != nil {
			files = append(files, f)
		}
	}
	t.mu.Unlock()
	for _, f := range files {
		var bf zdata.BigFile
		err := t.insist(ctx, func() (err error) {
			bf, err = t.BigFile(ctx, f.Oid, c.Tid)
			return err
		})
		why, err := changedHow(f, bf, err)
		if why != "" {
			err = &FileChanged{f.Oid, c.Tid, why}
		}
		if err != nil {
			return &FileError{[]*File{f}, err}
		}
	}
	return nil
}

// span is a range of keys, both ends included.
type span struct{ lo, hi btree.Key }

// touched is what a commit touches of what is tracked.
type touched struct {
	blks  map[*File]map[Blk]bool // blocks whose ZBlk was written: changed
	look  map[*File]map[Blk]bool // blocks whose mapping must be looked up anew
	files map[*File]bool         // files whose size may have changed
	keys  map[*File]bool         // files of which keys came, went or were mapped anew, tracked or not
}

// Delta computes and records δF of a published commit. Commits must be given in order, by one
// goroutine. The cost follows from what the commit touches. What cannot be found out for the lack of an object is told
// in a *FileError; once these files are lost, Delta can be asked again.
func (t *Tail) Delta(ctx context.Context, c zodb.Commit) ([]FileDelta, error) {
	oids := c.Oids
	if c.Gap != 0 {
		var err error
		if oids, err = t.changedInGap(ctx, c); err != nil {
			return nil, err
		}
	}
	to, err := t.touch(ctx, oids, c)
	if err != nil {
		return nil, err
	}
	moved := map[*File][]remap{}
	for f, blks := range to.look {
		for blk := range blks {
			var m Mapping
			var path []btree.Step
			err := t.insist(ctx, func() (err error) {
				m, path, err = t.Lookup(ctx, f.BigFile, blk, c.Tid)
				return err
			})
			if err != nil {
				return nil, &FileError{[]*File{f}, fmt.Errorf("block %d: %w", blk, err)}
			}
			moved[f] = append(moved[f], remap{blk, m, path})
		}
	}
	sizes, err := t.sizes(ctx, to.files, c.Tid)
	if err != nil {
		return nil, err
	}
	return t.apply(c, to, moved, sizes), nil
}

type remap struct {
	blk  Blk
	m    Mapping
	path []btree.Step
}

type sized struct {
	size int64
	path []btree.Step
}

// touch finds what is tracked of oids.
func (t *Tail) touch(ctx context.Context, oids []zodb.Oid, c zodb.Commit) (touched, error) {
	to := touched{map[*File]map[Blk]bool{}, map[*File]map[Blk]bool{}, map[*File]bool{}, map[*File]bool{}}
	nodes := map[zodb.Oid][]nodeRef{}
	var buf [2]blkRef
	t.mu.Lock()
	for _, oid := range oids {
		for _, r := range t.blkRefs.appendOf(buf[:0], oid) {
			mark(to.blks, t.byNo[r.file], r.blk)
		}
		if refs := t.nodeRefs.appendOf(nil, oid); refs != nil {
			nodes[oid] = refs
		}
	}
	t.mu.Unlock()
	before := c.Tid - 1
	if c.Gap != 0 {
		before = c.Gap
	}
	for oid, refs := range nodes {
		var diff []span
		var leaf bool
		err := t.insist(ctx, func() (err error) {
			diff, leaf, err = t.diffNode(ctx, oid, before, c.Tid)
			return err
		})
		if err != nil {
			return to, &FileError{t.filesOf(oid), err}
		}
		t.mu.Lock()
		for _, r := range refs {
			f := t.byNo[r.file]
			to.files[f] = true
			if leaf && len(diff) > 0 {
				to.keys[f] = true
			}
			for _, d := range diff {
				f.blocks.between(max(d.lo, r.lo), min(d.hi, r.hi()), func(b *block) { mark(to.look, f, b.blk) })
			}
		}
		t.mu.Unlock()
	}
	return to, nil
}

func mark(m map[*File]map[Blk]bool, f *File, blk Blk) {
	if m[f] == nil {
		m[f] = map[Blk]bool{}
	}
	m[f][blk] = true
}

// diffNode returns the ranges of keys below a node whose mapping may differ between two revisions; if the
// node is a leaf in both, it does differ.
func (t *Tail) diffNode(ctx context.Context, oid zodb.Oid, before, at zodb.Tid) (diff []span, leaf bool, err error) {
	all := []span{{btree.KeyMin, btree.KeyMax}}
	old, _, err := t.Node(ctx, oid, before)
	if isAnswer(err) { // absent, or it cannot be read any more
		return all, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("node %s: %w", oid, err)
	}
	now, _, err := t.Node(ctx, oid, at)
	if zodb.IsAbsent(err) {
		return all, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("node %s: %w", oid, err)
	}
	if old.Leaf && now.Leaf {
		return diffLeaf(old, now), true, nil
	}
	if old.Leaf != now.Leaf {
		return all, false, nil
	}
	return diffInner(old, now), false, nil
}

// diffLeaf returns the keys that are mapped differently.
func diffLeaf(a, b *btree.Node) []span {
	var out []span
	add := func(k btree.Key) { out = append(out, span{k, k}) }
	i, j := 0, 0
	for i < len(a.Keys) || j < len(b.Keys) {
		switch {
		case j == len(b.Keys) || i < len(a.Keys) && a.Keys[i] < b.Keys[j]:
			add(a.Keys[i])
			i++
		case i == len(a.Keys) || b.Keys[j] < a.Keys[i]:
			add(b.Keys[j])
			j++
		default:
			if a.Refs[i] != b.Refs[j] {
				add(a.Keys[i])
			}
			i, j = i+1, j+1
		}
	}
	return out
}

// diffInner returns the ranges that are not served by the same child in both.
func diffInner(a, b *btree.Node) []span {
	same := map[span]zodb.Oid{}
	for i, oid := range a.Refs {
		same[childSpan(a, i)] = oid
	}
	var out []span
	for j, oid := range b.Refs {
		s := childSpan(b, j)
		if old, ok := same[s]; ok && old == oid {
			continue
		}
		if n := len(out); n > 0 && out[n-1].hi+1 == s.lo {
			out[n-1].hi = s.hi
			continue
		}
		out = append(out, s)
	}
	return out
}

func childSpan(n *btree.Node, i int) span {
	s := span{btree.KeyMin, btree.KeyMax}
	if i > 0 {
		s.lo = n.Keys[i-1]
	}
	if i < len(n.Keys) {
		s.hi = n.Keys[i] - 1
	}
	return s
}

func (t *Tail) sizes(ctx context.Context, files map[*File]bool, at zodb.Tid) (map[*File]sized, error) {
	out := map[*File]sized{}
	for f := range files {
		var size int64
		var path []btree.Step
		err := t.insist(ctx, func() (err error) {
			size, path, err = t.Size(ctx, f.BigFile, at)
			return err
		})
		if err != nil {
			return nil, &FileError{[]*File{f}, fmt.Errorf("size: %w", err)}
		}
		out[f] = sized{size, path}
	}
	return out, nil
}

// apply records what a commit did, in one critical section.
func (t *Tail) apply(c zodb.Commit, to touched, moved map[*File][]remap, sizes map[*File]sized) []FileDelta {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := to.blks
	for f, ms := range moved {
		for _, r := range ms {
			b := f.find(r.blk)
			if b.mapping() != r.m {
				mark(changed, f, r.blk)
			}
			t.addNodes(f, r.path)
		}
	}
	byFile := map[*File]*FileDelta{}
	delta := func(f *File) *FileDelta {
		if byFile[f] == nil {
			byFile[f] = &FileDelta{File: f, Size: f.lastAttr().size}
		}
		return byFile[f]
	}
	for f, blks := range changed {
		d := delta(f)
		for blk := range blks {
			d.Blocks = append(d.Blocks, blk)
		}
		slices.Sort(d.Blocks)
		for _, blk := range d.Blocks {
			b := f.find(blk)
			m := b.mapping()
			d.Old = append(d.Old, Save{Hole: m.Hole, ZBlk: m.ZBlk, Serial: b.zserial, Hash: b.hash})
			f.changed(b, c.Tid, t.tail)
			if c.Gap != 0 { // when in the gap it changed is found out when somebody asks
				delete(f.revs, blk)
				b.since, b.base, b.pathMax = c.Tid, 0, c.Tid
				f.addRecent(sinceRef{c.Tid, blk})
			}
		}
		f.deltas = append(f.deltas, blkDelta{c.Tid, d.Blocks})
	}
	for f, ms := range moved {
		for _, r := range ms {
			b := f.find(r.blk)
			t.dropBlk(f, r.blk, b.mapping())
			b.setMapping(r.m)
			t.addBlk(f, r.blk, r.m)
		}
	}
	for f := range to.keys {
		delta(f)
	}
	for f, s := range sizes {
		t.addNodes(f, s.path)
		if s.size != f.lastAttr().size {
			d := delta(f)
			d.Size, d.Resize = s.size, true
		}
	}
	for f, d := range byFile {
		f.setAttr(c.Tid, d.Size, t.tail)
	}
	return t.recordLocked(c, byFile)
}

// recordLocked notes with the commit which files it changed. mu must be held.
func (t *Tail) recordLocked(c zodb.Commit, byFile map[*File]*FileDelta) []FileDelta {
	var out []FileDelta
	var files []*File
	for f, d := range byFile {
		out = append(out, *d)
		files = append(files, f)
	}
	if i := t.after(c.Tid - 1); i < len(t.list) && t.list[i].Tid == c.Tid {
		t.list[i].files = files
	}
	slices.SortFunc(out, func(a, b FileDelta) int { return int(int64(a.File.Oid - b.File.Oid)) })
	return out
}

// changedInGap returns the tracked objects whose serial as of c.Tid lies in the gap.
func (t *Tail) changedInGap(ctx context.Context, c zodb.Commit) ([]zodb.Oid, error) {
	var oids, out []zodb.Oid
	t.mu.Lock()
	for oid := range t.nodeRefs.one {
		oids = append(oids, oid)
	}
	for oid := range t.blkRefs.one {
		oids = append(oids, oid)
	}
	t.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(gapLoads)
	var mu sync.Mutex
	for batch := range slices.Chunk(oids, gapBatch) {
		g.Go(func() error {
			changed, err := t.changedOf(ctx, batch, c)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, changed...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

const (
	gapBatch = 64 // objects whose serials are asked for one after another
	gapLoads = 4  // batches at once
)

// changedOf is changedInGap for some objects.
func (t *Tail) changedOf(ctx context.Context, oids []zodb.Oid, c zodb.Commit) (out []zodb.Oid, err error) {
	for _, oid := range oids {
		var serial zodb.Tid
		err := t.insist(ctx, func() (err error) {
			serial, err = t.serialInDB(ctx, oid, c.Tid)
			return err
		})
		if k := zodb.KindOf(err); err != nil && (k == zodb.KindAnswer || k == zodb.Unknown) {
			serial, err = c.Tid, nil // taken for changed: who needs it will find out what is wrong
		}
		if err != nil {
			return nil, &FileError{t.filesOf(oid), err}
		}
		if serial > c.Gap {
			out = append(out, oid)
		}
	}
	return out, nil
}

// insist loads, and again in an outage.
func (t *Tail) insist(ctx context.Context, load func() error) error {
	err := load()
	if t.opts.Retry == nil || zodb.KindOf(err) != zodb.KindOutage {
		return err
	}
	return t.opts.Retry(ctx, load)
}
