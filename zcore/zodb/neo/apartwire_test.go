package neo_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"wcfs/zcore/zodb"
)

// What a fake server needs of msgpack, written apart from the driver's codec so that an error in one is not in both.

// enum is a value of an enumeration: an ext whose type says which.
type enum struct{ kind, value byte }

func pack(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0xc0)
	case bool:
		return append(b, map[bool]byte{false: 0xc2, true: 0xc3}[v])
	case int:
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
	case enum:
		return append(b, 0xd4, v.kind, v.value)
	case []byte:
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(len(v)))
		return append(b, v...)
	case string:
		return pack(b, []byte(v))
	case zodb.Tid:
		return pack(b, binary.BigEndian.AppendUint64(nil, uint64(v)))
	case zodb.Oid:
		return pack(b, zodb.Tid(v))
	case []any:
		b = binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(len(v)))
		for _, x := range v {
			b = pack(b, x)
		}
		return b
	}
	panic(fmt.Sprintf("fake: cannot pack %T", v))
}

// unpack reads a value; numbers come as int, maps as []any of keys and values. What NEO's clients never
// send is an error: real servers end for less.
func unpack(r *bufio.Reader) (any, error) {
	tag, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	number := func(n int) (u uint64, err error) {
		b := make([]byte, n)
		_, err = io.ReadFull(r, b)
		for _, x := range b {
			u = u<<8 | uint64(x)
		}
		return u, err
	}
	sized := func(n int, of func(int) (any, error)) (any, error) {
		size, err := number(n)
		if err != nil || size > 1<<20 {
			return nil, fmt.Errorf("size %d: %w", size, err)
		}
		return of(int(size))
	}
	bytes := func(n int) (any, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	list := func(n int) (any, error) {
		l := make([]any, n)
		for i := range l {
			if l[i], err = unpack(r); err != nil {
				return nil, err
			}
		}
		return l, nil
	}
	switch {
	case tag < 0x80 || tag >= 0xe0:
		return int(int8(tag)), nil
	case tag < 0x90:
		return list(2 * int(tag&15))
	case tag < 0xa0:
		return list(int(tag & 15))
	case tag == 0xc0:
		return nil, nil
	case tag == 0xc2 || tag == 0xc3:
		return tag == 0xc3, nil
	case tag >= 0xc4 && tag <= 0xc6:
		return sized(1<<(tag-0xc4), bytes)
	case tag == 0xcb:
		u, err := number(8)
		return math.Float64frombits(u), err
	case tag >= 0xcc && tag <= 0xcf:
		u, err := number(1 << (tag - 0xcc))
		return int(u), err
	case tag >= 0xd0 && tag <= 0xd3:
		n := 1 << (tag - 0xd0)
		u, err := number(n)
		return int(int64(u<<(64-8*n)) >> (64 - 8*n)), err
	case tag == 0xd4:
		u, err := number(2)
		return enum{byte(u >> 8), byte(u)}, err
	case tag == 0xdc || tag == 0xdd:
		return sized(2<<(tag-0xdc), list)
	}
	return nil, fmt.Errorf("byte %#x begins nothing that a NEO client sends", tag)
}

func id(v any) uint64 {
	if v == nil {
		return math.MaxUint64
	}
	return binary.BigEndian.Uint64(v.([]byte))
}
