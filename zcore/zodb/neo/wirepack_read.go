package neo

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

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
