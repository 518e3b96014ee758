package history

import (
	"context"
	"math"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

var _ btree.Source = (*Tail)(nil)

// Node returns a BTree node as of at, which must not be newer than what is published.
func (t *Tail) Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (*btree.Node, zodb.Tid, error) {
	t.mu.Lock()
	if v, ok := t.nodes.get(oid, at); ok {
		t.mu.Unlock()
		return v.val, v.serial, nil
	}
	from := max(at, t.tail)
	hold := t.holdLocked(from)
	t.mu.Unlock()
	defer hold.Release()

	end := t.meter.begin(loadNode)
	rec, err := t.stor.LoadAt(ctx, oid, at)
	t.answered(err)
	end(err)
	if err != nil {
		return nil, 0, err
	}
	n, err := btree.Decode(oid, rec)
	if err != nil {
		return nil, 0, err
	}
	t.mu.Lock()
	// Commits published since the load began may be missing from rec.Until.
	t.nodes.put(oid, rec.Serial, min(rec.Until, t.firstTouch(oid, from)), n, nodeBytes(n))
	t.mu.Unlock()
	return n, rec.Serial, nil
}

func nodeBytes(n *btree.Node) int { return 200 + 8*len(n.Keys) + 8*len(n.Refs) }

// Lookup finds a block's mapping as of at, with the nodes on the way.
func (t *Tail) Lookup(ctx context.Context, bf zdata.BigFile, blk Blk, at zodb.Tid) (Mapping, []btree.Step, error) {
	zblk, ok, path, err := btree.Get(ctx, t, bf.Blktab, at, btree.Key(blk))
	if err != nil {
		return Mapping{}, nil, err
	}
	if !ok {
		return Mapping{Hole: true}, path, nil
	}
	if zblk == btree.NoValue { // Python reads zeros there, though the file reaches to it
		return Mapping{Hole: true}, path, nil
	}
	return Mapping{ZBlk: zblk}, path, nil
}

// Size returns a file's size in bytes as of at, with the nodes that determine it.
func (t *Tail) Size(ctx context.Context, bf zdata.BigFile, at zodb.Tid) (int64, []btree.Step, error) {
	key, ok, path, err := btree.MaxKey(ctx, t, bf.Blktab, at)
	if err != nil || !ok {
		return 0, path, err
	}
	if key < 0 || int64(key) >= math.MaxInt64/bf.Blksize {
		return 0, nil, &zodb.DataError{Oid: bf.Blktab, Serial: at, Pos: -1, Msg: "last block number is out of range"}
	}
	return (int64(key) + 1) * bf.Blksize, path, nil
}

// BigFile loads the state of a ZBigFile as of at.
func (t *Tail) BigFile(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zdata.BigFile, error) {
	end := t.meter.begin(loadFile)
	rec, err := t.stor.LoadAt(ctx, oid, at)
	t.answered(err)
	end(err)
	if err != nil {
		return zdata.BigFile{}, err
	}
	bf, err := zdata.DecodeBigFile(oid, rec)
	bf.Serial = rec.Serial
	return bf, err
}

// serialAt returns the serial of oid as of at, or any tid <= floor when it is not newer than that.
// The list of commits is asked first, the storage's index next; data is loaded only as the last resort.
func (t *Tail) serialAt(ctx context.Context, oid zodb.Oid, at, floor zodb.Tid) (zodb.Tid, error) {
	t.mu.Lock()
	if at >= t.tail {
		s := t.stamp(oid, at)
		if s != 0 && (t.lastGap == 0 || s > t.lastGap) || s == 0 && t.tail <= floor {
			t.mu.Unlock()
			return max(s, min(t.tail, floor)), nil
		}
	}
	if v, ok := t.blocks.get(oid, at); ok {
		t.mu.Unlock()
		return v.serial, nil
	}
	t.mu.Unlock()
	return t.serialInDB(ctx, oid, at)
}

// serialInDB asks the storage for a serial.
func (t *Tail) serialInDB(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial zodb.Tid, err error) {
	end := t.meter.begin(loadSerial)
	defer func() { end(err) }()
	if s, ok := t.stor.(zodb.SerialLoader); ok {
		serial, _, err := s.SerialAt(ctx, oid, at)
		t.answered(err)
		return serial, err
	}
	rec, err := t.stor.LoadAt(ctx, oid, at)
	t.answered(err)
	return rec.Serial, err
}

// answered tells that the database was asked, and has answered unless err says otherwise.
func (t *Tail) answered(err error) {
	if t.opts.Answered != nil && zodb.KindOf(err) == zodb.KindAnswer {
		t.opts.Answered()
	}
}
