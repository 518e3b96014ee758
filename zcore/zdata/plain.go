package zdata

import (
	"encoding/binary"
	"io"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

const (
	plainHead = 512 // a class pickle of ours ends well before that
	plainTail = 16  // at most that follows the data: a memo opcode and STOP
)

// FindPlain tells where in the record of a ZBlk0 or ZBlk its data lies as it is. Only the first and last
// bytes of the record, which is n bytes of r, are read. ok is false when the record is anything
// else, damaged ones included: LoadBlk knows what to make of it.
func FindPlain(oid zodb.Oid, r io.ReaderAt, n int64) (off, size int64, ok bool, err error) {
	if n == 0 {
		return 0, 0, false, nil
	}
	head := make([]byte, min(n, plainHead))
	if _, err := r.ReadAt(head, 0); err != nil {
		return 0, 0, false, err
	}
	tail := make([]byte, min(n, plainTail))
	if _, err := r.ReadAt(tail, n-int64(len(tail))); err != nil {
		return 0, 0, false, err
	}
	for i, op := range head {
		width := int64(0)
		switch op {
		case 'B', 'T': // BINBYTES, BINSTRING
			width = 4
		case 'C', 'U': // SHORT_BINBYTES, SHORT_BINSTRING
			width = 1
		default:
			continue
		}
		off = int64(i) + 1 + width
		if off > int64(len(head)) {
			break
		}
		var b [4]byte
		copy(b[:], head[i+1:off])
		size = int64(binary.LittleEndian.Uint32(b[:]))
		rest := n - off - size // bytes that follow the data
		if rest >= 1 && rest <= int64(len(tail)) && isPlain(oid, head[:i+1], width, tail[int64(len(tail))-rest:]) {
			return off, size, true, nil
		}
	}
	return 0, 0, false, nil
}

// isPlain decodes the record with other, short data in place of what follows begin, the opcode that loads it.
// The rest of the record is run unchanged. So if the result is the state of a ZBlk with exactly that data, then
// the record's state is exactly its own.
func isPlain(oid zodb.Oid, begin []byte, width int64, end []byte) bool {
	short := make([]byte, 0, len(begin)+int(width)+1+len(end))
	short = append(short, begin...)
	short = append(short, 1, 0, 0, 0)[:len(begin)+int(width)]
	at := len(short)
	short = append(append(short, 0), end...)
	obj, err := record.Decode(oid, zodb.Record{Data: short})
	if err != nil || obj.State.Kind != record.Bytes || len(obj.State.Data) != 1 || &obj.State.Data[0] != &short[at] {
		return false
	}
	return obj.Class.Module == record.ModBigFile && (obj.Class.Name == "ZBlk0" || obj.Class.Name == "ZBlk")
}
