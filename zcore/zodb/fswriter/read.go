package fswriter

import (
	"encoding/binary"
	"fmt"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// txn is a transaction as it lies in the file.
type txn struct {
	hdr  fsformat.TxnHeader
	pos  int64
	recs []rec
}

type rec struct {
	fsformat.DataHeader
	pos int64
}

// txn reads the headers of the transaction at pos. A partial one: io.EOF or io.ErrUnexpectedEOF.
func (w *Writer) txn(pos int64) (txn, error) {
	t := txn{pos: pos}
	var b [fsformat.DataHdrLen]byte
	if _, err := w.f.ReadAt(b[:fsformat.TxnHdrLen], pos); err != nil {
		return t, err
	}
	var err error
	if t.hdr, err = fsformat.DecodeTxn(b[:]); err != nil {
		return t, fmt.Errorf("position %d: %w", pos, err)
	}
	if t.hdr.Status == fsformat.Voted { // its records may not be there yet
		return t, nil
	}
	tend := pos + t.hdr.Len
	for p := pos + t.hdr.HdrLen(); p < tend; {
		if _, err := w.f.ReadAt(b[:], p); err != nil {
			return t, err
		}
		h, err := fsformat.DecodeData(b[:], p)
		if err == nil && (h.Txn != pos || h.RecLen() > tend-p) {
			err = fmt.Errorf("data record does not fit its transaction")
		}
		if err != nil {
			return t, fmt.Errorf("position %d: %w", p, err)
		}
		t.recs = append(t.recs, rec{h, p})
		p += h.RecLen()
	}
	_, err = w.f.ReadAt(b[:fsformat.TailLen], tend)
	if err == nil && int64(binary.BigEndian.Uint64(b[:])) != t.hdr.Len {
		err = fmt.Errorf("position %d: transaction has two lengths", pos)
	}
	return t, err
}

// find finds a transaction, from the end of the file backwards.
func (w *Writer) find(tid zodb.Tid) (txn, error) {
	var b [fsformat.TailLen]byte
	for end := w.end; end > fsformat.MagicLen; {
		if _, err := w.f.ReadAt(b[:], end-fsformat.TailLen); err != nil {
			return txn{}, fmt.Errorf("%s: %w", w.path, err)
		}
		t, err := w.txn(end - fsformat.TailLen - int64(binary.BigEndian.Uint64(b[:])))
		if err != nil {
			return txn{}, fmt.Errorf("%s: %w", w.path, err)
		}
		if t.hdr.Tid == tid {
			return t, nil
		}
		end = t.pos
	}
	return txn{}, fmt.Errorf("%s: there is no transaction %s", w.path, tid)
}
