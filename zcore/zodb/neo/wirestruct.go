package neo

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// headStruct is the length of what is before the body: u32 id, u16 code, u32 length.
const headStruct = 10

func encodeStruct(id uint32, code uint16, m message) ([]byte, error) {
	w := &structEncoder{b: make([]byte, headStruct, 96)}
	m.fields(w)
	if n := len(w.b) - headStruct; w.err == nil && n > maxStruct {
		w.fail("%d bytes are more than a message may have", n)
	}
	if w.err != nil {
		return nil, fmt.Errorf("%T cannot be sent: %w", m, w.err)
	}
	binary.BigEndian.PutUint32(w.b, id)
	binary.BigEndian.PutUint16(w.b[4:], code)
	binary.BigEndian.PutUint32(w.b[6:], uint32(len(w.b)-headStruct))
	return w.b, nil
}

func readStruct(r *bufio.Reader, limit int) (envelope, error) {
	var head [headStruct]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return envelope{}, err
	}
	e := envelope{id: binary.BigEndian.Uint32(head[:]), code: binary.BigEndian.Uint16(head[4:])}
	n := binary.BigEndian.Uint32(head[6:])
	if int64(n) > int64(limit) {
		return e, &unreadableError{code: e.code, err: fmt.Errorf("it has %d bytes, more than the %d allowed", n, limit), last: true}
	}
	body, err := readN(r, int(n))
	if err != nil {
		return e, err
	}
	e.size = headStruct + int64(n)
	m := newMessage(structs, e.code)
	if m == nil {
		return e, nil
	}
	d := &structDecoder{b: body}
	m.fields(d)
	if d.err == nil && d.at != len(d.b) {
		d.fail("%d bytes too many", len(d.b)-d.at)
	}
	if d.err != nil {
		return e, &unreadableError{code: e.code, at: d.at, err: d.err}
	}
	e.msg = m
	return e, nil
}

// encoder is what both encoders do alike.
type encoder struct{ err error }

func (w *encoder) decoding() bool { return false }
func (w *encoder) failed() bool   { return w.err != nil }
func (w *encoder) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// checkID refuses an id that servers cannot take.
func (w *encoder) checkID(v uint64) {
	if v > maxID {
		w.fail("%016x is not an id", v)
	}
}

// checkEnum refuses what is no value of an enumeration.
func (w *encoder) checkEnum(v int8) {
	if v < -1 || v > 13 {
		w.fail("%d is no value of an enumeration", v)
	}
}

func (w *encoder) checkAddress(a *address) {
	if (a.host == "") != (a.port == 0) || len(a.host) > 255 {
		w.fail("%q is not an address", a.host)
	}
}

type structEncoder struct {
	encoder
	b []byte
}

func (w *structEncoder) tuple(_ int, fields func()) { fields() }
func (w *structEncoder) count(n *int, _ int)        { w.u32(uint32(*n)) }
func (w *structEncoder) u32(v uint32)               { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *structEncoder) u64(v uint64)               { w.b = binary.BigEndian.AppendUint64(w.b, v) }
func (w *structEncoder) uint32(v *uint32)           { w.u32(*v) }
func (w *structEncoder) uint64(v *uint64)           { w.u64(*v) }
func (w *structEncoder) optional(v *uint64)         { w.u64(*v) }
func (w *structEncoder) code(v *uint32)             { w.u32(*v) }
func (w *structEncoder) id(v *uint64)               { w.checkID(*v); w.u64(*v) }
func (w *structEncoder) node(v *int32)              { w.u32(uint32(*v)) }
func (w *structEncoder) enum(_ enum, v *int8)       { w.checkEnum(*v); w.b = append(w.b, byte(*v)) }
func (w *structEncoder) stamp(v *stamp)             { w.u64(uint64(*v)) }
func (w *structEncoder) compression(v *int8)        { w.b = append(w.b, byte(max(*v, 0))) }
func (w *structEncoder) checksum(v *[20]byte)       { w.b = append(w.b, v[:]...) }
func (w *structEncoder) bytes(v *[]byte)            { w.u32(uint32(len(*v))); w.b = append(w.b, *v...) }
func (w *structEncoder) index(v *int32)             { w.u32(uint32(max(*v, 0))) }

