package neo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// encodePacked makes [id, code, arguments]. A server may end at a message that is anything else.
func encodePacked(id uint32, code uint16, m message) ([]byte, error) {
	var buf bytes.Buffer
	w := &packEncoder{buf: &buf, enc: msgpack.NewEncoder(&buf)}
	w.must(w.enc.EncodeArrayLen(3))
	w.must(w.enc.EncodeUint(uint64(id)))
	w.must(w.enc.EncodeUint(uint64(code)))
	m.fields(w)
	if w.err != nil {
		return nil, fmt.Errorf("%T cannot be sent: %w", m, w.err)
	}
	return buf.Bytes(), nil
}

type packEncoder struct {
	encoder
	buf *bytes.Buffer
	enc *msgpack.Encoder
}

func (w *packEncoder) must(err error) {
	if err != nil {
		w.fail("%w", err)
	}
}

func (w *packEncoder) null()          { w.must(w.enc.EncodeNil()) }
func (w *packEncoder) bin(b []byte)   { w.must(w.enc.EncodeBytesLen(len(b))); w.buf.Write(b) }
func (w *packEncoder) num(v uint64)   { w.must(w.enc.EncodeUint(v)) }
func (w *packEncoder) signed(v int64) { w.must(w.enc.EncodeInt(v)) }

func (w *packEncoder) raw(v uint64) {
	var b [8]byte
	for i := range b {
		b[i] = byte(v >> (56 - 8*i))
	}
	w.bin(b[:])
}

func (w *packEncoder) tuple(n int, fields func()) { w.must(w.enc.EncodeArrayLen(n)); fields() }
func (w *packEncoder) count(n *int, _ int)        { w.must(w.enc.EncodeArrayLen(*n)) }
func (w *packEncoder) uint32(v *uint32)           { w.num(uint64(*v)) }
func (w *packEncoder) uint64(v *uint64)           { w.num(*v) }
func (w *packEncoder) code(v *uint32)             { w.num(uint64(*v)) }
func (w *packEncoder) id(v *uint64)               { w.checkID(*v); w.raw(*v) }
func (w *packEncoder) checksum(v *[20]byte)       { w.bin(v[:]) }
func (w *packEncoder) bytes(v *[]byte)            { w.bin(*v) }
func (w *packEncoder) flag(v *bool)               { w.must(w.enc.EncodeBool(*v)) }

func (w *packEncoder) optional(v *uint64) {
	if *v == 0 {
		w.null()
		return
	}
	w.num(*v)
}

func (w *packEncoder) optID(v *uint64) {
	if *v == none {
		w.null()
		return
	}
	w.id(v)
}

func (w *packEncoder) node(v *int32) {
	if *v == 0 {
		w.null()
		return
	}
	w.signed(int64(*v))
}

func (w *packEncoder) enum(t enum, v *int8) {
	w.checkEnum(*v)
	if *v < 0 {
		w.null()
		return
	}
	w.must(w.enc.EncodeExtHeader(int8(t), 1))
	w.buf.WriteByte(byte(*v))
}

func (w *packEncoder) stamp(v *stamp) {
	if *v == noStamp {
		w.null()
		return
	}
	w.must(w.enc.EncodeFloat64(math.Float64frombits(uint64(*v))))
}

func (w *packEncoder) compression(v *int8) {
	if *v < 0 {
		w.null()
		return
	}
	w.num(uint64(*v))
}

func (w *packEncoder) address(a *address) {
	w.checkAddress(a)
	if a.host == "" {
		w.null()
		return
	}
	w.must(w.enc.EncodeArrayLen(2))
	w.bin([]byte(a.host))
	w.num(uint64(a.port))
}

func (w *packEncoder) index(v *int32) {
	if *v < 0 {
		w.null()
		return
	}
	w.signed(int64(*v))
}

// identity is a mapping, of which this client uses one key.
func (w *packEncoder) identity(ro *bool) {
	if !*ro {
		w.must(w.enc.EncodeMapLen(0))
		return
	}
	w.must(w.enc.EncodeMapLen(1))
	w.bin([]byte("read_only"))
	w.flag(ro)
}

