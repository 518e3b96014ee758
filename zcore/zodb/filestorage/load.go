package filestorage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// rec is a data record: its header and the 8 bytes after it.
type rec struct {
	fsformat.DataHeader
	pos  int64
	more [fsformat.BackLen]byte // backpointer if Len is 0, else how the data begins (and what follows it)
	txn  fsformat.TxnHeader     // the transaction that wrote it, zero until checkTxn
}

// view is where a load begins: the file and the last record of the object in it. Records before
// end never change, so all that follows needs no lock.
type view struct {
	f   *dataFile // owns a reference
	oid zodb.Oid
	pos int64 // 0: the file has no such object
	end int64
}

func (s *Storage) view(oid zodb.Oid) (view, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return view{}, ErrClosed
	}
	f := s.cur
	f.acquire()
	return view{f, oid, f.index.Get(oid), f.end}, nil
}

// LoadAt implements zodb.Storage.
func (s *Storage) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	v, err := s.view(oid)
	if err != nil {
		return zodb.Record{}, s.loadError(oid, at, err)
	}
	defer v.f.release()
	rec, err := v.load(ctx, at)
	if err = v.sure(err); err != nil {
		return zodb.Record{}, s.loadError(oid, at, err)
	}
	return rec, nil
}

// sure is called with how a load ended, before anything is given out: what was read may be another database's.
func (v view) sure(err error) error {
	if bad := v.f.check(false); bad != nil {
		return bad
	}
	return err
}

func (v view) load(ctx context.Context, at zodb.Tid) (zodb.Record, error) {
	rev, data, until, err := v.find(ctx, at)
	if err != nil {
		return zodb.Record{}, err
	}
	b, err := v.read(data)
	return zodb.Record{Data: b, Serial: rev.Tid, Until: until}, err
}

// SerialAt implements zodb.SerialLoader.
func (s *Storage) SerialAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (serial, until zodb.Tid, err error) {
	v, err := s.view(oid)
	if err != nil {
		return 0, 0, s.loadError(oid, at, err)
	}
	defer v.f.release()
	rev, _, until, err := v.find(ctx, at)
	if err = v.sure(err); err != nil {
		return 0, 0, s.loadError(oid, at, err)
	}
	return rev.Tid, until, nil
}

// ExtentAt implements zodb.Extender. The extent stays valid when a pack replaces the file.
func (s *Storage) ExtentAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Extent, func(), error) {
	v, err := s.view(oid)
	if err != nil {
		return zodb.Extent{}, nil, s.loadError(oid, at, err)
	}
	e, ok := v.f.extents.get(v, at)
	if !ok {
		if e, err = v.extent(ctx, at); err == nil {
			v.f.extents.put(v, e)
		}
	}
	if err = v.sure(err); err == nil && !e.plain {
		err = zodb.ErrNoExtent
	}
	if err != nil {
		v.f.release()
		return zodb.Extent{}, nil, s.loadError(oid, at, err)
	}
	return zodb.Extent{File: v.f.f, Off: e.off, Len: e.len, Serial: e.serial, Check: v.f.checkRead}, v.f.release, nil
}

// extent finds and checks the record with the data as of at.
func (v view) extent(ctx context.Context, at zodb.Tid) (extent, error) {
	rev, data, until, err := v.find(ctx, at)
	if err == nil {
		err = v.checkRoom(data)
	}
	return extent{
		last: v.pos, serial: rev.Tid, until: until, off: data.pos + fsformat.DataHdrLen, len: data.Len,
		plain: data.Len < 2 || !bytes.HasPrefix(data.more[:], []byte(".z")),
	}, err
}

func (s *Storage) loadError(oid zodb.Oid, at zodb.Tid, err error) error {
	return &zodb.LoadError{URL: s.url, Oid: oid, At: at, Err: err}
}

