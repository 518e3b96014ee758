package zgen

import (
	"slices"
	"sort"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// model is what was written, by revision: all lists ascend by tid and only grow. It is guarded by DB.mu.
type model struct {
	tids  []zodb.Tid
	files map[zodb.Oid][]fileRev
	tabs  map[zodb.Oid]map[zdata.Blk][]mapRev // by blktab
	zblks map[zodb.Oid][]dataRev              // every write of a ZBlk, also of the same data
}

// fileRev is one (blksize, blktab) of a ZBigFile, or its deletion.
type fileRev struct {
	tid     zodb.Tid
	blksize int64
	blktab  zodb.Oid
	deleted bool
}

// mapRev is what a key of a blktab names from tid on; 0: nothing.
type mapRev struct {
	tid  zodb.Tid
	zblk zodb.Oid
}

type dataRev struct {
	tid  zodb.Tid
	data []byte
}

// current returns the last of revs that is not later than at; ok is false when there is none.
func current[R any](revs []R, at zodb.Tid, tid func(R) zodb.Tid) (rev R, ok bool) {
	i := sort.Search(len(revs), func(i int) bool { return tid(revs[i]) > at })
	if i == 0 {
		return rev, false
	}
	return revs[i-1], true
}

func (m *model) file(f zodb.Oid, at zodb.Tid) (fileRev, bool) {
	r, ok := current(m.files[f], at, func(r fileRev) zodb.Tid { return r.tid })
	return r, ok && !r.deleted
}

func (m *model) mapping(blktab zodb.Oid, blk zdata.Blk, at zodb.Tid) (mapRev, bool) {
	return current(m.tabs[blktab][blk], at, func(r mapRev) zodb.Tid { return r.tid })
}

func (m *model) content(zblk zodb.Oid, at zodb.Tid) (dataRev, bool) {
	return current(m.zblks[zblk], at, func(r dataRev) zodb.Tid { return r.tid })
}

// addFile records the state of a ZBigFile if it is another than before.
func (m *model) addFile(f zodb.Oid, r fileRev) {
	revs := m.files[f]
	if n := len(revs); n > 0 {
		last := revs[n-1]
		last.tid = r.tid
		if last == r {
			return
		}
	}
	m.files[f] = append(revs, r)
}

// addMapping records what a key names if it is another object than before.
func (m *model) addMapping(blktab zodb.Oid, blk zdata.Blk, r mapRev) {
	tab := m.tabs[blktab]
	if tab == nil {
		tab = map[zdata.Blk][]mapRev{}
		m.tabs[blktab] = tab
	}
	var was zodb.Oid
	if n := len(tab[blk]); n > 0 {
		was = tab[blk][n-1].zblk
	}
	if was != r.zblk {
		tab[blk] = append(tab[blk], r)
	}
}

// Tids returns every commit so far, ascending.
func (db *DB) Tids() []zodb.Tid {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return slices.Clone(db.model.tids)
}

// Head returns the last commit, 0 before the first.
func (db *DB) Head() zodb.Tid {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if n := len(db.model.tids); n > 0 {
		return db.model.tids[n-1]
	}
	return 0
}

// Files returns the ZBigFiles that exist as of at, ascending.
func (db *DB) Files(at zodb.Tid) []zodb.Oid {
	db.mu.RLock()
	defer db.mu.RUnlock()
	var oids []zodb.Oid
	for f := range db.model.files {
		if _, ok := db.model.file(f, at); ok {
			oids = append(oids, f)
		}
	}
	slices.Sort(oids)
	return oids
}

// File returns the state of a ZBigFile as of at; Serial is the tid at which it got its present blksize
// and blktab. ok is false when it does not exist then.
func (db *DB) File(f zodb.Oid, at zodb.Tid) (bf zdata.BigFile, ok bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, at)
	if !ok {
		return zdata.BigFile{}, false
	}
	return zdata.BigFile{Oid: f, Serial: r.tid, Blksize: r.blksize, Blktab: r.blktab}, true
}

// Blocks returns the blocks that have data as of at, ascending.
func (db *DB) Blocks(f zodb.Oid, at zodb.Tid) []zdata.Blk {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, at)
	if !ok {
		return nil
	}
	var blks []zdata.Blk
	for blk := range db.model.tabs[r.blktab] {
		if m, ok := db.model.mapping(r.blktab, blk, at); ok && m.zblk != 0 {
			blks = append(blks, blk)
		}
	}
	slices.Sort(blks)
	return blks
}

// Size returns the size of the file in bytes as of at, 0 if it does not exist.
func (db *DB) Size(f zodb.Oid, at zodb.Tid) int64 {
	bf, ok := db.File(f, at)
	blks := db.Blocks(f, at)
	if !ok || len(blks) == 0 {
		return 0
	}
	return (int64(blks[len(blks)-1]) + 1) * bf.Blksize
}

// Zblk returns the object that holds a block as of at, 0 for a hole.
func (db *DB) Zblk(f zodb.Oid, blk zdata.Blk, at zodb.Tid) zodb.Oid {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, at)
	if !ok {
		return 0
	}
	m, _ := db.model.mapping(r.blktab, blk, at)
	return m.zblk
}

// Data returns the blksize bytes of a block as of at: zeros for a hole, nil if the file does not exist.
func (db *DB) Data(f zodb.Oid, blk zdata.Blk, at zodb.Tid) []byte {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, at)
	if !ok {
		return nil
	}
	data := make([]byte, r.blksize)
	if m, ok := db.model.mapping(r.blktab, blk, at); ok && m.zblk != 0 {
		c, _ := db.model.content(m.zblk, at)
		copy(data, c.data)
	}
	return data
}

// Changed returns the blocks of f that the commit tid changed, ascending: those whose mapping in the
// blktab changed, and those whose ZBlk was written. A commit that gave f another blksize or blktab, or
// created or deleted it, is none of blocks: epoch is true then.
func (db *DB) Changed(f zodb.Oid, tid zodb.Tid) (blks []zdata.Blk, epoch bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, tid)
	if revs := db.model.files[f]; slices.ContainsFunc(revs, func(r fileRev) bool { return r.tid == tid }) {
		epoch = true
	}
	if !ok {
		return nil, epoch
	}
	for blk := range db.model.tabs[r.blktab] {
		m, ok := db.model.mapping(r.blktab, blk, tid)
		c, _ := db.model.content(m.zblk, tid)
		if ok && (m.tid == tid || m.zblk != 0 && c.tid == tid) {
			blks = append(blks, blk)
		}
	}
	slices.Sort(blks)
	return blks, epoch
}

// BlkRevAt returns the largest tid <= at whose commit changed the block, but at least the tid at which
// the file got its present blksize and blktab. 0 if the file does not exist as of at. A server's answer
// is the larger of that and the head it started with.
func (db *DB) BlkRevAt(f zodb.Oid, blk zdata.Blk, at zodb.Tid) zodb.Tid {
	db.mu.RLock()
	defer db.mu.RUnlock()
	r, ok := db.model.file(f, at)
	if !ok {
		return 0
	}
	m, ok := db.model.mapping(r.blktab, blk, at)
	if !ok {
		return r.tid
	}
	// A write of the ZBlk from before the key came to name it is older than m.tid.
	c, _ := db.model.content(m.zblk, at)
	return max(r.tid, m.tid, c.tid)
}
