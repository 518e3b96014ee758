package zcore

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// content is what a block holds, up to where only zeros follow: bytes in memory or, where plain.File is
// set, a range of the database's file. The zero value is a hole.
type content struct {
	mem   []byte
	plain history.Plain
}

// release gives back what the content holds; it is not used after that.
func (b content) release() {
	if b.plain.File != nil {
		b.plain.Release()
	}
}

// aheadStep is the size of one fadvise(WILLNEED): the kernel truncates it to the device's maximum request size,
// and 256 KiB is below every such maximum.
const aheadStep = 256 << 10

// aheadBlocks is how many blocks are asked of the disk at once: while one is handed over it must not rest.
const aheadBlocks = 4

// readAhead has the kernel begin to read the block, and what comes after it, from disk: where a block is read
// in order, the next one most often comes next in the file too.
func (b content) readAhead() {
	if b.plain.File == nil {
		return
	}
	raw, err := b.plain.File.SyscallConn()
	if err != nil {
		return // it is only a help
	}
	raw.Control(func(fd uintptr) {
		if inMemory(fd, b.plain.Off+aheadBlocks*b.plain.Len-1) {
			return // the rest most likely is too, and asking for that takes time
		}
		for off := int64(0); off < aheadBlocks*b.plain.Len; off += aheadStep {
			if unix.Fadvise(int(fd), b.plain.Off+off, aheadStep, unix.FADV_WILLNEED) != nil {
				return
			}
		}
	})
}

// inMemory tells whether a byte of a file can be read without a wait for the disk.
func inMemory(fd uintptr, off int64) bool {
	n, err := unix.Preadv2(int(fd), [][]byte{make([]byte, 1)}, off, unix.RWF_NOWAIT)
	return err == nil && n >= 0 // 0: the file ends before
}

// loadContent loads a ZBlk as of at, which for one that lies as it is in a file means to find it. hash is
// 0 when the bytes were not looked at.
func (c *Core) loadContent(ctx context.Context, zblk zodb.Oid, at zodb.Tid, blksize int64) (b content, serial zodb.Tid, hash uint64, err error) {
	if p, ok := c.tail.Plain(ctx, zblk, at, blksize); ok {
		return content{plain: p}, p.Serial, 0, nil
	}
	m, err := c.tail.Block(ctx, zblk, at, blksize)
	if err != nil {
		return content{}, 0, 0, err
	}
	return content{mem: m.Data}, m.Serial, m.Hash, nil
}

// appendPieces appends n bytes at off of a block.
func (c *Core) appendPieces(ps []Piece, b content, off int64, n int) []Piece {
	switch {
	case b.plain.File != nil && off < b.plain.Len:
		k := int(min(int64(n), b.plain.Len-off))
		ps = append(ps, Piece{File: b.plain.File, Off: b.plain.Off + off, Len: k, check: b.plain.Check})
		n -= k
	case off < int64(len(b.mem)):
		k := min(n, len(b.mem)-int(off))
		ps = append(ps, Piece{Mem: b.mem[off : off+int64(k)]})
		n -= k
	}
	for n > 0 {
		k := min(n, len(c.zeros))
		ps = append(ps, Piece{Mem: c.zeros[:k]})
		n -= k
	}
	return ps
}

// copyPlain fills p with the content of a ZBlk as of at, zeros past its end; false when that does not lie
// as it is in a file, or is not the revision serial.
func (c *Core) copyPlain(ctx context.Context, p []byte, zblk zodb.Oid, at, serial zodb.Tid) (bool, error) {
	b, ok := c.tail.Plain(ctx, zblk, at, int64(len(p)))
	if !ok {
		return false, nil
	}
	defer b.Release()
	if b.Serial != serial {
		return false, nil
	}
	if _, err := b.File.ReadAt(p[:b.Len], b.Off); err != nil {
		return false, fmt.Errorf("read the database's file: %w", err)
	}
	if err := b.Check(); err != nil {
		return false, err
	}
	clear(p[b.Len:])
	return true, nil
}

// buffer lends a buffer of n bytes, with any content.
func (c *Core) buffer(n int64) (p []byte, giveBack func()) {
	if b, _ := c.buffers.Get().(*[]byte); b != nil && int64(cap(*b)) >= n {
		p = (*b)[:n]
	} else {
		p = make([]byte, n)
	}
	return p, func() { c.buffers.Put(&p) }
}
