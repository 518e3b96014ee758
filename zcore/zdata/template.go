package zdata

import (
	"bytes"
	"encoding/binary"

	"wcfs/zcore/zodb/record"
)

// A template is the bytes before and after the payload of a ZData record. They are identical for all chunks, so
// after one record is decoded the others are matched against it instead of being unpickled. Used by one
// goroutine.
type template struct {
	head, tail []byte // up to the opcode that loads the data; what follows the data
	width      int    // bytes of the length between head and data: 1 or 4; 0 while nothing was learnt
}

const templateTail = 16 // longest tail

// learn takes the form of a record, if obj, which it was decoded to, has the data as it is in the record.
func (m *template) learn(rec []byte, obj record.Object) {
	m.width = 0
	data := obj.State.Data
	if obj.State.Kind != record.Bytes || len(data) == 0 {
		return
	}
	for n := 1; n <= templateTail; n++ {
		off := len(rec) - n - len(data)
		if off < 5 {
			return
		}
		if &rec[off] != &data[0] {
			continue
		}
		short := (rec[off-2] == 'C' || rec[off-2] == 'U') && int(rec[off-1]) == len(data)
		long := (rec[off-5] == 'B' || rec[off-5] == 'T') && binary.LittleEndian.Uint32(rec[off-4:]) == uint32(len(data))
		switch {
		case short == long: // it cannot be told, or it is another opcode
			return
		case short:
			m.width = 1
		default:
			m.width = 4
		}
		m.head = append(m.head[:0], rec[:off-m.width]...)
		m.tail = append(m.tail[:0], rec[off+len(data):]...)
		return
	}
}

// data returns the data of a record of the form that was learnt.
func (m *template) data(rec []byte) ([]byte, bool) {
	off := len(m.head) + m.width
	size := len(rec) - off - len(m.tail)
	if m.width == 0 || size < 0 || !bytes.HasPrefix(rec, m.head) || !bytes.HasSuffix(rec, m.tail) {
		return nil, false
	}
	n := uint64(rec[off-m.width])
	if m.width == 4 {
		n = uint64(binary.LittleEndian.Uint32(rec[off-4:]))
	}
	if n != uint64(size) {
		return nil, false
	}
	return rec[off : off+size : off+size], true
}
