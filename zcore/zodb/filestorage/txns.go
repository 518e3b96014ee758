package filestorage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"sync"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

var _ zodb.Chronicler = (*Storage)(nil)

// txnMarks are some transactions that were passed on the way back from the end of a file, markEvery apart.
type txnMarks struct {
	mu   sync.Mutex // a leaf
	list []txnMark  // guard: mu; latest first
}

type txnMark struct {
	pos int64
	tid zodb.Tid
}

const markEvery = 1000

// from returns where to begin to look for the last transaction not after at: at end, or at a mark.
func (m *txnMarks) from(at zodb.Tid, end int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := sort.Search(len(m.list), func(i int) bool { return m.list[i].tid <= at })
	if i == 0 {
		return end
	}
	return m.list[i-1].pos
}

// passed notes a transaction that is steps away from where a search began; began is at the end or at a mark.
func (m *txnMarks) passed(began int64, steps int, pos int64, tid zodb.Tid) {
	if steps == 0 || steps%markEvery != 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.list); n > 0 && began > m.list[0].pos {
		m.list = nil // many were committed since: mark them too
	}
	if n := len(m.list); n == 0 || m.list[n-1].pos > pos {
		m.list = append(m.list, txnMark{pos, tid})
	}
}

// LastTid implements zodb.Chronicler. A file has no list of its transactions but the lengths at their ends, so it
// goes back from the end of the file: two small reads for each transaction after at, the first time. Later it begins at
// most markEvery transactions after at, unless that many were committed since.
func (s *Storage) LastTid(ctx context.Context, at zodb.Tid) (last zodb.Tid, err error) {
	began, steps := int64(0), 0
	from := func(f *dataFile, end int64) int64 {
		began = f.marks.from(at, end)
		return began
	}
	err = s.eachTxn(ctx, from, func(f *dataFile, pos int64, h fsformat.TxnHeader) (bool, error) {
		f.marks.passed(began, steps, pos, h.Tid)
		steps++
		if h.Tid <= at {
			last = h.Tid
		}
		return h.Tid > at, nil
	})
	return last, err
}

// Txns implements zodb.Chronicler.
func (s *Storage) Txns(ctx context.Context, at zodb.Tid, fn func(zodb.Txn) (bool, error)) error {
	fromEnd := func(_ *dataFile, end int64) int64 { return end }
	return s.eachTxn(ctx, fromEnd, func(f *dataFile, pos int64, h fsformat.TxnHeader) (bool, error) {
		if h.Tid > at {
			return true, nil
		}
		text := make([]byte, h.User+h.Descr)
		if _, err := f.f.ReadAt(text, pos+fsformat.TxnHdrLen); err != nil {
			return false, fmt.Errorf("transaction %s: %w", h.Tid, err)
		}
		n, err := f.countRecords(pos, h)
		if err != nil {
			return false, err
		}
		return fn(zodb.Txn{Tid: h.Tid, User: text[:h.User], Description: text[h.User:], Size: h.Len + fsformat.TailLen, Objects: n})
	})
}

// eachTxn goes through the headers of transactions, last one first, until fn answers false. from tells where to begin.
func (s *Storage) eachTxn(ctx context.Context, from func(f *dataFile, end int64) int64, fn func(f *dataFile, pos int64, h fsformat.TxnHeader) (bool, error)) error {
	v, err := s.view(0)
	if err != nil {
		return fmt.Errorf("%s: log: %w", s.url, err)
	}
	defer v.f.release()
	for end := from(v.f, v.end); end > fsformat.MagicLen; {
		if err := ctx.Err(); err != nil {
			return err
		}
		pos, h, err := v.f.txnBefore(end)
		if bad := v.f.check(false); bad != nil {
			err = bad
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.url, err)
		}
		end = pos
		if h.Status == fsformat.Undone {
			continue
		}
		if more, err := fn(v.f, pos, h); err != nil || !more {
			return err
		}
	}
	return nil
}

// txnBefore reads the header of the transaction that ends at a position.
func (f *dataFile) txnBefore(end int64) (pos int64, h fsformat.TxnHeader, err error) {
	var buf [fsformat.TxnHdrLen]byte
	bad := func(err error) error { return &zodb.DataError{Pos: end, Msg: "transaction before it", Err: err} }
	if _, err := f.f.ReadAt(buf[:fsformat.TailLen], end-fsformat.TailLen); err != nil {
		return 0, h, bad(err)
	}
	n := binary.BigEndian.Uint64(buf[:])
	if n > uint64(end) || end-fsformat.TailLen-int64(n) < fsformat.MagicLen {
		return 0, h, bad(errors.New("its length at the end is not possible"))
	}
	pos = end - fsformat.TailLen - int64(n)
	if _, err := f.f.ReadAt(buf[:], pos); err != nil {
		return 0, h, bad(err)
	}
	if h, err = fsformat.DecodeTxn(buf[:]); err == nil && h.Len != int64(n) {
		err = errors.New("its lengths differ")
	}
	if err != nil {
		return 0, h, bad(err)
	}
	return pos, h, nil
}

// countRecords counts the data records of a transaction.
func (f *dataFile) countRecords(pos int64, h fsformat.TxnHeader) (n int, err error) {
	var buf [fsformat.DataHdrLen]byte
	for at := pos + h.HdrLen(); at < pos+h.Len; n++ {
		if _, err := f.f.ReadAt(buf[:], at); err != nil {
			return 0, &zodb.DataError{Pos: at, Err: err}
		}
		d, err := fsformat.DecodeData(buf[:], at)
		if err != nil {
			return 0, &zodb.DataError{Pos: at, Err: err}
		}
		at += d.RecLen()
	}
	return n, nil
}
