package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Bounds of what one record may hold.
const (
	// maxValues bounds the values pushed while one record is decoded. A value takes 64 bytes, lies on
	// the stack once and in a tuple or list at most once more, so that with what growing slices leave
	// behind no record makes the machine allocate more than about 32 MiB besides its own strings. A
	// BTree node of Python has up to a thousand children, five values each.
	maxValues = 1 << 16
	maxName   = 1 << 10 // bytes of a module or class name
	maxDigits = 24      // characters of an integer in decimal
)

// Pickle opcodes that the machine knows. Source: pickletools of the Python standard library.
const (
	opMark           = '('
	opPop            = '0'
	opPopMark        = '1'
	opDup            = '2'
	opStop           = '.'
	opInt            = 'I'
	opBinint         = 'J'
	opBinint1        = 'K'
	opLong           = 'L'
	opBinint2        = 'M'
	opNone           = 'N'
	opBinpersid      = 'Q'
	opReduce         = 'R'
	opString         = 'S'
	opBinstring      = 'T'
	opShortBinstring = 'U'
	opUnicode        = 'V'
	opBinunicode     = 'X'
	opAppend         = 'a'
	opGlobal         = 'c'
	opAppends        = 'e'
	opGet            = 'g'
	opBinget         = 'h'
	opLongBinget     = 'j'
	opList           = 'l'
	opPut            = 'p'
	opBinput         = 'q'
	opLongBinput     = 'r'
	opTuple          = 't'
	opEmptyTuple     = ')'
	opEmptyList      = ']'
	opProto          = 0x80
	opNewobj         = 0x81
	opTuple1         = 0x85
	opTuple2         = 0x86
	opTuple3         = 0x87
	opLong1          = 0x8a
	opBinbytes       = 'B'
	opShortBinbytes  = 'C'
)

var (
	errTruncated = errors.New("ends in mid-pickle")
	errUnderflow = errors.New("takes more values than it has")
)

// machine runs the pickles of one record. It is used by one goroutine and has no locks.
type machine struct {
	data   []byte
	pos    int // next byte
	op     int // position of the opcode being run, for errors
	stack  []Value
	marks  []int   // heights of the stack, ascending
	memo   []Value // lives on from the first pickle to the second
	slab   []Value // what keep hands out pieces of
	pushed int     // values so far, at most maxValues
	recode int     // bytes made by decoding text as latin-1 so far, at most len(data)
}

// load runs one pickle, from pos to its STOP, and returns its value.
func (m *machine) load() (Value, error) {
	for {
		m.op = m.pos
		c, err := m.byte()
		if err != nil {
			return Value{}, err
		}
		if c == opStop {
			break
		}
		if err := m.step(c); err != nil {
			return Value{}, err
		}
	}
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return Value{}, fmt.Errorf("leaves %d values and %d marks, not one value", len(m.stack), len(m.marks))
	}
	v := m.stack[0]
	m.stack = m.stack[:0]
	return v, nil
}

// step runs one opcode. It is long because it is the table of all of them.
func (m *machine) step(c byte) error {
	switch c {
	case opNone:
		return m.push(Value{Kind: None})
	case opBinint1:
		return m.pushUint(1)
	case opBinint2:
		return m.pushUint(2)
	case opBinint:
		b, err := m.take(4)
		if err != nil {
			return err
		}
		return m.push(Value{Kind: Int, Int: int64(int32(binary.LittleEndian.Uint32(b)))})
	case opLong1:
		return m.pushLong()
	case opInt, opLong:
		return m.pushDecimal(c)
	case opShortBinstring, opShortBinbytes:
		return m.pushString(Bytes, 1)
	case opBinstring, opBinbytes:
		return m.pushString(Bytes, 4)
	case opBinunicode:
		return m.pushString(Text, 4)
	case opGlobal:
		return m.pushGlobal()
	case opMark:
		if len(m.marks) >= maxValues {
			return errors.New("has too many marks")
		}
		m.marks = append(m.marks, len(m.stack))
		// A mark is most often followed by a whole bucket.
		m.stack = slices.Grow(m.stack, min((len(m.data)-m.pos)/16, 128))
		return nil
	case opEmptyTuple:
		return m.push(Value{Kind: Tuple})
	case opEmptyList:
		return m.push(Value{Kind: List})
	case opTuple:
		return m.collect(Tuple)
	case opList:
		return m.collect(List)
	case opTuple1, opTuple2, opTuple3:
		return m.tuple(int(c) - opTuple1 + 1)
	case opAppend:
		return m.appendFrom(len(m.stack) - 1)
	case opAppends:
		at, err := m.popMark()
		if err != nil {
			return err
		}
		return m.appendFrom(at)
	case opPut, opBinput, opLongBinput:
		return m.put(c)
	case opGet, opBinget, opLongBinget:
		return m.get(c)
	case opString, opUnicode:
		return m.pushLine(c)
	case opDup:
		return m.dup()
	case opPop:
		return m.drop()
	case opPopMark:
		at, err := m.popMark()
		if err == nil {
			m.stack = m.stack[:at]
		}
		return err
	case opBinpersid, opReduce, opNewobj:
		return m.call(c)
	case opProto:
		b, err := m.byte()
		if err == nil && b > 3 {
			err = fmt.Errorf("is of protocol %d: %w", b, ErrForeign)
		}
		return err
	}
	return fmt.Errorf("has opcode %#02x: %w", c, ErrForeign)
}

