package zdata

import (
	"context"

	"golang.org/x/sync/errgroup"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/record"
)

// chunkLoads bounds the chunks of one block that are loaded at once. Storages behind a network answer
// many loads in about the time of one.
const chunkLoads = 16

func loadBlk(ctx context.Context, stor zodb.Storage, src btree.Source, zblk zodb.Oid, at zodb.Tid, blksize int64) ([]byte, zodb.Tid, error) {
	rec, err := stor.LoadAt(ctx, zblk, at)
	if err != nil {
		return nil, 0, err
	}
	obj, err := record.Decode(zblk, rec)
	if err != nil {
		return nil, 0, err
	}
	data, err := []byte(nil), bad(zblk, rec.Serial, "it is a %.80q where a ZBlk belongs", obj.Class.String())
	if obj.Class.Module == record.ModBigFile {
		switch obj.Class.Name {
		case "ZBlk0", "ZBlk":
			data, err = plain(zblk, rec.Serial, obj.State, blksize)
		case "ZBlk1":
			l := chunkLoader{stor: stor, src: src, zblk: zblk, serial: rec.Serial, at: at, blksize: blksize}
			data, err = l.load(ctx, obj.State)
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return data, rec.Serial, nil
}

// plain returns the data of a ZBlk0 or ZData, which may take up to room bytes.
func plain(oid zodb.Oid, serial zodb.Tid, state record.Value, room int64) ([]byte, error) {
	if state.Kind != record.Bytes {
		return nil, bad(oid, serial, "its data is %s, not a byte string", state.Kind)
	}
	if int64(len(state.Data)) > room {
		return nil, bad(oid, serial, "its data is %d bytes where there is room for %d", len(state.Data), room)
	}
	return state.Data, nil
}

// chunkLoader loads one ZBlk1. Its fields do not change after it is made.
type chunkLoader struct {
	stor    zodb.Storage
	src     btree.Source
	zblk    zodb.Oid
	serial  zodb.Tid
	at      zodb.Tid
	blksize int64
}

// chunk is where a chunk begins, how far it may reach, and the ZData that has it.
type chunk struct {
	off, room int64
	oid       zodb.Oid
}

// load loads all chunks. The last is loaded first: it tells how long the block is, and no more than
// that is allocated; then the others are copied in as they come.
func (l *chunkLoader) load(ctx context.Context, state record.Value) ([]byte, error) {
	chunktab, ok := state.Oid()
	if !ok {
		return nil, bad(l.zblk, l.serial, "its chunk table is %s, not a reference", state.Kind)
	}
	chunks, err := l.list(ctx, chunktab)
	if err != nil || len(chunks) == 0 {
		return nil, err
	}
	last := chunks[len(chunks)-1]
	tail, err := l.chunk(ctx, last)
	if err != nil {
		return nil, err
	}
	data := make([]byte, last.off+int64(len(tail)))
	copy(data[last.off:], tail)
	chunks = chunks[:len(chunks)-1]
	if stor, ok := l.stor.(zodb.BatchLoader); ok {
		err = l.batch(ctx, stor, data, chunks)
	} else {
		err = l.parallel(ctx, data, chunks)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// batch copies chunks into data as a storage gives them.
func (l *chunkLoader) batch(ctx context.Context, stor zodb.BatchLoader, data []byte, chunks []chunk) error {
	oids := make([]zodb.Oid, len(chunks))
	for i, c := range chunks {
		oids[i] = c.oid
	}
	var m template
	return stor.LoadBatch(ctx, oids, l.at, func(i int, rec zodb.Record, err error) error {
		b, err := l.decode(chunks[i], rec, err, &m)
		copy(data[chunks[i].off:], b)
		return err
	})
}

// parallel loads chunks one by one, many at once, and copies them into data.
func (l *chunkLoader) parallel(ctx context.Context, data []byte, chunks []chunk) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(chunkLoads)
	for _, c := range chunks {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			b, err := l.chunk(gctx, c)
			copy(data[c.off:], b)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// When ctx ended the loop no chunk may have failed, and yet not all are there.
	return ctx.Err()
}

// list reads the chunk table.
func (l *chunkLoader) list(ctx context.Context, chunktab zodb.Oid) ([]chunk, error) {
	var chunks []chunk
	err := btree.Range(ctx, l.src, chunktab, l.at, btree.KeyMin, btree.KeyMax,
		func(key btree.Key, val zodb.Oid, _ []btree.Step) error {
			off := int64(key)
			if off < 0 || off >= l.blksize {
				return bad(l.zblk, l.serial, "it has a chunk at offset %d of a block of %d bytes", off, l.blksize)
			}
			if val == btree.NoValue {
				return bad(l.zblk, l.serial, "its chunk at offset %d is None", off)
			}
			if n := len(chunks); n > 0 {
				chunks[n-1].room = off - chunks[n-1].off
			}
			chunks = append(chunks, chunk{off: off, room: l.blksize - off, oid: val})
			return nil
		})
	if zodb.IsAbsent(err) {
		// It is this ZBlk1 that is broken: the error must not say that the block or file is absent.
		err = bad(l.zblk, l.serial, "its chunk table is missing: %v", err)
	}
	return chunks, err
}

func (l *chunkLoader) chunk(ctx context.Context, c chunk) ([]byte, error) {
	rec, err := l.stor.LoadAt(ctx, c.oid, l.at)
	return l.decode(c, rec, err, &template{})
}

// decode returns the data of a chunk whose record was loaded, or not. m remembers the form of such records.
func (l *chunkLoader) decode(c chunk, rec zodb.Record, err error, m *template) ([]byte, error) {
	if err != nil {
		if zodb.IsAbsent(err) {
			err = bad(l.zblk, l.serial, "its chunk at offset %d is missing: %v", c.off, err)
		}
		return nil, err
	}
	if b, ok := m.data(rec.Data); ok && int64(len(b)) <= c.room {
		return b, nil
	}
	obj, err := record.Decode(c.oid, rec)
	if err != nil {
		return nil, err
	}
	if obj.Class != (record.Class{Module: record.ModBigFile, Name: "ZData"}) {
		return nil, bad(c.oid, rec.Serial, "it is a %.80q where a ZData belongs", obj.Class.String())
	}
	m.learn(rec.Data, obj)
	b, err := plain(c.oid, rec.Serial, obj.State, c.room)
	if err != nil {
		return nil, bad(l.zblk, l.serial, "its chunk at offset %d overlaps the next or overruns the block: %v", c.off, err)
	}
	return b, nil
}
