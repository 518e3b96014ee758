// Package zdata knows how wendelin.core keeps a bigfile in ZODB: ZBigFile, ZBlk0 (and its older name
// ZBlk), ZBlk1 with its ZData chunks.
//
// It owns the decoding of those objects to block bytes. It does not own caches, revisions or tracking.
package zdata

import (
	"context"
	"errors"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// Blk is the number of a block in a bigfile: bytes [blk*blksize, (blk+1)*blksize).
type Blk int64

// ErrNotBigFile says that an object is not a ZBigFile.
var ErrNotBigFile = zodb.Answer(errors.New("not a ZBigFile"))

// BigFile is the state of a ZBigFile object at one revision.
type BigFile struct {
	Oid     zodb.Oid
	Serial  zodb.Tid
	Blksize int64    // bytes, > 0, at most MaxBlksize
	Blktab  zodb.Oid // LOBTree: Blk -> ZBlk
}

// MaxBlksize bounds what a database may ask this process to allocate for one block: 1 GiB.
const MaxBlksize = 1 << 30

// DecodeBigFile decodes the record of oid. An object of another class: an error that matches
// ErrNotBigFile. A ZBigFile with bad state: *zodb.DataError.
func DecodeBigFile(oid zodb.Oid, rec zodb.Record) (BigFile, error) { return decodeBigFile(oid, rec) }

// LoadBlk returns the data of the ZBlk0, ZBlk or ZBlk1 object zblk as of at, and the serial of that
// object: exactly blksize bytes, or fewer when the rest is zeros. Chunks of a ZBlk1 are loaded in
// parallel; nodes come from src. An object that is no ZBlk, chunks that overlap or overrun: *zodb.DataError.
func LoadBlk(ctx context.Context, stor zodb.Storage, src btree.Source, zblk zodb.Oid, at zodb.Tid, blksize int64) (data []byte, serial zodb.Tid, err error) {
	return loadBlk(ctx, stor, src, zblk, at, blksize)
}
