package filestorage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// errIncomplete says that there is no complete transaction at a position, so far.
var errIncomplete = errors.New("incomplete")

// txn is a complete transaction.
type txn struct {
	fsformat.TxnHeader
	pos, end int64     // of the whole, the repeated length included
	recs     []txnsRec // in file order; an object may occur more than once, the last record counts
}

type txnsRec struct {
	oid       zodb.Oid
	pos, prev int64
}

// scanner reads transactions one after the other, of which it needs the headers only. One goroutine.
type scanner struct {
	f    *os.File
	buf  []byte
	off  int64 // position in the file of buf
	n    int   // bytes in buf
	want int   // how much to read next time
	size int64 // of the file when it was last asked for; it may have grown since
}

const (
	scanMin = 4 << 10
	scanMax = 256 << 10
)

func newScanner(f *os.File) *scanner { return &scanner{f: f} }

// at returns n bytes at pos, valid until the next call; io.ErrUnexpectedEOF if the file ends before.
// It reads ahead the more the denser the requests are: headers of large records are far apart.
func (sc *scanner) at(pos int64, n int) ([]byte, error) {
	if pos < sc.off || pos+int64(n) > sc.off+int64(sc.n) {
		if gap := pos - (sc.off + int64(sc.n)); gap > -int64(n) && gap < scanMin {
			sc.want = min(2*sc.want, scanMax)
		} else {
			sc.want = scanMin
		}
		sc.want = max(sc.want, scanMin)
		if sc.want > len(sc.buf) {
			sc.buf = make([]byte, sc.want) // one that looks at a single commit never needs much
		}
		got, err := sc.f.ReadAt(sc.buf[:sc.want], pos)
		sc.off, sc.n = pos, got
		if got < n {
			sc.n = 0
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	i := int(pos - sc.off)
	return sc.buf[i : i+n], nil
}

// txn reads the transaction at pos. errIncomplete: there is none yet. Damage: *zodb.DataError.
//
// Bytes read ahead may be out of date, but a whole committed transaction among them is not: a writer changes
// the status last. Any other finding counts only if it is made anew.
func (sc *scanner) txn(pos int64) (txn, error) {
	if pos < sc.size {
		if t, err := sc.try(pos); err == nil {
			return t, nil
		}
	}
	if err := sc.refresh(); err != nil {
		return txn{}, err
	}
	t, err := sc.try(pos)
	if err != nil {
		sc.n = 0
	}
	return t, err
}

// refresh forgets what was read and asks for the size anew.
func (sc *scanner) refresh() error {
	sc.n = 0
	st, err := sc.f.Stat()
	if err == nil {
		sc.size = st.Size()
	}
	return err
}

func (sc *scanner) try(pos int64) (txn, error) {
	t := txn{pos: pos}
	if sc.size < pos {
		return t, damage(pos, "the file was cut to %d bytes, below what was committed", sc.size)
	}
	if sc.size < pos+fsformat.TxnHdrLen {
		return t, errIncomplete
	}
	h, err := sc.header(pos)
	if err != nil {
		return t, err
	}
	t.TxnHeader, t.end = h, pos+h.Len+fsformat.TailLen
	switch {
	case h.Status == fsformat.Voted:
		return t, sc.checkVoted(t)
	case h.Status != fsformat.Done && h.Status != fsformat.Packed && h.Status != fsformat.Undone:
		return t, damage(pos, "transaction %s has status %q", h.Tid, byte(h.Status))
	case t.end > sc.size:
		return t, sc.checkCut(t)
	}
	if h.Status != fsformat.Undone {
		if t.recs, err = sc.records(t); err != nil {
			return t, err
		}
	}
	tail, err := sc.at(t.end-fsformat.TailLen, fsformat.TailLen)
	if err != nil {
		return t, readError(t.end, err)
	}
	if n := binary.BigEndian.Uint64(tail); n != uint64(h.Len) {
		return t, damage(pos, "transaction %s has length %d and, at its end, length %d", h.Tid, h.Len, n)
	}
	return t, nil
}

func (sc *scanner) header(pos int64) (fsformat.TxnHeader, error) {
	b, err := sc.at(pos, fsformat.TxnHdrLen)
	if err == io.ErrUnexpectedEOF { // truncated since we asked for the size
		return fsformat.TxnHeader{}, errIncomplete
	}
	if err != nil {
		return fsformat.TxnHeader{}, readError(pos, err)
	}
	h, err := fsformat.DecodeTxn(b)
	if err != nil {
		return h, damage(pos, "%v", err)
	}
	return h, nil
}

// records reads the headers of all data records.
func (sc *scanner) records(t txn) ([]txnsRec, error) {
	var recs []txnsRec
	tend := t.end - fsformat.TailLen
	for pos := t.pos + t.HdrLen(); pos < tend; {
		if tend-pos < fsformat.DataHdrLen {
			return nil, damage(pos, "data records of transaction %s do not fill it", t.Tid)
		}
		b, err := sc.at(pos, fsformat.DataHdrLen)
		if err != nil {
			return nil, readError(pos, err)
		}
		h, err := fsformat.DecodeData(b, pos)
		if err != nil {
			return nil, &zodb.DataError{Oid: h.Oid, Serial: t.Tid, Pos: pos, Msg: err.Error()}
		}
		if h.Tid != t.Tid || h.Txn != t.pos || h.RecLen() > tend-pos {
			return nil, &zodb.DataError{Oid: h.Oid, Serial: t.Tid, Pos: pos, Msg: "data record does not fit its transaction"}
		}
		recs = append(recs, txnsRec{h.Oid, pos, h.Prev})
		pos += h.RecLen()
	}
	return recs, nil
}

// checkVoted looks at a transaction that is not committed: it can only be the last thing in the file.
// The size is asked for before the header is read again, because a writer may finish this
// transaction and append the next one at any moment.
func (sc *scanner) checkVoted(t txn) error {
	if err := sc.refresh(); err != nil {
		return err
	}
	h, err := sc.header(t.pos)
	if err != nil {
		return errIncomplete // it changed in between
	}
	if h == t.TxnHeader && t.end < sc.size {
		return damage(t.pos, "transaction %s is not committed and others follow it", t.Tid)
	}
	return errIncomplete
}

// checkCut looks at a transaction that claims to be complete and ends beyond the file: the file is a
// copy cut short, or the length is wrong. It is wrong if a whole later transaction is the end of the file.
func (sc *scanner) checkCut(t txn) error {
	size := sc.size
	tail, err := sc.at(size-fsformat.TailLen, fsformat.TailLen)
	if err != nil {
		return errIncomplete
	}
	n := binary.BigEndian.Uint64(tail)
	if n < fsformat.TxnHdrLen || n > uint64(size) {
		return errIncomplete
	}
	start := size - fsformat.TailLen - int64(n)
	if start <= t.pos {
		return errIncomplete
	}
	h, err := sc.header(start)
	if err == nil && h.Len == int64(n) && h.Tid > t.Tid && (h.Status == fsformat.Done || h.Status == fsformat.Packed) {
		return damage(t.pos, "length %d of transaction %s leads beyond the file", t.Len, t.Tid)
	}
	return errIncomplete
}

// readError is for reads that fail inside a transaction known to be complete.
func readError(pos int64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damage(pos, "the file ends in the middle of a transaction")
	}
	err = fmt.Errorf("read at position %d: %w", pos, err)
	for _, e := range awayErrnos {
		if errors.Is(err, e) {
			return zodb.Outage(err)
		}
	}
	return zodb.Answer(err) // EIO, most likely: this place of the file cannot be read
}

// awayErrnos say that a file cannot be read for now: memory is short, or the file system is on another machine that
// does not answer.
var awayErrnos = []syscall.Errno{syscall.EINTR, syscall.EAGAIN, syscall.ENOMEM, syscall.ENOBUFS, syscall.ESTALE,
	syscall.ETIMEDOUT, syscall.ENOTCONN, syscall.ECONNABORTED, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN}

// locate returns the position of the first transaction later than tid; end is the end of a transaction.
func (f *dataFile) locate(ctx context.Context, tid zodb.Tid, end int64) (int64, error) {
	if end == fsformat.MagicLen {
		return end, nil
	}
	sc := newScanner(f.f)
	if h, err := sc.header(fsformat.MagicLen); err != nil || h.Tid > tid {
		return fsformat.MagicLen, err
	}
	for end > fsformat.MagicLen {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		t, err := f.before(end)
		if err != nil || t.Tid <= tid {
			return end, err
		}
		end = t.pos
	}
	return end, nil
}

// before reads the header of the transaction that ends at end.
func (f *dataFile) before(end int64) (txn, error) {
	var b [fsformat.TxnHdrLen]byte
	t := txn{end: end}
	if end < fsformat.MagicLen+fsformat.TxnHdrLen+fsformat.TailLen {
		return t, damage(end, "no transaction can end here")
	}
	if _, err := f.f.ReadAt(b[:fsformat.TailLen], end-fsformat.TailLen); err != nil {
		return t, readError(end, err)
	}
	n := binary.BigEndian.Uint64(b[:])
	if n < fsformat.TxnHdrLen || n > uint64(end-fsformat.TailLen-fsformat.MagicLen) {
		return t, damage(end-fsformat.TailLen, "transaction length %d is not possible", n)
	}
	t.pos = end - fsformat.TailLen - int64(n)
	if _, err := f.f.ReadAt(b[:], t.pos); err != nil {
		return t, readError(t.pos, err)
	}
	var err error
	if t.TxnHeader, err = fsformat.DecodeTxn(b[:]); err != nil || uint64(t.Len) != n {
		return t, damage(t.pos, "no transaction of length %d begins here", n)
	}
	return t, nil
}
