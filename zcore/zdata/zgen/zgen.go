// Package zgen generates databases with bigfiles, for tests, benchmarks and the demo, and knows what it
// wrote.
//
// A DB keeps ZBigFiles in any Sink that takes commits: a storage in memory, a FileStorage writer. It
// has its own writer of BTrees, whose fan-out can be shrunk so that few blocks make deep trees, and
// which can change the shape of a tree without changing a key. Beside it stands the model: what every
// block of every file holds at every tid, and which blocks each commit changed. The model is made of
// the calls alone, by other code than the records are, so that it can be the oracle for a reader.
//
//	stor := memstorage.New()
//	db := zgen.New(stor, zgen.Options{LeafMax: 3, NodeMax: 3})
//	tx := db.Begin()
//	f := tx.NewFile(4096)
//	tx.Write(f, 7, []byte("hello"), zgen.Blk1)
//	tid, err := tx.Commit()
//	...
//	db.Data(f, 7, tid)     // "hello" and 4091 zeros
//	db.Changed(f, tid)     // [7]
//	db.BlkRevAt(f, 7, tid) // tid
//
//	rng := rand.New(rand.NewPCG(seed, 0))
//	for range 100 {
//		tid, err := db.Random(rng, zgen.Mix{}) // a random commit
//	}
//
// The same calls, and the same seed, give the same bytes. Misuse (an unknown file, data longer than a
// block) panics: it is a mistake in a test.
//
// Begin to Commit, and Random, belong to one goroutine at a time. Methods that read the model may be called
// from many goroutines meanwhile; a commit is in the model before the sink gets it. The lock DB.mu guards the
// model and is a leaf.
package zgen

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Sink takes commits. In objs nil is a deletion.
type Sink interface {
	Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error
}

// Options of a DB. The zero value is what Python 3 writes, with the fan-out of BTrees.
type Options struct {
	Style     record.Style // zero: record.Py3()
	LeafMax   int          // most keys of a bucket, 60
	NodeMax   int          // most children of a node, 500
	ChunkSize int64        // bytes of a ZBlk1's chunk, 4096
	Start     zodb.Tid     // the first commit comes a second later; 2026-01-01 00:00 UTC
	NoModel   bool         // for big databases: no data is kept, the model tells nothing, Patch, Touch and Random cannot be used
}

// DB is a database that is being written.
type DB struct {
	sink Sink
	opt  Options

	// The writer's own state.
	last  zodb.Oid // the newest oid
	head  zodb.Tid
	files map[zodb.Oid]*file // also deleted ones
	blks  map[zodb.Oid]*blk

	mu    sync.RWMutex
	model model // mu
}

// file is a ZBigFile as it is now.
type file struct {
	oid     zodb.Oid
	blksize int64
	tab     *tree // maybe of several files
	deleted bool
}