// find returns the revision that is current as of at, the record that holds its data (another one
// after an undo), and the tid of the next revision.
func (v view) find(ctx context.Context, at zodb.Tid) (rev, data rec, until zodb.Tid, err error) {
	if err := ctx.Err(); err != nil {
		return rec{}, rec{}, 0, err
	}
	if v.pos == 0 {
		return rec{}, rec{}, 0, zodb.ErrNoObject
	}
	until = zodb.TidMax
	pos := v.pos
	var later rec // the revision after the one looked at, if pos is not the last
	for n := 1; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil { // a history may be long
			return rec{}, rec{}, 0, ctx.Err()
		}
		if rev, err = v.f.rec(v.oid, pos, v.end); err != nil {
			return rec{}, rec{}, 0, err
		}
		if rev.Tid >= until && v.f.high == 0 {
			return rec{}, rec{}, 0, rev.damage("has a previous record that is not older")
		}
		if rev.Tid <= at {
			break
		}
		later, until, pos = rev, min(until, rev.Tid), rev.Prev
		if pos == 0 {
			break
		}
	}
	// The two revisions that decided must be what their transactions say.
	if later.pos != 0 {
		if err = v.checkTxn(&later); err != nil {
			return rec{}, rec{}, 0, err
		}
	}
	if pos == 0 {
		return rec{}, rec{}, 0, zodb.ErrNoData
	}
	if err = v.checkTxn(&rev); err != nil {
		return rec{}, rec{}, 0, err
	}
	data, err = v.follow(rev)
	return rev, data, until, err
}

// follow follows the backpointers that undo leaves to the record with the data.
func (v view) follow(r rec) (rec, error) {
	for r.Len == 0 {
		back := int64(binary.BigEndian.Uint64(r.more[:]))
		if back == 0 {
			return rec{}, zodb.ErrDeleted
		}
		if back < 0 || back >= r.pos {
			return rec{}, r.damage(fmt.Sprintf("has a backpointer to %d", uint64(back)))
		}
		to, err := v.f.rec(v.oid, back, v.end)
		if err != nil {
			return rec{}, err
		}
		r = to
	}
	// A backpointer with a wrong length passes for data in everything else; no pickle begins so.
	if r.Len == fsformat.BackLen && r.more[0] == 0 && r.more[1] == 0 {
		return rec{}, r.damage("has a backpointer where its data should be")
	}
	return r, nil
}

// rec reads the header of the record of oid at pos, in a file whose transactions end at end.
func (f *dataFile) rec(oid zodb.Oid, pos, end int64) (rec, error) {
	var b [fsformat.DataHdrLen + fsformat.BackLen]byte
	r := rec{pos: pos}
	if pos < fsformat.MagicLen+fsformat.TxnHdrLen || pos > end-int64(len(b)) {
		return r, &zodb.DataError{Oid: oid, Pos: pos, Msg: "no record can be there"}
	}
	if _, err := f.f.ReadAt(b[:], pos); err != nil {
		return r, readError(pos, err)
	}
	return parseRec(b[:], oid, pos, end)
}

// parseRec decodes the header of the record of oid at pos and checks what can be checked of it.
func parseRec(b []byte, oid zodb.Oid, pos, end int64) (rec, error) {
	r := rec{pos: pos}
	h, err := fsformat.DecodeData(b, pos)
	r.DataHeader = h
	copy(r.more[:], b[fsformat.DataHdrLen:])
	switch {
	case err != nil:
		return r, &zodb.DataError{Oid: oid, Serial: h.Tid, Pos: pos, Msg: err.Error()}
	case h.Oid != oid:
		return r, &zodb.DataError{Oid: oid, Pos: pos, Msg: fmt.Sprintf("there is a record of object %s, or none", h.Oid)}
	case h.RecLen() > end-pos:
		return r, r.damage(fmt.Sprintf("data length %d leads beyond the file", h.Len))
	}
	return r, nil
}

func (r *rec) damage(msg string) error {
	return &zodb.DataError{Oid: r.Oid, Serial: r.Tid, Pos: r.pos, Msg: msg}
}