var errTooLong = errors.New("it is longer than allowed")

// scanner reads one value off a connection, whatever it is, and keeps its bytes. Heads of values are left to the
// library.
type scanner struct {
	r    *bufio.Reader
	left int // bytes that may still come
	b    []byte
	vals int
}

func (s *scanner) Read(p []byte) (int, error) {
	if s.left == 0 && len(p) > 0 {
		return 0, errTooLong
	}
	n, err := s.r.Read(p[:min(len(p), s.left)])
	s.left -= n
	s.b = append(s.b, p[:n]...)
	return n, err
}

func (s *scanner) ReadByte() (byte, error) {
	if s.left == 0 {
		return 0, errTooLong
	}
	c, err := s.r.ReadByte()
	if err == nil {
		s.left--
		s.b = append(s.b, c)
	}
	return c, err
}

func (s *scanner) UnreadByte() error {
	s.left++
	s.b = s.b[:len(s.b)-1]
	return s.r.UnreadByte()
}

// pass reads n bytes; memory is taken as they come.
func (s *scanner) pass(n int) error {
	if n < 0 || n > s.left {
		return errTooLong
	}
	s.left -= n
	for n > 0 {
		part, at := min(n, max(step, len(s.b))), len(s.b)
		s.b = slices.Grow(s.b, part)[:at+part]
		got, err := io.ReadFull(s.r, s.b[at:])
		if err != nil {
			s.b = s.b[:at+got]
			return err
		}
		n -= part
	}
	return nil
}

// value reads a value.
func (s *scanner) value(dec *msgpack.Decoder, depth int) error {
	if s.vals++; s.vals > maxValues {
		return errTooMany
	}
	if depth > maxDepth {
		return errors.New("it is nested too deeply")
	}
	c, err := dec.PeekCode()
	if err != nil {
		return err
	}
	n, each := 0, 1
	switch {
	case msgpcode.IsBin(c) || msgpcode.IsString(c):
		if n, err = dec.DecodeBytesLen(); err == nil {
			err = s.pass(n)
		}
		return err
	case msgpcode.IsExt(c):
		if _, n, err = dec.DecodeExtHeader(); err == nil {
			err = s.pass(n)
		}
		return err
	case msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32:
		n, err = dec.DecodeArrayLen()
	case msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32:
		n, err = dec.DecodeMapLen()
		each = 2
	default:
		return dec.Skip()
	}
	for i := 0; i < n*each && err == nil; i++ {
		err = s.value(dec, depth+1)
	}
	return err
}

// readPacked reads a message. There is no length before it: one that does not end as it should ends the connection.
func readPacked(r *bufio.Reader, limit int) (envelope, error) {
	if _, err := r.Peek(1); err != nil {
		return envelope{}, err
	}
	s := &scanner{r: r, left: limit}
	err := s.value(msgpack.NewDecoder(s), 0)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	var cut net.Error
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &cut) || errors.Is(err, net.ErrClosed) {
		return envelope{}, err
	}
	e, derr := decodePacked(s.b)
	e.size = int64(len(s.b))
	switch {
	case err != nil:
		return e, &unreadableError{code: e.code, at: len(s.b), err: err, last: true}
	case derr != nil:
		return e, derr
	}
	return e, nil
}

// decodePacked decodes what was read. Of a part it decodes what there is.
func decodePacked(b []byte) (envelope, error) {
	var e envelope
	src := &source{b: b}
	d := &packDecoder{src: src, dec: msgpack.NewDecoder(src)}
	d.tuple(3, func() {
		var code uint32
		d.uint32(&e.id)
		d.uint32(&code)
		if code > math.MaxUint16 {
			d.fail("%#x is not a code", code)
		}
		if d.failed() {
			return
		}
		e.code = uint16(code)
		m := newMessage(packed, e.code)
		if m == nil {
			d.skip(0)
			return
		}
		m.fields(d)
		e.msg = m
	})
	if d.err != nil {
		e.msg = nil
		return e, &unreadableError{code: e.code, at: src.at, err: d.err, last: e.code == 0}
	}
	return e, nil
}

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