func (m *machine) byte() (byte, error) {
	if m.pos >= len(m.data) {
		return 0, errTruncated
	}
	m.pos++
	return m.data[m.pos-1], nil
}

// take returns the next n bytes, without a copy.
func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.data)-m.pos) {
		return nil, errTruncated
	}
	b := m.data[m.pos : m.pos+int(n) : m.pos+int(n)]
	m.pos += int(n)
	return b, nil
}

// uint returns the next width bytes as a little-endian number.
func (m *machine) uint(width uint64) (uint64, error) {
	b, err := m.take(width)
	if err != nil {
		return 0, err
	}
	var u uint64
	for i := len(b) - 1; i >= 0; i-- {
		u = u<<8 | uint64(b[i])
	}
	return u, nil
}

// line returns the bytes up to the next newline, at most max of them.
func (m *machine) line(max int) ([]byte, error) {
	rest := m.data[m.pos:]
	i := bytes.IndexByte(rest[:min(len(rest), max+1)], '\n')
	switch {
	case i < 0 && len(rest) <= max:
		return nil, errTruncated
	case i < 0:
		return nil, fmt.Errorf("has a line of more than %d bytes", max)
	}
	m.pos += i + 1
	return rest[:i:i], nil
}

func (m *machine) push(v Value) error {
	if m.pushed++; m.pushed > maxValues {
		return fmt.Errorf("has more than %d values", maxValues)
	}
	m.stack = append(m.stack, v)
	return nil
}

// top returns the topmost value, which must lie above the topmost mark.
func (m *machine) top() (*Value, error) {
	if len(m.stack) <= m.floor() {
		return nil, errUnderflow
	}
	return &m.stack[len(m.stack)-1], nil
}

// floor returns the height of the stack that operations must not reach below.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) pop() (Value, error) {
	v, err := m.top()
	if err != nil {
		return Value{}, err
	}
	m.stack = m.stack[:len(m.stack)-1]
	return *v, nil
}

func (m *machine) popMark() (int, error) {
	if len(m.marks) == 0 {
		return 0, errors.New("takes a mark that it has not set")
	}
	at := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	return at, nil
}

func (m *machine) pushUint(width uint64) error {
	u, err := m.uint(width)
	if err != nil {
		return err
	}
	return m.push(Value{Kind: Int, Int: int64(u)})
}

// pushLong runs LONG1: a length and a little-endian two's complement number.
func (m *machine) pushLong() error {
	n, err := m.byte()
	if err != nil {
		return err
	}
	if n > 8 {
		return fmt.Errorf("has an integer of %d bytes: %w", n, ErrForeign)
	}
	u, err := m.uint(uint64(n))
	if err != nil {
		return err
	}
	unused := 64 - 8*uint(n)
	return m.push(Value{Kind: Int, Int: int64(u<<unused) >> unused})
}