func (w *structEncoder) optID(v *uint64) {
	if *v != none {
		w.checkID(*v)
	}
	w.u64(*v)
}

func (w *structEncoder) flag(v *bool) {
	b := byte(0)
	if *v {
		b = 1
	}
	w.b = append(w.b, b)
}

func (w *structEncoder) address(a *address) {
	w.checkAddress(a)
	w.u32(uint32(len(a.host)))
	w.b = append(w.b, a.host...)
	if a.host != "" {
		w.b = binary.BigEndian.AppendUint16(w.b, a.port)
	}
}

// identity: no devices and no new node ids, which only storages have. There is no asking for reading only.
func (w *structEncoder) identity(*bool) { w.u32(0); w.u32(0) }

// decoder is what both decoders do alike.
type decoder struct {
	err  error
	made int // values so far
}

func (d *decoder) decoding() bool { return true }
func (d *decoder) failed() bool   { return d.err != nil }
func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// countValues adds to the values made.
func (d *decoder) countValues(n int) {
	if d.made += n; d.made > maxValues && d.err == nil {
		d.err = errTooMany
	}
}

type structDecoder struct {
	decoder
	b  []byte
	at int
}

// take returns the next n bytes, or as many zeros if they are not there.
func (d *structDecoder) take(n int) []byte {
	if d.err == nil && n > len(d.b)-d.at {
		d.err = errShort
	}
	if d.err != nil {
		return make([]byte, min(n, 20))
	}
	d.at += n
	return d.b[d.at-n : d.at : d.at]
}

func (d *structDecoder) u8() byte    { return d.take(1)[0] }
func (d *structDecoder) u32() uint32 { return binary.BigEndian.Uint32(d.take(4)) }
func (d *structDecoder) u64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

func (d *structDecoder) tuple(_ int, fields func()) { fields() }
func (d *structDecoder) uint32(v *uint32)           { *v = d.u32() }
func (d *structDecoder) uint64(v *uint64)           { *v = d.u64() }
func (d *structDecoder) optional(v *uint64)         { *v = d.u64() }
func (d *structDecoder) code(v *uint32)             { *v = d.u32() }
func (d *structDecoder) node(v *int32)              { *v = int32(d.u32()) }
func (d *structDecoder) enum(_ enum, v *int8)       { *v = int8(d.u8()) }
func (d *structDecoder) stamp(v *stamp)             { *v = stamp(d.u64()) }
func (d *structDecoder) checksum(v *[20]byte)       { copy(v[:], d.take(20)) }

func (d *structDecoder) count(n *int, min int) {
	l := d.u32()
	if d.err == nil && int64(l)*int64(min) > int64(len(d.b)-d.at) {
		d.err = errShort
	}
	*n = int(l)
	d.countValues(*n)
}

func (d *structDecoder) id(v *uint64) {
	if *v = d.u64(); *v > maxID {
		d.fail("%016x is not an id", *v)
	}
}

func (d *structDecoder) optID(v *uint64) {
	if *v = d.u64(); *v > maxID && *v != none {
		d.fail("%016x is not an id", *v)
	}
}

func (d *structDecoder) flag(v *bool) {
	b := d.u8()
	if b > 1 {
		d.fail("%d is neither true nor false", b)
	}
	*v = b == 1
}

func (d *structDecoder) compression(v *int8) {
	b := d.u8()
	if b > math.MaxInt8 {
		d.fail("%d is no compression", b)
	}
	*v = int8(b)
}

func (d *structDecoder) bytes(v *[]byte) {
	n := d.u32()
	if d.err == nil && int64(n) > int64(len(d.b)-d.at) {
		d.err = errShort
	}
	if d.err == nil {
		*v = d.take(int(n))
	}
}

func (d *structDecoder) address(a *address) {
	var host []byte
	d.bytes(&host)
	*a = address{host: string(host)}
	if len(host) > 0 {
		a.port = binary.BigEndian.Uint16(d.take(2))
	}
}

// index: 0 is none, and so the first of the list cannot be told.
func (d *structDecoder) index(v *int32) {
	if *v = int32(d.u32()); *v <= 0 {
		*v = -1
	}
}

func (d *structDecoder) identity(ro *bool) {
	for range 2 {
		if d.u32() != 0 {
			d.err = errors.Join(d.err, errors.New("it is not a client's identification"))
		}
	}
	*ro = false
}
