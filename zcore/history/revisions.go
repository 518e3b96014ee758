package history

import (
	"context"
	"fmt"
	"slices"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// Revision is one revision of a bigfile.
type Revision struct {
	Tid    zodb.Tid    `json:"-"`
	Size   int64       `json:"size"`
	Blocks []zdata.Blk `json:"blocks"` // the blocks that changed, in order
}

// Range is a range of blocks, both ends included.
type Range struct{ First, Last zdata.Blk }

// Revisions calls fn for every revision of a bigfile at or below at, newest first, as far back as the database goes.
// It needs only loads at a tid, so it works on every storage. It shares no state and no code with δF.
func Revisions(ctx context.Context, stor zodb.Storage, oid zodb.Oid, at zodb.Tid, blocks Range, fn func(Revision) error) error {
	h := &revisions{stor: stor, oid: oid, blocks: blocks, nodes: map[zodb.Oid]nodeVer{}, serials: map[zodb.Oid]zodb.Tid{}}
	return h.walk(ctx, at, fn)
}

// revisions is a walk of Revisions. It goes down in time, so a record that was loaded as of t and has serial s is the
// current one for every tid from s to t: a step back loads only the records that the revision just seen had written.
type revisions struct {
	stor    zodb.Storage
	oid     zodb.Oid
	blocks  Range
	nodes   map[zodb.Oid]nodeVer
	serials map[zodb.Oid]zodb.Tid // of ZBlks
}

type nodeVer struct {
	node   *btree.Node
	serial zodb.Tid
}

// fileState is a bigfile as of some tid.
type fileState struct {
	file    zdata.BigFile
	size    int64
	blocks  map[zdata.Blk]zodb.Oid
	serials map[zdata.Blk]zodb.Tid // of the ZBlks
	latest  zodb.Tid               // newest serial of all records of the file
}

func (s *fileState) has(blk zdata.Blk) bool {
	_, ok := s.blocks[blk]
	return ok
}

// walk calls fn for every revision at or below at.
func (h *revisions) walk(ctx context.Context, at zodb.Tid, fn func(Revision) error) error {
	cur, err := h.state(ctx, at)
	if err != nil {
		return err
	}
	for {
		prev, err := h.state(ctx, cur.latest-1)
		first := zodb.IsAbsent(err)
		if err != nil && !first {
			return err
		}
		if first {
			prev = &fileState{}
		}
		rev := Revision{Tid: cur.latest, Size: cur.size, Blocks: h.changed(prev, cur)}
		// Blocks outside the range may be all that changed.
		if len(rev.Blocks) > 0 || first || cur.size != prev.size || cur.file.Serial != prev.file.Serial {
			if err := fn(rev); err != nil {
				return err
			}
		}
		if first {
			return nil
		}
		cur = prev
	}
}

// changed returns the blocks that cur's last transaction changed, in order: written anew, given to another ZBlk, deleted.
func (h *revisions) changed(prev, cur *fileState) []zdata.Blk {
	blocks := []zdata.Blk{}
	for blk, zblk := range cur.blocks {
		if cur.serials[blk] == cur.latest || prev.blocks[blk] != zblk || !prev.has(blk) {
			blocks = append(blocks, blk)
		}
	}
	for blk := range prev.blocks {
		if !cur.has(blk) {
			blocks = append(blocks, blk)
		}
	}
	slices.Sort(blocks)
	return blocks
}

// state loads the bigfile as of at.
func (h *revisions) state(ctx context.Context, at zodb.Tid) (*fileState, error) {
	rec, err := h.stor.LoadAt(ctx, h.oid, at)
	if err != nil {
		return nil, err
	}
	file, err := zdata.DecodeBigFile(h.oid, rec)
	if err != nil {
		return nil, err
	}
	s := &fileState{file: file, blocks: make(map[zdata.Blk]zodb.Oid), serials: make(map[zdata.Blk]zodb.Tid), latest: rec.Serial}
	seen := &watching{h, s}
	key, ok, _, err := btree.MaxKey(ctx, seen, file.Blktab, at)
	if err != nil {
		return nil, present(err)
	}
	if ok {
		s.size = (int64(key) + 1) * file.Blksize
	}
	err = btree.Range(ctx, seen, file.Blktab, at, btree.Key(h.blocks.First), btree.Key(h.blocks.Last), func(key btree.Key, zblk zodb.Oid, _ []btree.Step) error {
		s.blocks[zdata.Blk(key)] = zblk
		serial, ok := h.serials[zblk]
		if !ok || serial > at {
			var err error
			if serial, err = serialAt(ctx, h.stor, zblk, at); err != nil {
				return err
			}
			h.serials[zblk] = serial
		}
		s.serials[zdata.Blk(key)] = serial
		s.latest = max(s.latest, serial)
		return nil
	})
	return s, present(err)
}

// present hides that an object is absent which the file refers to: that is a damaged (or packed)
// database, not a file that was not there yet.
func present(err error) error {
	if zodb.IsAbsent(err) {
		return fmt.Errorf("part of the file is missing: %s", err)
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

// watching is a source of nodes that remembers them, and the newest serial of those it gave.
type watching struct {
	h *revisions
	s *fileState
}

// Node implements btree.Source.
func (w *watching) Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (*btree.Node, zodb.Tid, error) {
	v, ok := w.h.nodes[oid]
	if !ok || v.serial > at {
		var err error
		if v.node, v.serial, err = (btree.Direct{Storage: w.h.stor}).Node(ctx, oid, at); err != nil {
			return nil, 0, err
		}
		w.h.nodes[oid] = v
	}
	w.s.latest = max(w.s.latest, v.serial)
	return v.node, v.serial, nil
}
