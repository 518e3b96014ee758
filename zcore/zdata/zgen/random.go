package zgen

import (
	"math/rand/v2"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// Mix says what random commits may hold. The zero value is one that every reader can follow.
type Mix struct {
	// Epochs lets ZBigFiles be deleted, created again, and given another blksize or blktab, after
	// which a server that has looked such a file up gives up.
	Epochs   bool
	Blksize  int64 // of new files, 64
	MaxFiles int   // 3
	MaxBlk   int64 // blocks are numbered up to it, 40
}

func (m Mix) defaults() Mix {
	if m.Blksize == 0 {
		m.Blksize = 64
	}
	if m.MaxFiles == 0 {
		m.MaxFiles = 3
	}
	if m.MaxBlk == 0 {
		m.MaxBlk = 40
	}
	return m
}

// Random makes one random commit.
func (db *DB) Random(rng *rand.Rand, mix Mix) (zodb.Tid, error) {
	tx := db.Begin()
	tx.Random(rng, mix)
	const second = 1 << 32 / 60
	return tx.CommitAt(db.head + 1 + zodb.Tid(rng.Int64N(second)))
}

// Random adds one to some random changes to a commit.
func (tx *Tx) Random(rng *rand.Rand, mix Mix) {
	tx.db.needModel()
	r := random{tx: tx, rng: rng, mix: mix.defaults()}
	for range 1 + rng.IntN(4) {
		r.change()
	}
}

// random makes the changes of one commit.
type random struct {
	tx  *Tx
	rng *rand.Rand
	mix Mix
}

// files returns the files that there are now, in order of oid.
func (r *random) files(deleted bool) []zodb.Oid {
	var oids []zodb.Oid
	for oid := zodb.Oid(1); oid <= r.tx.db.last; oid++ {
		if f := r.tx.db.files[oid]; f != nil && f.deleted == deleted {
			oids = append(oids, oid)
		}
	}
	return oids
}

func (r *random) pick(oids []zodb.Oid) zodb.Oid { return oids[r.rng.IntN(len(oids))] }

func (r *random) change() {
	files := r.files(false)
	if len(files) == 0 || len(files) < r.mix.MaxFiles && r.rng.IntN(20) == 0 {
		if len(files) > 0 && r.rng.IntN(2) == 0 {
			r.tx.NewFileSharing(r.pick(files))
			return
		}
		r.write(r.tx.NewFile(r.mix.Blksize))
		return
	}
	f := r.pick(files)
	if r.mix.Epochs && r.rng.IntN(12) == 0 {
		r.epoch(f)
		return
	}
	t := r.tx.file(f).tab
	switch op := r.rng.IntN(20); op {
	case 0, 1, 2, 3:
		r.write(f)
	case 4, 5, 6, 7, 8:
		r.tx.tab(t)
		for range 1 + r.rng.IntN(4) {
			t.reshape(r.rng)
		}
	case 9:
		r.tx.Object(0, "unrelated")
	case 10:
		r.tx.Truncate(f, zdata.Blk(r.rng.Int64N(2*r.mix.MaxBlk)))
	case 11: // sometimes everything goes
		if r.rng.IntN(3) == 0 {
			r.tx.Truncate(f, 0)
		}
	default:
		r.existing(f, op)
	}
}

// blocks returns the blocks of f that have data now.
func (r *random) blocks(f zodb.Oid) []zdata.Blk {
	var blks []zdata.Blk
	for _, l := range r.tx.file(f).tab.root.leaves(nil) {
		for _, k := range l.keys {
			blks = append(blks, zdata.Blk(k))
		}
	}
	return blks
}

// existing changes a block that has data.
func (r *random) existing(f zodb.Oid, op int) {
	blks := r.blocks(f)
	if len(blks) == 0 {
		r.write(f)
		return
	}
	n := blks[r.rng.IntN(len(blks))]
	b := r.tx.blk(f, n)
	other := zdata.Blk(r.rng.Int64N(r.mix.MaxBlk + 1))
	switch op {
	case 12:
		r.tx.Touch(f, n)
	case 13:
		r.tx.Punch(f, n)
	case 14: // one ZBlk under two keys
		r.tx.Map(f, other, b.oid)
	case 15: // a ZBlk moved to another key
		r.tx.Punch(f, n)
		r.tx.Map(f, other, b.oid)
	case 16:
		r.undo(f, n)
	case 17:
		if b.kind == Blk1 {
			r.tx.reshapeChunks(b, func(t *tree) { t.reshape(r.rng) })
		}
	default:
		size := r.tx.file(f).blksize
		off := r.rng.Int64N(size)
		r.tx.Patch(f, n, off, r.bytes(1+r.rng.Int64N(size-off)))
	}
}

// undo makes the block name the ZBlk that it named at some earlier commit.
func (r *random) undo(f zodb.Oid, n zdata.Blk) {
	db := r.tx.db
	tids := db.Tids()
	if len(tids) == 0 {
		return
	}
	at := tids[max(0, len(tids)-1-r.rng.IntN(8))]
	if bf, ok := db.File(f, at); ok && bf.Blktab == r.tx.file(f).tab.root.oid {
		r.tx.Map(f, n, db.Zblk(f, n, at))
	}
}

func (r *random) write(f zodb.Oid) {
	kinds := [...]Kind{Blk0, BlkOld, Blk1, Blk1}
	n := zdata.Blk(r.rng.Int64N(r.mix.MaxBlk + 1))
	r.tx.Write(f, n, r.bytes(r.rng.Int64N(r.tx.file(f).blksize+1)), kinds[r.rng.IntN(len(kinds))])
}

// bytes returns random data with runs of zeros.
func (r *random) bytes(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.rng.IntN(256))
	}
	if n > 0 && r.rng.IntN(3) == 0 {
		from := r.rng.Int64N(n)
		clear(b[from : from+r.rng.Int64N(n-from+1)])
	}
	return b
}

func (r *random) epoch(f zodb.Oid) {
	size := r.tx.file(f).blksize
	switch gone := r.files(true); r.rng.IntN(5) {
	case 0:
		if !r.tx.files[r.tx.file(f)] { // there is nothing to delete yet in a file of this commit
			r.tx.DeleteFile(f)
		}
	case 1:
		if len(gone) > 0 {
			r.tx.RestoreFile(r.pick(gone))
		}
	case 2:
		r.tx.ResetFile(f, 1+r.rng.Int64N(2*r.mix.Blksize))
	case 3:
		if !r.shared(f) {
			r.tx.GrowBlksize(f, size+r.rng.Int64N(20))
		}
	case 4:
		r.tx.TouchFile(f)
	}
}

// shared tells whether another file, deleted or not, has the blktab of f: then a larger blksize of one
// would let it write blocks that overrun those of the other.
func (r *random) shared(f zodb.Oid) bool {
	for _, o := range r.tx.db.files {
		if o.oid != f && o.tab == r.tx.file(f).tab {
			return true
		}
	}
	return false
}
