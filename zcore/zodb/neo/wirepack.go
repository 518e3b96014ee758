package neo

import (
	"bytes"
	"fmt"
	"math"

	"github.com/vmihailenco/msgpack/v5"
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
