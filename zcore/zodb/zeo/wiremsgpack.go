package zeo

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// msgpackWire is the encoding M5. Only heads of values are left to the library: strings are taken
// out of the frame without a copy, and lengths are checked before anything is made.
type msgpackWire struct {
	max int // values in one message
}

func (msgpackWire) encode(b []byte, id int64, method string, args []any) []byte {
	buf := bytes.NewBuffer(b)
	enc := msgpack.NewEncoder(buf)
	if args == nil {
		args = []any{}
	}
	for _, err := range []error{enc.EncodeArrayLen(4), enc.EncodeInt(id), enc.EncodeInt(0), enc.EncodeString(method), enc.Encode(args)} {
		if err != nil { // a bytes.Buffer does not fail, and arguments are plain values
			panic(err)
		}
	}
	return buf.Bytes()
}

func (w msgpackWire) decode(frame []byte) (message, error) {
	u := unpacker{max: w.max, frame: frame, r: bytes.NewReader(frame)}
	u.dec = msgpack.NewDecoder(u.r)
	v, err := u.value(0)
	if err == nil && u.r.Len() != 0 {
		err = errors.New("it does not end with one value")
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		return w.head(frame), fmt.Errorf("msgpack at byte %d: %w", len(frame)-u.r.Len(), err)
	}
	return asMessage(v)
}

// head returns what is known of a message that could not be read to its end.
func (w msgpackWire) head(frame []byte) message {
	u := unpacker{max: w.max, frame: frame, r: bytes.NewReader(frame)}
	u.dec = msgpack.NewDecoder(u.r)
	n, err := u.dec.DecodeArrayLen()
	parts := make([]any, 4)
	for i := 0; i < 3 && err == nil && n == 4; i++ {
		parts[i], err = u.value(1)
	}
	msg, err2 := asMessage(parts)
	if err != nil || err2 != nil || n != 4 {
		return message{}
	}
	return msg
}

type unpacker struct {
	frame []byte
	r     *bytes.Reader
	dec   *msgpack.Decoder
	made  int // values so far, at most max
	max   int
}

func (u *unpacker) value(depth int) (any, error) {
	if u.made++; u.made > u.max {
		return nil, errTooMany
	}
	if depth > maxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	c, err := u.dec.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case c == msgpcode.Nil:
		return nil, u.dec.DecodeNil()
	case c == msgpcode.True || c == msgpcode.False:
		return u.dec.DecodeBool()
	case c == msgpcode.Float || c == msgpcode.Double:
		return u.dec.DecodeFloat64()
	case msgpcode.IsString(c):
		b, err := u.str()
		return string(b), err
	case msgpcode.IsBin(c):
		return u.str()
	case msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32:
		return u.array(depth)
	case msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32:
		return u.dict(depth)
	case msgpcode.IsExt(c):
		_, n, err := u.dec.DecodeExtHeader()
		if err == nil {
			_, err = u.take(n)
		}
		return opaque{}, err
	case c == msgpcode.Uint64:
		i, err := u.dec.DecodeUint64()
		return int64(i), err
	}
	i, err := u.dec.DecodeInt64() // an error for every other code
	return i, err
}

// str takes a string's bytes out of the frame.
func (u *unpacker) str() ([]byte, error) {
	n, err := u.dec.DecodeBytesLen()
	if err != nil {
		return nil, err
	}
	return u.take(n)
}

func (u *unpacker) take(n int) ([]byte, error) {
	if n < 0 || n > u.r.Len() {
		return nil, errShort
	}
	at := len(u.frame) - u.r.Len()
	if _, err := u.r.Seek(int64(n), io.SeekCurrent); err != nil {
		return nil, err
	}
	return u.frame[at : at+n : at+n], nil
}

func (u *unpacker) array(depth int) (any, error) {
	n, err := u.dec.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > u.r.Len() { // each element is a byte at least
		return nil, errShort
	}
	items := make([]any, 0, min(n, 1024)) // the number is a claim that nests
	for range n {
		v, err := u.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

func (u *unpacker) dict(depth int) (any, error) {
	n, err := u.dec.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > u.r.Len()/2 {
		return nil, errShort
	}
	d := dict{}
	for range n {
		k, err := u.value(depth + 1)
		if err != nil {
			return nil, err
		}
		v, err := u.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if s, ok := asText(k); ok {
			d[s] = v
		}
	}
	return d, nil
}
