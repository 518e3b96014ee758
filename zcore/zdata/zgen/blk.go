package zgen

import (
	"bytes"
	"fmt"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Kind is the class of a block.
type Kind string

// The classes a block can have.
const (
	Blk0    Kind = "ZBlk0"
	BlkOld  Kind = "ZBlk" // the older name of ZBlk0
	Blk1    Kind = "ZBlk1"
	dataCls Kind = "ZData"
)

func (k Kind) class() record.Class { return record.Class{Module: record.ModBigFile, Name: string(k)} }

// blk is a ZBlk as it is now.
type blk struct {
	oid  zodb.Oid
	kind Kind
	data []byte // trailing zeros cut; never written to, but replaced

	// Blk1 only.
	size   int64            // of a chunk
	chunks *tree            // offset -> ZData
	dirty  map[int64][]byte // chunks to be written, by offset
}

func (db *DB) newBlk(kind Kind) *blk {
	b := &blk{oid: db.alloc(), kind: kind, size: db.opt.ChunkSize}
	if kind == Blk1 {
		b.chunks = newTree(record.IO, db.opt.LeafMax, db.opt.NodeMax, db.alloc)
		b.dirty = map[int64][]byte{}
	}
	db.blks[b.oid] = b
	return b
}

// set replaces the data. Of a ZBlk1 only the chunks that differ are written; zeros need no chunk.
func (b *blk) set(data []byte) {
	data = bytes.TrimRight(bytes.Clone(data), "\x00")
	if b.kind == Blk1 {
		for off := int64(0); off < int64(max(len(data), len(b.data))); off += b.size {
			was, is := piece(b.data, off, b.size), piece(data, off, b.size)
			if bytes.Equal(was, is) {
				continue
			}
			if len(is) == 0 {
				b.chunks.del(off)
				delete(b.dirty, off)
				continue
			}
			if _, ok := b.chunks.get(off); !ok {
				b.chunks.put(off, ref{b.chunks.alloc(), dataCls.class()})
			}
			b.dirty[off] = is
		}
	}
	b.data = data
}

// piece returns the bytes of one chunk, trailing zeros cut.
func piece(data []byte, off, size int64) []byte {
	n := int64(len(data))
	return bytes.TrimRight(data[min(off, n):min(off+size, n)], "\x00")
}

// write puts the records of the block into objs. The ZBlk object is always among them.
func (b *blk) write(style record.Style, objs map[zodb.Oid][]byte) {
	switch b.kind {
	case Blk0:
		objs[b.oid] = style.Blk0(b.data)
	case BlkOld:
		objs[b.oid] = style.Blk(b.data)
	case Blk1:
		objs[b.oid] = style.Blk1(b.chunks.root.oid)
		b.chunks.write(style, objs)
		for off, data := range b.dirty {
			c, _ := b.chunks.get(off)
			objs[c.oid] = style.Data(data)
		}
		clear(b.dirty)
	}
}

// Write sets the data of a block; zeros follow it up to the end of the block. If the block is there as
// the same kind its ZBlk is written, else a new ZBlk takes its place.
func (tx *Tx) Write(f zodb.Oid, n zdata.Blk, data []byte, kind Kind) {
	file := tx.file(f)
	if int64(len(data)) > file.blksize {
		panic(fmt.Sprintf("zgen: %d bytes for a block of %d", len(data), file.blksize))
	}
	b := tx.blk(f, n)
	if b == nil || b.kind != kind {
		b = tx.db.newBlk(kind)
		tx.Map(f, n, b.oid)
	}
	b.set(data)
	tx.wrote(b)
}

// wrote marks a ZBlk as written.
func (tx *Tx) wrote(b *blk) { tx.blks[b] = true }

// blk returns the ZBlk of a block, nil for a hole.
func (tx *Tx) blk(f zodb.Oid, n zdata.Blk) *blk {
	v, ok := tx.file(f).tab.get(int64(n))
	if !ok {
		return nil
	}
	return tx.db.blks[v.oid]
}

// Patch overwrites bytes inside a block that is there. Of a ZBlk1 only the chunks they touch are
// written, and the ZBlk1 itself.
func (tx *Tx) Patch(f zodb.Oid, n zdata.Blk, off int64, data []byte) {
	b := tx.blk(f, n)
	if b == nil || off < 0 || off+int64(len(data)) > tx.file(f).blksize {
		panic("zgen: Patch of a hole, or across the end of a block")
	}
	tx.db.needModel()
	all := make([]byte, max(int64(len(b.data)), off+int64(len(data))))
	copy(all, b.data)
	copy(all[off:], data)
	b.set(all)
	tx.wrote(b)
}

// Touch writes the ZBlk of a block that is there without a change.
func (tx *Tx) Touch(f zodb.Oid, n zdata.Blk) {
	b := tx.blk(f, n)
	if b == nil {
		panic("zgen: Touch of a hole")
	}
	tx.db.needModel()
	tx.wrote(b)
}

// reshapeChunks changes the form of the chunk table of a ZBlk1, as Reshape does for blktabs, and writes
// the ZBlk1 too.
func (tx *Tx) reshapeChunks(b *blk, reshape func(*tree)) {
	reshape(b.chunks)
	tx.wrote(b)
}

// Map makes a block name a ZBlk that there is (see DB.Zblk): one that another block names as well, or
// that was here before. 0 makes a hole.
func (tx *Tx) Map(f zodb.Oid, n zdata.Blk, zblk zodb.Oid) {
	t := tx.file(f).tab
	tx.tab(t)[n] = true
	if zblk == 0 {
		t.del(int64(n))
		return
	}
	b := tx.db.blks[zblk]
	if b == nil {
		panic(fmt.Sprintf("zgen: no ZBlk %s", zblk))
	}
	t.put(int64(n), ref{zblk, b.kind.class()})
}

// Punch makes a hole of a block.
func (tx *Tx) Punch(f zodb.Oid, n zdata.Blk) { tx.Map(f, n, 0) }

// Truncate makes holes of all blocks from n on.
func (tx *Tx) Truncate(f zodb.Oid, n zdata.Blk) {
	for t := tx.file(f).tab; ; {
		last, ok := t.max()
		if !ok || last < int64(n) {
			return
		}
		tx.Punch(f, zdata.Blk(last))
	}
}
