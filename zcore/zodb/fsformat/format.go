// Package fsformat is the format of FileStorage files: what filestorage reads and fswriter writes.
//
// It owns the two headers, with the checks that need nothing but the header itself, and the index
// (object id to position of its last record) in memory and on disk. It opens no file and takes no lock.
//
// A file is 4 bytes of magic, then transactions. A transaction is a header of 23 bytes, user,
// description and extension, data records, and 8 bytes that repeat its length. A data record is a
// header of 42 bytes and the object record; or, where the length is 0, 8 bytes of backpointer: the
// position of the record that has the data, 0 if the object is deleted. Numbers are big-endian.
// Source: ZODB/FileStorage/format.py and ZODB/fsIndex.py of the Python package ZODB.
package fsformat

import (
	"encoding/binary"
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
)

// The two magics: files first written by Python 2 and by Python 3. Nothing else differs.
const (
	MagicPy2 = "FS21"
	MagicPy3 = "FS30"
	MagicLen = 4
)

// Lengths in bytes.
const (
	TxnHdrLen  = 23
	DataHdrLen = 42
	TailLen    = 8 // the repeated length at the end of a transaction
	BackLen    = 8 // a backpointer
)

// Status says how far a transaction is.
type Status byte

const (
	Done   Status = ' ' // committed
	Packed Status = 'p' // committed, and since packed: records of it may have been dropped
	Voted  Status = 'c' // being written, or all there but not committed
	Undone Status = 'u' // written by old versions: to be skipped
)

// TxnHeader is the fixed part of a transaction.
type TxnHeader struct {
	Tid              zodb.Tid
	Len              int64 // bytes from the header to the repeated length, which is not counted
	Status           Status
	User, Descr, Ext int // lengths in bytes
}

// HdrLen is the length in bytes of all that comes before the first data record.
func (h *TxnHeader) HdrLen() int64 { return TxnHdrLen + int64(h.User) + int64(h.Descr) + int64(h.Ext) }

// DecodeTxn decodes a header from the first TxnHdrLen bytes of b. Status is not checked.
func DecodeTxn(b []byte) (TxnHeader, error) {
	h := TxnHeader{
		Tid:    zodb.Tid(binary.BigEndian.Uint64(b)),
		Len:    int64(binary.BigEndian.Uint64(b[8:])),
		Status: Status(b[16]),
		User:   int(binary.BigEndian.Uint16(b[17:])),
		Descr:  int(binary.BigEndian.Uint16(b[19:])),
		Ext:    int(binary.BigEndian.Uint16(b[21:])),
	}
	if h.Len < h.HdrLen() || h.Len > MaxPos {
		return h, fmt.Errorf("transaction length %d is not possible", uint64(h.Len))
	}
	if h.Tid == 0 || h.Tid > zodb.TidMax {
		return h, fmt.Errorf("transaction id %s is not possible", h.Tid)
	}
	return h, nil
}

// AppendTxn appends the encoded header to b.
func (h *TxnHeader) AppendTxn(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Tid))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Len))
	b = append(b, byte(h.Status))
	b = binary.BigEndian.AppendUint16(b, uint16(h.User))
	b = binary.BigEndian.AppendUint16(b, uint16(h.Descr))
	return binary.BigEndian.AppendUint16(b, uint16(h.Ext))
}

// DataHeader is the fixed part of a data record.
type DataHeader struct {
	Oid  zodb.Oid
	Tid  zodb.Tid
	Prev int64 // position of the previous record of the object, 0: none
	Txn  int64 // position of the transaction
	Len  int64 // of the object record in bytes, 0: a backpointer follows
}

// RecLen is the length in bytes of the whole data record.
func (h *DataHeader) RecLen() int64 {
	if h.Len == 0 {
		return DataHdrLen + BackLen
	}
	return DataHdrLen + h.Len
}

// DecodeData decodes the data header at position pos from the first DataHdrLen bytes of b. All
// pointers in the result point before pos.
func DecodeData(b []byte, pos int64) (DataHeader, error) {
	h := DataHeader{
		Oid:  zodb.Oid(binary.BigEndian.Uint64(b)),
		Tid:  zodb.Tid(binary.BigEndian.Uint64(b[8:])),
		Prev: int64(binary.BigEndian.Uint64(b[16:])),
		Txn:  int64(binary.BigEndian.Uint64(b[24:])),
		Len:  int64(binary.BigEndian.Uint64(b[34:])),
	}
	switch {
	case b[32] != 0 || b[33] != 0:
		return h, errors.New("data record is of a version, which is not supported since ZODB 3.9")
	case h.Txn < MagicLen || h.Txn > pos-TxnHdrLen:
		return h, fmt.Errorf("data record points to a transaction at %d", h.Txn)
	case h.Prev != 0 && h.Prev < MagicLen+TxnHdrLen || h.Prev >= h.Txn:
		return h, fmt.Errorf("data record points to a previous record at %d", h.Prev)
	case h.Len < 0 || h.Len > MaxPos:
		return h, fmt.Errorf("data length %d is not possible", uint64(h.Len))
	}
	return h, nil
}

// AppendData appends the encoded header to b.
func (h *DataHeader) AppendData(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Oid))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Tid))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Prev))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Txn))
	b = append(b, 0, 0)
	return binary.BigEndian.AppendUint64(b, uint64(h.Len))
}
