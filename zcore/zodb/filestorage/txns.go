package filestorage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

var _ zodb.Chronicler = (*Storage)(nil)

// LastTid implements zodb.Chronicler. A file has no list of its transactions but the lengths at their ends, so it
// goes back from the end of the file: two small reads for each transaction after at.
func (s *Storage) LastTid(ctx context.Context, at zodb.Tid) (last zodb.Tid, err error) {
	err = s.eachTxn(ctx, func(_ *dataFile, _ int64, h fsformat.TxnHeader) (bool, error) {
		if h.Tid <= at {
			last = h.Tid
		}
		return h.Tid > at, nil
	})
	return last, err
}

// Txns implements zodb.Chronicler.
func (s *Storage) Txns(ctx context.Context, at zodb.Tid, fn func(zodb.Txn) (bool, error)) error {
	return s.eachTxn(ctx, func(f *dataFile, pos int64, h fsformat.TxnHeader) (bool, error) {
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

// eachTxn goes through the headers of transactions, last one first, until fn answers false.
func (s *Storage) eachTxn(ctx context.Context, fn func(f *dataFile, pos int64, h fsformat.TxnHeader) (bool, error)) error {
	v, err := s.view(0)
	if err != nil {
		return fmt.Errorf("%s: log: %w", s.url, err)
	}
	defer v.f.release()
	for end := v.end; end > fsformat.MagicLen; {
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