// checkTxn reads the header of the transaction that wrote r and checks that they fit each other.
func (v view) checkTxn(r *rec) error {
	if r.txn.Tid != 0 {
		return nil
	}
	if last := v.f.lastTxn.Load(); last != nil && last.pos == r.Txn {
		return v.fit(r, last.TxnHeader, nil)
	}
	var b [fsformat.TxnHdrLen]byte
	if _, err := v.f.f.ReadAt(b[:], r.Txn); err != nil {
		return readError(r.Txn, err)
	}
	h, err := fsformat.DecodeTxn(b[:])
	if err := v.fit(r, h, err); err != nil {
		return err
	}
	v.f.lastTxn.Store(&txnAt{r.Txn, h})
	return nil
}

// fit checks that r and the header of its transaction fit each other.
func (v view) fit(r *rec, h fsformat.TxnHeader, err error) error {
	if err == nil && (h.Tid != r.Tid || h.Status != fsformat.Done && h.Status != fsformat.Packed ||
		r.RecLen() > r.Txn+h.Len-r.pos || h.Len > v.end-fsformat.TailLen-r.Txn || r.pos < r.Txn+h.HdrLen()) {
		err = fmt.Errorf("data record does not fit its transaction at %d", r.Txn)
	}
	if err != nil {
		return r.damage(err.Error())
	}
	r.txn = h
	return nil
}

// txnAt is the header of a complete transaction, which never changes, and where it is.
type txnAt struct {
	pos int64
	fsformat.TxnHeader
}

// after is the most that is read to see that a record ends where its length says.
const after = fsformat.DataHdrLen

// read reads and expands the data of r.
func (v view) read(r rec) ([]byte, error) {
	if err := v.checkTxn(&r); err != nil {
		return nil, err
	}
	room := min(r.pos+r.RecLen()+after, v.end) - (r.pos + fsformat.DataHdrLen)
	b := make([]byte, room)
	if _, err := v.f.f.ReadAt(b, r.pos+fsformat.DataHdrLen); err != nil {
		return nil, readError(r.pos, err)
	}
	return v.checked(r, b)
}

// checkRoom is read less the data.
func (v view) checkRoom(r rec) error {
	if err := v.checkTxn(&r); err != nil {
		return err
	}
	end := r.pos + r.RecLen()
	b := make([]byte, min(after, v.end-end))
	if _, err := v.f.f.ReadAt(b, end); err != nil {
		return readError(end, err)
	}
	return r.checkEnd(b)
}

// checkEnd checks that what follows the record is what must follow it: the end of its transaction
// or another record of it. A wrong length, which no checksum tells, is found here.
func (r *rec) checkEnd(b []byte) error {
	end := r.pos + r.RecLen()
	if end == r.Txn+r.txn.Len {
		if int64(binary.BigEndian.Uint64(b)) == r.txn.Len {
			return nil
		}
	} else if len(b) == after {
		if next, err := fsformat.DecodeData(b, end); err == nil && next.Tid == r.Tid && next.Txn == r.Txn {
			return nil
		}
	}
	return r.damage(fmt.Sprintf("data length %d is wrong, or what follows the record", r.Len))
}

// Oids implements zodb.Lister.
func (s *Storage) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	v, err := s.view(0)
	if err != nil {
		return fmt.Errorf("%s: list objects: %w", s.url, err)
	}
	defer v.f.release()
	s.mu.RLock()
	groups := v.f.index.Groups()
	s.mu.RUnlock()
	var entries []fsformat.Entry
	for _, g := range groups {
		s.mu.RLock()
		entries = v.f.index.Group(g, entries[:0])
		end := v.f.end
		s.mu.RUnlock()
		for _, e := range entries {
			ov := view{v.f, e.Oid, e.Pos, end}
			_, _, _, err := ov.find(ctx, at)
			err = ov.sure(err)
			switch {
			case zodb.IsAbsent(err):
				continue
			case err != nil && zodb.KindOf(err) != zodb.KindAnswer:
				return s.loadError(e.Oid, at, err)
			}
			if err := fn(e.Oid); err != nil {
				return err
			}
		}
	}
	return nil
}
