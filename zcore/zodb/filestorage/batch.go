package filestorage

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
	"wcfs/zcore/zodb/record"
)

const (
	batchMax   = 256 << 10 // read at once; small enough for what is read to be taken from a processor's cache
	batchGap   = 64 << 10  // records farther apart are not read at once
	batchSlack = 8 << 10   // read after the beginning of the last record, whose length is not known
)

// place is where the last record of one of the objects of a batch is.
type place struct {
	i   int // index in the batch
	oid zodb.Oid
	pos int64 // 0: the file has no such object
}

// batch loads the objects of places in file order, through one buffer.
type batch struct {
	f      *dataFile
	end    int64
	at     zodb.Tid
	places []place
	buf    []byte // of the file, from off
	off    int64
	unsure bool // something was read since the file was checked last
}

// buffers for batches, each batchMax long, lent to one at a time.
type batchBuffers struct{ pool sync.Pool }

func (p *batchBuffers) get() *[]byte {
	if b, _ := p.pool.Get().(*[]byte); b != nil {
		return b
	}
	b := make([]byte, batchMax)
	return &b
}

// LoadBatch implements zodb.BatchLoader. Objects that were written together lie together: what would be
// two reads of the file for each is one for many.
func (s *Storage) LoadBatch(ctx context.Context, oids []zodb.Oid, at zodb.Tid, fn func(i int, rec zodb.Record, err error) error) error {
	if len(oids) == 0 {
		return ctx.Err()
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return s.loadError(oids[0], at, ErrClosed)
	}
	s.cur.acquire()
	b := newBatch(s.cur, oids, at)
	s.mu.RUnlock()
	defer b.f.release()

	whole := s.buffers.get()
	defer s.buffers.pool.Put(whole)
	return b.load(ctx, *whole, func(i int, rec zodb.Record, err error) error {
		if err != nil {
			err = s.loadError(oids[i], at, err)
		}
		return fn(i, rec, err)
	})
}

// newBatch finds where objects are. Storage.mu must be held where the file is in use.
func newBatch(f *dataFile, oids []zodb.Oid, at zodb.Tid) *batch {
	places := make([]place, len(oids))
	for i, oid := range oids {
		places[i] = place{i, oid, f.index.Get(oid)}
	}
	return &batch{f: f, end: f.end, at: at, places: places}
}

// load calls fn with each object; whole is the buffer.
func (b *batch) load(ctx context.Context, whole []byte, fn func(i int, rec zodb.Record, err error) error) error {
	slices.SortFunc(b.places, func(x, y place) int { return cmp.Compare(x.pos, y.pos) })
	for n, p := range b.places {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, ok := b.near(n, whole)
		var err error
		if !ok {
			b.unsure = true
			rec, err = view{b.f, p.oid, p.pos, b.end}.load(ctx, b.at)
		}
		if b.unsure {
			if bad := b.f.check(false); bad != nil {
				rec, err = zodb.Record{}, bad
			} else {
				b.unsure = false
			}
		}
		if err := fn(p.i, rec, err); err != nil {
			return err
		}
	}
	return nil
}

// near returns the record at place n if it is an ordinary one: the newest revision, with its data in it, that
// is not younger than at, and short enough to be in the buffer. All else is for load.
func (b *batch) near(n int, whole []byte) (zodb.Record, bool) {
	p := b.places[n]
	const head = fsformat.DataHdrLen + fsformat.BackLen
	if p.pos < fsformat.MagicLen+fsformat.TxnHdrLen || p.pos > b.end-head {
		return zodb.Record{}, false
	}
	if p.pos < b.off || p.pos+head > b.off+int64(len(b.buf)) {
		if !b.fill(n, whole) {
			return zodb.Record{}, false
		}
	}
	raw := b.buf[p.pos-b.off:]
	if len(raw) < head {
		return zodb.Record{}, false
	}
	r, err := parseRec(raw, p.oid, p.pos, b.end)
	if err != nil || r.Tid > b.at || r.Len == 0 {
		return zodb.Record{}, false
	}
	need := min(r.RecLen()+after, b.end-p.pos)
	if need > int64(len(raw)) {
		if p.pos == b.off || need > batchMax || !b.fill(n, whole) || need > int64(len(b.buf)) {
			return zodb.Record{}, false
		}
		raw = b.buf
	}
	v := view{b.f, p.oid, p.pos, b.end}
	data, err := v.checked(r, raw[fsformat.DataHdrLen:need])
	return zodb.Record{Data: data, Serial: r.Tid, Until: zodb.TidMax}, err == nil
}

// fill reads from place n on as far as there are records close to each other.
func (b *batch) fill(n int, whole []byte) bool {
	pos := b.places[n].pos
	last := pos
	for _, p := range b.places[n+1:] {
		if p.pos-last > batchGap || p.pos+batchSlack-pos > batchMax {
			break
		}
		last = p.pos
	}
	b.off, b.buf, b.unsure = pos, nil, true
	size := min(last+batchSlack, b.end) - pos
	if last > pos { // it is as long as others, most likely
		size = min(batchMax, b.end-pos, max(size, (last-pos)/8+size))
	}
	if _, err := b.f.f.ReadAt(whole[:size], pos); err != nil {
		return false
	}
	b.buf = whole[:size]
	return true
}

// checked returns the data of a record whose header is r, given what follows the header.
func (v view) checked(r rec, b []byte) ([]byte, error) {
	if r.Len == fsformat.BackLen && r.more[0] == 0 && r.more[1] == 0 {
		return nil, r.damage("has a backpointer where its data should be")
	}
	if err := v.checkTxn(&r); err != nil {
		return nil, err
	}
	if err := r.checkEnd(b[r.Len:]); err != nil {
		return nil, err
	}
	data, err := record.Decompress(b[:r.Len:r.Len])
	if err != nil {
		return nil, &zodb.DataError{Oid: r.Oid, Serial: r.Tid, Pos: r.pos, Err: err}
	}
	return data, nil
}