// New makes a database. Its first commit also writes the root object, oid 0.
func New(sink Sink, opt Options) *DB {
	if opt.Style.Protocol == 0 {
		opt.Style = record.Py3()
	}
	if opt.LeafMax == 0 {
		opt.LeafMax = 60
	}
	if opt.NodeMax == 0 {
		opt.NodeMax = 500
	}
	if opt.ChunkSize == 0 {
		opt.ChunkSize = 4096
	}
	if opt.Start == 0 {
		opt.Start = zodb.TidFromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	return &DB{
		sink: sink, opt: opt, head: opt.Start,
		files: map[zodb.Oid]*file{}, blks: map[zodb.Oid]*blk{},
		model: model{
			files: map[zodb.Oid][]fileRev{}, tabs: map[zodb.Oid]map[zdata.Blk][]mapRev{},
			zblks: map[zodb.Oid][]dataRev{},
		},
	}
}

func (db *DB) alloc() zodb.Oid {
	db.last++
	return db.last
}

func (db *DB) needModel() {
	if db.opt.NoModel {
		panic("zgen: this needs data that Options.NoModel does not keep")
	}
}

func (db *DB) newTab() *tree { return newTree(record.LO, db.opt.LeafMax, db.opt.NodeMax, db.alloc) }

// Tx is a commit being made. It takes effect call by call, and must be committed.
type Tx struct {
	db    *DB
	files map[*file]bool               // to be written
	tabs  map[*tree]map[zdata.Blk]bool // to be written, and the keys that were assigned
	blks  map[*blk]bool                // to be written
	objs  map[zodb.Oid][]byte          // to be written as they are
}

// Begin starts a commit.
func (db *DB) Begin() *Tx {
	tx := &Tx{db: db, files: map[*file]bool{}, tabs: map[*tree]map[zdata.Blk]bool{}, blks: map[*blk]bool{}, objs: map[zodb.Oid][]byte{}}
	if db.head == db.opt.Start {
		tx.objs[0] = db.opt.Style.Encode(record.Class{Module: "persistent.mapping", Name: "PersistentMapping"},
			map[any]any{"data": map[any]any{}})
	}
	return tx
}

// file returns a file that exists.
func (tx *Tx) file(oid zodb.Oid) *file {
	f := tx.db.files[oid]
	if f == nil || f.deleted {
		panic(fmt.Sprintf("zgen: no ZBigFile %s", oid))
	}
	return f
}

// NewFile creates an empty ZBigFile.
func (tx *Tx) NewFile(blksize int64) zodb.Oid {
	f := &file{oid: tx.db.alloc(), blksize: blksize, tab: tx.db.newTab()}
	return tx.add(f)
}

// NewFileSharing creates a ZBigFile with the blksize and the blktab of another.
func (tx *Tx) NewFileSharing(other zodb.Oid) zodb.Oid {
	o := tx.file(other)
	return tx.add(&file{oid: tx.db.alloc(), blksize: o.blksize, tab: o.tab})
}

func (tx *Tx) add(f *file) zodb.Oid {
	tx.db.files[f.oid] = f
	tx.files[f] = true
	tx.tab(f.tab)
	return f.oid
}

// tab marks a blktab as one that may need writing.
func (tx *Tx) tab(t *tree) map[zdata.Blk]bool {
	if tx.tabs[t] == nil {
		tx.tabs[t] = map[zdata.Blk]bool{}
	}
	return tx.tabs[t]
}

// DeleteFile deletes a ZBigFile, as the undo of its creation does. Its blocks stay.
func (tx *Tx) DeleteFile(f zodb.Oid) {
	o := tx.file(f)
	o.deleted = true
	tx.files[o] = true
}

// RestoreFile creates a deleted ZBigFile again, with the blktab it had.
func (tx *Tx) RestoreFile(f zodb.Oid) {
	o := tx.db.files[f]
	if o == nil || !o.deleted {
		panic(fmt.Sprintf("zgen: ZBigFile %s is not deleted", f))
	}
	o.deleted = false
	tx.files[o] = true
}

// ResetFile gives a ZBigFile another blksize and an empty blktab.
func (tx *Tx) ResetFile(f zodb.Oid, blksize int64) {
	o := tx.file(f)
	o.blksize, o.tab = blksize, tx.db.newTab()
	tx.add(o)
}

// GrowBlksize gives a ZBigFile a larger blksize and leaves its blktab.
func (tx *Tx) GrowBlksize(f zodb.Oid, blksize int64) {
	o := tx.file(f)
	if blksize < o.blksize {
		panic("zgen: GrowBlksize to a smaller one")
	}
	o.blksize = blksize
	tx.files[o] = true
}

// TouchFile writes a ZBigFile without a change.
func (tx *Tx) TouchFile(f zodb.Oid) { tx.files[tx.file(f)] = true }

// Object writes an object that has nothing to do with bigfiles, a new one if oid is 0.
func (tx *Tx) Object(oid zodb.Oid, data string) zodb.Oid {
	if oid == 0 {
		oid = tx.db.alloc()
	}
	tx.objs[oid] = tx.db.opt.Style.Encode(record.Class{Module: "app", Name: "Thing"}, map[any]any{"data": data})
	return oid
}

// Commit commits a second after the commit before.
func (tx *Tx) Commit() (zodb.Tid, error) {
	const second = 1 << 32 / 60
	return tx.CommitAt(tx.db.head + second)
}

// CommitAt commits with that tid.
func (tx *Tx) CommitAt(tid zodb.Tid) (zodb.Tid, error) {
	db := tx.db
	style := db.opt.Style
	objs := tx.objs
	for f := range tx.files {
		objs[f.oid] = nil
		if !f.deleted {
			objs[f.oid] = style.BigFile(f.blksize, f.tab.root.oid)
		}
	}
	// Sorted, because writing gives out oids.
	byOid := func(a, b *blk) int { return int(a.oid) - int(b.oid) }
	for _, b := range slices.SortedFunc(maps.Keys(tx.blks), byOid) {
		b.write(style, objs)
	}
	byRoot := func(a, b *tree) int { return int(a.root.oid) - int(b.root.oid) }
	for _, t := range slices.SortedFunc(maps.Keys(tx.tabs), byRoot) {
		t.write(style, objs)
	}
	db.head = tid
	tx.record(tid)
	if err := db.sink.Commit(tid, objs); err != nil {
		return 0, fmt.Errorf("zgen: commit %s: %w", tid, err)
	}
	return tid, nil
}

// record adds the commit to the model.
func (tx *Tx) record(tid zodb.Tid) {
	db := tx.db
	db.mu.Lock()
	defer db.mu.Unlock()
	m := &db.model
	m.tids = append(m.tids, tid)
	if db.opt.NoModel {
		for b := range tx.blks {
			if b.kind != Blk1 { // which needs it to tell what chunks change
				b.data = nil
			}
		}
		return
	}
	for f := range tx.files {
		m.addFile(f.oid, fileRev{tid: tid, blksize: f.blksize, blktab: f.tab.root.oid, deleted: f.deleted})
	}
	for b := range tx.blks {
		m.zblks[b.oid] = append(m.zblks[b.oid], dataRev{tid, b.data})
	}
	for t, keys := range tx.tabs {
		for blk := range keys {
			v, _ := t.get(int64(blk))
			m.addMapping(t.root.oid, blk, mapRev{tid, v.oid})
		}
	}
}