// pushDecimal runs INT and LONG, whose argument is text. INT 00 and 01 are False and True.
func (m *machine) pushDecimal(c byte) error {
	s, err := m.line(maxDigits)
	if err != nil {
		return err
	}
	if c == opInt && (string(s) == "00" || string(s) == "01") {
		return fmt.Errorf("has a boolean: %w", ErrForeign)
	}
	if c == opLong {
		s = bytes.TrimSuffix(s, []byte{'L'})
	}
	i, err := strconv.ParseInt(string(s), 10, 64)
	if err != nil {
		return fmt.Errorf("has a bad integer: %w", err)
	}
	return m.push(Value{Kind: Int, Int: i})
}

func (m *machine) pushString(kind Kind, width uint64) error {
	n, err := m.uint(width)
	if err != nil {
		return err
	}
	b, err := m.take(n)
	if err != nil {
		return err
	}
	return m.push(Value{Kind: kind, Data: b})
}

func (m *machine) pushGlobal() error {
	start := m.pos
	if _, err := m.line(maxName); err != nil {
		return err
	}
	if _, err := m.line(maxName); err != nil {
		return err
	}
	return m.push(Value{Kind: Global, Data: m.data[start : m.pos-1 : m.pos-1]})
}

// collect makes a tuple or list of the values above the topmost mark.
func (m *machine) collect(kind Kind) error {
	at, err := m.popMark()
	if err != nil {
		return err
	}
	return m.gather(kind, at)
}

// tuple makes a tuple of the n topmost values.
func (m *machine) tuple(n int) error {
	at := len(m.stack) - n
	if at < m.floor() {
		return errUnderflow
	}
	return m.gather(Tuple, at)
}

// gather moves the values from height at on into one tuple or list.
func (m *machine) gather(kind Kind, at int) error {
	v := Value{Kind: kind, Items: m.keep(m.stack[at:])}
	m.stack = m.stack[:at]
	return m.push(v)
}

// keep copies values to where they stay. Most tuples are tiny, (oid, class), so they share slabs.
func (m *machine) keep(vs []Value) []Value {
	if cap(m.slab)-len(m.slab) < len(vs) {
		m.slab = make([]Value, 0, max(len(vs), min(2*cap(m.slab), 256), 4))
	}
	start := len(m.slab)
	m.slab = append(m.slab, vs...)
	return m.slab[start:len(m.slab):len(m.slab)]
}

// appendFrom moves the values from height at on to the end of the list below them.
func (m *machine) appendFrom(at int) error {
	if at <= m.floor() {
		return errUnderflow
	}
	l := &m.stack[at-1]
	if l.Kind != List {
		return fmt.Errorf("appends to %s", l.Kind)
	}
	l.Items = append(l.Items, m.stack[at:]...)
	m.stack = m.stack[:at]
	return nil
}

// index returns the argument of the memo opcodes.
func (m *machine) index(c byte) (int, error) {
	if c == opPut || c == opGet {
		return m.textIndex()
	}
	width := uint64(1)
	if c == opLongBinput || c == opLongBinget {
		width = 4
	}
	i, err := m.uint(width)
	if err == nil && i >= maxValues {
		err = fmt.Errorf("has memo index %d", i)
	}
	return int(i), err
}

// textIndex is index where the argument is a decimal number.
func (m *machine) textIndex() (int, error) {
	s, err := m.line(maxDigits)
	if err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(string(s))
	if err != nil || i < 0 || i >= maxValues {
		return 0, fmt.Errorf("has memo index %.30q", s)
	}
	return i, nil
}

// unset is the kind of a memo entry that nothing was put into.
const unset Kind = 255

func (m *machine) put(c byte) error {
	i, err := m.index(c)
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	for i >= len(m.memo) {
		m.memo = append(m.memo, Value{Kind: unset})
	}
	m.memo[i] = *v
	return nil
}

// get pushes a memo entry. A list would be pushed as it was when it was put there, without what was
// appended since, so it is refused: no class of ours refers to a list twice.
func (m *machine) get(c byte) error {
	i, err := m.index(c)
	if err != nil {
		return err
	}
	if i >= len(m.memo) || m.memo[i].Kind == unset {
		return fmt.Errorf("gets memo entry %d before it is put", i)
	}
	if m.memo[i].Kind == List {
		return fmt.Errorf("has a list twice: %w", ErrForeign)
	}
	return m.push(m.memo[i])
}
