package zcore

import (
	"context"
	"fmt"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// RevFile is a bigfile as of a fixed revision. It holds no state but a few words.
type RevFile struct {
	c    *Core
	bf   zdata.BigFile
	rev  zodb.Tid
	size int64
}

type revKey struct {
	rev zodb.Tid
	oid zodb.Oid
}

// keptRev is a RevFile that pins under way need, so that opening it asks no database.
type keptRev struct {
	file *RevFile
	refs int // Core.mu
}

// LookupRev finds the bigfile oid as of rev <= head. Errors as Lookup; ErrNotExist when rev > head.
func (c *Core) LookupRev(ctx context.Context, rev zodb.Tid, oid zodb.Oid) (*RevFile, error) {
	if c.isFailed() {
		return nil, ErrNotConn
	}
	c.mu.Lock()
	kept, future := c.revs[revKey{rev, oid}], rev > c.head
	c.mu.Unlock()
	if kept != nil {
		return kept.file, nil
	}
	if future {
		return nil, ErrNotExist
	}
	ctx, done := c.within(ctx)
	defer done()
	return c.loadRev(ctx, rev, oid)
}

func (c *Core) loadRev(ctx context.Context, rev zodb.Tid, oid zodb.Oid) (*RevFile, error) {
	bf, err := c.tail.BigFile(ctx, oid, rev)
	if err != nil {
		return nil, c.lookupError(ctx, err, oid, rev)
	}
	size, _, err := c.tail.Size(ctx, bf, rev)
	if err != nil {
		return nil, c.ioError(ctx, err, "lookup", oid, rev)
	}
	return &RevFile{c: c, bf: bf, rev: rev, size: size}, nil
}

// keepRev loads the attributes of a file at rev and keeps them until release is called. It fails where
// the block cannot be found any more as of then.
func (c *Core) keepRev(ctx context.Context, rev zodb.Tid, oid zodb.Oid, blk Blk) (release func(), err error) {
	key := revKey{rev, oid}
	c.mu.Lock()
	k := c.revs[key]
	if k != nil {
		k.refs++
	}
	c.mu.Unlock()
	if k == nil {
		file, err := c.loadRev(ctx, rev, oid)
		if err != nil {
			return nil, err
		}
		if _, _, err := c.tail.Lookup(ctx, file.bf, blk, rev); err != nil {
			return nil, err
		}
		c.mu.Lock()
		if k = c.revs[key]; k == nil {
			k = &keptRev{file: file}
			c.revs[key] = k
		}
		k.refs++
		c.mu.Unlock()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if k.refs--; k.refs == 0 {
			delete(c.revs, key)
		}
	}, nil
}

// Attr never waits.
func (r *RevFile) Attr() FileAttr {
	return FileAttr{Size: r.size, Blksize: r.bf.Blksize, Mtime: r.bf.Serial.StatTime()}
}

// Read never waits for pins.
func (r *RevFile) Read(ctx context.Context, size int, off int64) (Data, error) {
	if r.c.isFailed() {
		return Data{}, ErrNotConn
	}
	if off < 0 || off >= r.size || size <= 0 {
		return Data{}, nil
	}
	size = int(min(int64(size), r.size-off))
	ctx, done := r.c.within(ctx)
	defer done()
	var d Data
	var got []content
	d.Done = func() {
		for _, b := range got {
			b.release()
		}
	}
	for _, p := range splitBlocks(off, size, r.bf.Blksize) {
		b, err := r.readBlk(ctx, p.blk)
		if err != nil {
			d.Done()
			return Data{}, err
		}
		got = append(got, b)
		d.Pieces = r.c.appendPieces(d.Pieces, b, p.off, p.len)
	}
	return d, nil
}

func (r *RevFile) readBlk(ctx context.Context, blk Blk) (content, error) {
	m, _, err := r.c.tail.Lookup(ctx, r.bf, blk, r.rev)
	if err != nil {
		return content{}, r.c.ioError(ctx, err, fmt.Sprintf("look up block %d of", blk), r.bf.Oid, r.rev)
	}
	if m.Hole {
		return content{}, nil
	}
	b, _, _, err := r.c.loadContent(ctx, m.ZBlk, r.rev, r.bf.Blksize)
	if err != nil {
		return content{}, r.c.ioError(ctx, err, fmt.Sprintf("read block %d,", blk), m.ZBlk, r.rev)
	}
	return b, nil
}
