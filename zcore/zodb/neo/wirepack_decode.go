package neo

import (
	"math"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// source is the bytes of a message.
type source struct {
	b  []byte
	at int
}

func (s *source) left() int { return len(s.b) - s.at }

func (s *source) Read(p []byte) (int, error) {
	if s.left() == 0 && len(p) > 0 {
		return 0, errShort
	}
	n := copy(p, s.b[s.at:])
	s.at += n
	return n, nil
}

func (s *source) ReadByte() (byte, error) {
	if s.left() == 0 {
		return 0, errShort
	}
	s.at++
	return s.b[s.at-1], nil
}

func (s *source) UnreadByte() error { s.at--; return nil }

// packDecoder decodes a message that was read. Heads of values are left to the library.
type packDecoder struct {
	decoder
	src *source
	dec *msgpack.Decoder
}

func (d *packDecoder) got(err error) bool {
	if err != nil && d.err == nil {
		d.err = err
	}
	return d.err == nil
}

// peek returns the code of the next value, and counts it.
func (d *packDecoder) peek() byte {
	d.countValues(1)
	if d.err != nil {
		return 0
	}
	c, err := d.dec.PeekCode()
	d.got(err)
	return c
}

// isNil tells whether the next value is nil, and takes it then.
func (d *packDecoder) isNil() bool {
	return d.peek() == msgpcode.Nil && d.err == nil && d.got(d.dec.DecodeNil())
}

func (d *packDecoder) array() int {
	c := d.peek()
	if d.err != nil {
		return 0
	}
	if !msgpcode.IsFixedArray(c) && c != msgpcode.Array16 && c != msgpcode.Array32 {
		d.fail("%#02x where a list should be", c)
		return 0
	}
	n, err := d.dec.DecodeArrayLen()
	if !d.got(err) {
		return 0
	}
	return n
}

// tuple allows for more than n values, which a later server may have.
func (d *packDecoder) tuple(n int, fields func()) {
	have := d.array()
	if d.err == nil && have < n {
		d.fail("%d values where %d should be", have, n)
	}
	if d.err != nil {
		return
	}
	fields()
	for i := n; i < have && d.err == nil; i++ {
		d.skip(0)
	}
}

func (d *packDecoder) count(n *int, min int) {
	*n = d.array()
	if d.err == nil && *n > maxValues {
		d.err = errTooMany
	}
	if d.err == nil && *n > d.src.left()/min {
		d.err = errShort
	}
}

func (d *packDecoder) signed(low, high int64) int64 {
	c := d.peek()
	if d.err != nil {
		return 0
	}
	if !isInt(c) {
		d.fail("%#02x where a number should be", c)
		return 0
	}
	v, err := d.dec.DecodeInt64()
	if c == msgpcode.Uint64 && v < 0 || v < low || v > high {
		d.fail("%d is out of range", v)
		return 0
	}
	d.got(err)
	return v
}

func isInt(c byte) bool {
	return msgpcode.IsFixedNum(c) || c >= msgpcode.Uint8 && c <= msgpcode.Int64
}

// str reads bytes or text.
func (d *packDecoder) str(limit int) []byte {
	c := d.peek()
	if d.err != nil {
		return nil
	}
	if !msgpcode.IsBin(c) && !msgpcode.IsString(c) {
		d.fail("%#02x where bytes should be", c)
		return nil
	}
	n, err := d.dec.DecodeBytesLen()
	if !d.got(err) {
		return nil
	}
	return d.take(n, limit)
}

func (d *packDecoder) take(n, limit int) []byte {
	switch {
	case d.err != nil:
		return nil
	case n < 0 || n > d.src.left():
		d.err = errShort
		return nil
	case n > limit:
		d.err = errTooLong
		return nil
	}
	d.src.at += n
	return d.src.b[d.src.at-n : d.src.at : d.src.at]
}

// exactly reads n bytes.
func (d *packDecoder) exactly(n int) []byte {
	b := d.str(n)
	if d.err == nil && len(b) != n {
		d.fail("%d bytes where %d should be", len(b), n)
	}
	if d.err != nil {
		return make([]byte, n)
	}
	return b
}

func (d *packDecoder) int32(v *int32)       { *v = int32(d.signed(math.MinInt32, math.MaxInt32)) }
func (d *packDecoder) uint32(v *uint32)     { *v = uint32(d.signed(0, math.MaxUint32)) }
func (d *packDecoder) uint64(v *uint64)     { *v = uint64(d.signed(0, math.MaxInt64)) }
func (d *packDecoder) checksum(v *[20]byte) { copy(v[:], d.exactly(20)) }
func (d *packDecoder) bytes(v *[]byte)      { *v = d.str(math.MaxInt) }

func (d *packDecoder) id(v *uint64) {
	*v = 0
	for _, c := range d.exactly(8) {
		*v = *v<<8 | uint64(c)
	}
	if *v > maxID {
		d.fail("%016x is not an id", *v)
	}
}

func (d *packDecoder) optional(v *uint64) {
	if *v = 0; !d.isNil() {
		d.uint64(v)
	}
}

func (d *packDecoder) optID(v *uint64) {
	if *v = none; !d.isNil() {
		d.id(v)
	}
}

func (d *packDecoder) node(v *int32) {
	if *v = 0; !d.isNil() {
		d.int32(v)
	}
}

func (d *packDecoder) index(v *int32) {
	if *v = -1; !d.isNil() {
		*v = int32(d.signed(0, math.MaxInt32))
	}
}

func (d *packDecoder) compression(v *int8) {
	switch c := d.peek(); {
	case c == msgpcode.Nil:
		*v = -1
		d.got(d.dec.DecodeNil())
	case c == msgpcode.True || c == msgpcode.False: // as in protocol 6
		b, err := d.dec.DecodeBool()
		if *v = 0; d.got(err) && b {
			*v = 1
		}
	default:
		*v = int8(d.signed(0, math.MaxInt8))
	}
}

func (d *packDecoder) flag(v *bool) {
	c := d.peek()
	if d.err != nil {
		return
	}
	if isInt(c) {
		*v = d.signed(0, 1) == 1
		return
	}
	b, err := d.dec.DecodeBool()
	d.got(err)
	*v = b
}

// code is a plain number; an enumeration would do as well.
func (d *packDecoder) code(v *uint32) {
	if c := d.peek(); d.err == nil && msgpcode.IsExt(c) {
		var e int8
		d.enum(enumErrorCode, &e)
		*v = uint32(e)
		return
	}
	d.uint32(v)
}

func (d *packDecoder) enum(t enum, v *int8) {
	if *v = -1; d.isNil() || d.err != nil {
		return
	}
	c := d.peek()
	if isInt(c) {
		*v = int8(d.signed(0, math.MaxInt8))
		return
	}
	if !msgpcode.IsExt(c) {
		d.fail("%#02x where a value of enumeration %d should be", c, t)
		return
	}
	got, n, err := d.dec.DecodeExtHeader()
	if d.got(err) && (n != 1 || got != int8(t)) {
		d.fail("a value of enumeration %d, %d bytes, where one of %d should be", got, n, t)
	}
	if b := d.take(n, 1); d.err == nil {
		if *v = int8(b[0]); *v < 0 {
			d.fail("%d is no value of an enumeration", *v)
		}
	}
}

func (d *packDecoder) stamp(v *stamp) {
	if *v = noStamp; d.isNil() || d.err != nil {
		return
	}
	c := d.peek()
	var f float64
	var err error
	switch {
	case isInt(c):
		f = float64(d.signed(math.MinInt64, math.MaxInt64))
	case c == msgpcode.Float || c == msgpcode.Double:
		f, err = d.dec.DecodeFloat64()
	default:
		d.fail("%#02x where a time should be", c)
	}
	if d.got(err) {
		*v = stamp(math.Float64bits(f))
	}
}

func (d *packDecoder) address(a *address) {
	if *a = (address{}); d.isNil() {
		return
	}
	d.tuple(2, func() {
		a.host = string(d.str(1 << 10))
		a.port = uint16(d.signed(0, math.MaxUint16))
	})
	if a.host == "" {
		*a = address{}
	}
}

// identity finds whether the client asks for reading only.
func (d *packDecoder) identity(ro *bool) {
	*ro = false
	d.peek()
	if d.err != nil {
		return
	}
	n, err := d.dec.DecodeMapLen()
	if !d.got(err) {
		return
	}
	for i := 0; i < n && d.err == nil; i++ {
		if string(d.str(1<<10)) == "read_only" {
			d.flag(ro)
		} else {
			d.skip(0)
		}
	}
}

// skip passes over a value.
func (d *packDecoder) skip(depth int) {
	c := d.peek()
	if d.err == nil && depth > maxDepth {
		d.fail("it is nested too deeply")
	}
	if d.err != nil {
		return
	}
	n, each := 0, 1
	var err error
	switch {
	case msgpcode.IsBin(c) || msgpcode.IsString(c):
		d.str(math.MaxInt)
	case msgpcode.IsExt(c):
		_, n, err = d.dec.DecodeExtHeader()
		if d.got(err) {
			d.take(n, math.MaxInt)
		}
		return
	case msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32:
		n, err = d.dec.DecodeArrayLen()
	case msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32:
		n, err = d.dec.DecodeMapLen()
		each = 2
	default:
		err = d.dec.Skip()
	}
	if !d.got(err) {
		return
	}
	for i := 0; i < n && d.err == nil; i++ {
		for range each {
			d.skip(depth + 1)
		}
	}
}
