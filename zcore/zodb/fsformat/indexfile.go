package fsformat

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Data.fs.index is a row of pickles: the position up to which the index holds (a number), then one
// tuple a group (6 bytes of id, a string of 8 bytes an entry), then None. Python 2 and 3 use different
// protocols for it; the few opcodes below are all that they leave.

var errIndex = errors.New("not a FileStorage index")

// WriteIndex writes x, which holds up to file position end, as Python reads it.
func WriteIndex(w io.Writer, x *Index, end int64) error {
	bw := bufio.NewWriterSize(w, 1<<16)
	num := binary.LittleEndian.AppendUint64(nil, uint64(end)) // end < 2^48: the sign bit is clear
	bw.WriteString("\x80\x03\x8a\x08")
	bw.Write(num)
	bw.WriteByte('.')
	var buf []byte
	for _, g := range x.Groups() {
		key := binary.BigEndian.AppendUint64(nil, g)[2:]
		buf = x.appendLeaf(buf[:0], g)
		bw.WriteString("\x80\x03C\x06")
		bw.Write(key)
		bw.WriteByte('B')
		bw.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(buf))))
		bw.Write(buf)
		bw.WriteString("\x86.")
	}
	bw.WriteString("\x80\x03N.")
	return bw.Flush()
}

// ReadIndex reads what WriteIndex or Python wrote. Nothing in it is trusted: positions outside the part of the
// file that it claims to cover, unsorted or repeated ids make it an error. The caller checks that it fits the
// data file.
func ReadIndex(r io.Reader) (x *Index, end int64, err error) {
	u := &unpickler{r: bufio.NewReaderSize(r, 1<<18)}
	v, err := u.load()
	if err != nil {
		return nil, 0, err
	}
	end, ok := v.(int64)
	if !ok || end < MagicLen || end > MaxPos {
		return nil, 0, fmt.Errorf("%w: bad position", errIndex)
	}
	x = NewIndex()
	for {
		v, err := u.load()
		if err != nil {
			return nil, 0, err
		}
		if v == nil {
			return x, end, nil
		}
		t, ok := v.([2][]byte)
		if !ok || len(t[0]) != 6 {
			return nil, 0, fmt.Errorf("%w: bad entry", errIndex)
		}
		group := binary.BigEndian.Uint64(append([]byte{0, 0}, t[0]...))
		if !x.setLeaf(group, t[1], MagicLen+TxnHdrLen, end) {
			return nil, 0, fmt.Errorf("%w: bad positions in group %012x", errIndex, group)
		}
	}
}

// unpickler reads pickles of a number, None, or a pair of byte strings; anything else is an error.
type unpickler struct {
	r     *bufio.Reader
	stack []any
}

func (u *unpickler) load() (any, error) {
	u.stack = u.stack[:0]
	for len(u.stack) < 8 {
		op, err := u.r.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errIndex, err)
		}
		if op == '.' {
			if len(u.stack) != 1 {
				return nil, errIndex
			}
			return u.stack[0], nil
		}
		if err := u.step(op); err != nil {
			return nil, err
		}
	}
	return nil, errIndex
}

func (u *unpickler) step(op byte) error {
	var v any
	var err error
	switch op {
	case 0x80, 'q': // protocol, memo
		_, err = u.uint(1)
		return err
	case 'r':
		_, err = u.uint(4)
		return err
	case '(':
		return nil
	case 't', 0x86: // pair
		if len(u.stack) != 2 {
			return errIndex
		}
		k, ok1 := u.stack[0].([]byte)
		s, ok2 := u.stack[1].([]byte)
		if !ok1 || !ok2 {
			return errIndex
		}
		u.stack = append(u.stack[:0], [2][]byte{k, s})
		return nil
	case 'N':
	case 'K':
		v, err = u.uint(1)
	case 'M':
		v, err = u.uint(2)
	case 'J':
		v, err = u.uint(4)
	case 0x8a:
		v, err = u.long()
	case 'I', 'L':
		v, err = u.decimal()
	case 'C', 'U':
		v, err = u.bytes(1)
	case 'B', 'T':
		v, err = u.bytes(4)
	default:
		return errIndex
	}
	u.stack = append(u.stack, v)
	return err
}

func (u *unpickler) uint(n int) (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(u.r, b[:n]); err != nil {
		return 0, fmt.Errorf("%w: %w", errIndex, err)
	}
	return int64(binary.LittleEndian.Uint64(b[:])), nil
}

func (u *unpickler) long() (int64, error) {
	n, err := u.uint(1)
	if err != nil || n > 8 {
		return 0, errIndex
	}
	return u.uint(int(n))
}

func (u *unpickler) decimal() (int64, error) {
	line, err := u.r.ReadSlice('\n')
	if err != nil {
		return 0, errIndex
	}
	s := string(line[:len(line)-1])
	if n := len(s); n > 0 && s[n-1] == 'L' {
		s = s[:n-1]
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errIndex
	}
	return v, nil
}

// bytes reads a string after its length of n bytes. A group has at most 65536 entries of 8 bytes.
func (u *unpickler) bytes(n int) ([]byte, error) {
	size, err := u.uint(n)
	if err != nil || size > 8<<16 {
		return nil, errIndex
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(u.r, b); err != nil {
		return nil, fmt.Errorf("%w: %w", errIndex, err)
	}
	return b, nil
}
