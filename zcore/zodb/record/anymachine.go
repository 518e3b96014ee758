package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// Opcodes that only records of other classes have.
const (
	opDict      = 'd'
	opEmptyDict = '}'
	opSetitem   = 's'
	opSetitems  = 'u'
	opBuild     = 'b'
	opInst      = 'i'
	opObj       = 'o'
	opFloat     = 'F'
	opBinfloat  = 'G'
	opPersid    = 'P'
	opExt1      = 0x82
	opExt2      = 0x83
	opExt4      = 0x84
	opNewtrue   = 0x88
	opNewfalse  = 0x89
	opLong4     = 0x8b
)

// anyMachine runs pickles of any class. It reads as machine does, and has a stack, marks and memo of its own.
// Allocation is bounded by maxAny values: only a pushed value ever gets into another value.
type anyMachine struct {
	machine // for reading; its stack and memo are not used
	vals    []*Any
	seen    []*Any // the memo
	count   int    // values pushed so far
}

func (m *anyMachine) load() (*Any, error) {
	for {
		m.op = m.pos
		c, err := m.byte()
		if err != nil {
			return nil, err
		}
		if c == opStop {
			break
		}
		if err := m.step(c); err != nil {
			return nil, err
		}
	}
	if len(m.vals) != 1 || len(m.marks) != 0 {
		return nil, fmt.Errorf("leaves %d values and %d marks, not one value", len(m.vals), len(m.marks))
	}
	v := m.vals[0]
	m.vals = m.vals[:0]
	return v, nil
}

// step runs one opcode: the table of all of them.
func (m *anyMachine) step(c byte) error {
	switch c {
	case opNone:
		return m.push(&Any{Kind: None})
	case opNewtrue, opNewfalse:
		return m.push(&Any{Kind: Bool, Int: int64(opNewfalse - c)})
	case opBinint1, opBinint2, opBinint, opLong1, opLong4, opInt, opLong, opFloat, opBinfloat:
		return m.number(c)
	case opShortBinstring, opShortBinbytes, opBinstring, opBinbytes, opBinunicode, opString, opUnicode, opGlobal:
		return m.scalar(c)
	case opExt1, opExt2, opExt4:
		_, err := m.take(1 << (c - opExt1))
		return m.pushOr(&Any{Kind: Opaque}, err)
	case opMark:
		if len(m.marks) >= maxAny {
			return errors.New("has too many marks")
		}
		m.marks = append(m.marks, len(m.vals))
		return nil
	case opEmptyTuple:
		return m.push(&Any{Kind: Tuple})
	case opEmptyList:
		return m.push(&Any{Kind: List})
	case opEmptyDict:
		return m.push(&Any{Kind: Dict})
	case opTuple, opList, opDict:
		return m.collect(map[byte]Kind{opTuple: Tuple, opList: List, opDict: Dict}[c])
	case opTuple1, opTuple2, opTuple3:
		return m.gather(Tuple, len(m.vals)-(int(c)-opTuple1+1))
	case opAppend, opSetitem, opAppends, opSetitems:
		return m.addTo(c)
	case opPut, opBinput, opLongBinput:
		return m.put(c)
	case opGet, opBinget, opLongBinget:
		return m.get(c)
	case opDup:
		v, err := m.top()
		return m.pushOr(v, err)
	case opPop:
		return m.drop()
	case opPopMark:
		at, err := m.popMark()
		if err == nil {
			m.vals = m.vals[:at]
		}
		return err
	case opBinpersid, opPersid, opReduce, opNewobj, opBuild, opInst, opObj:
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

func (m *anyMachine) push(v *Any) error {
	if m.count++; m.count > maxAny {
		return fmt.Errorf("has more than %d values", maxAny)
	}
	m.vals = append(m.vals, v)
	return nil
}

func (m *anyMachine) pushOr(v *Any, err error) error {
	if err != nil {
		return err
	}
	return m.push(v)
}

func (m *anyMachine) top() (*Any, error) {
	if len(m.vals) <= m.floor() {
		return nil, errUnderflow
	}
	return m.vals[len(m.vals)-1], nil
}

func (m *anyMachine) pop() (*Any, error) {
	v, err := m.top()
	if err == nil {
		m.vals = m.vals[:len(m.vals)-1]
	}
	return v, err
}

// drop runs POP, which takes a mark if that is on top.
func (m *anyMachine) drop() error {
	if len(m.marks) > 0 && m.floor() == len(m.vals) {
		_, err := m.popMark()
		return err
	}
	_, err := m.pop()
	return err
}

// narrow has the machine for known classes read a value that has no parts.
func (m *anyMachine) narrow(c byte) error {
	m.pushed, m.stack = 0, m.stack[:0]
	if err := m.machine.step(c); err != nil {
		return err
	}
	v := m.stack[0]
	return m.push(&Any{Kind: v.Kind, Int: v.Int, Data: v.Data})
}

func (m *anyMachine) scalar(c byte) error {
	marks := m.marks
	m.marks = nil
	err := m.narrow(c)
	m.marks = marks
	return err
}

func (m *anyMachine) number(c byte) error {
	switch c {
	case opFloat:
		s, err := m.line(64)
		return m.pushOr(&Any{Kind: Float, Data: s}, err)
	case opBinfloat:
		b, err := m.take(8)
		return m.pushOr(&Any{Kind: Float, Data: b}, err)
	case opInt, opLong:
		return m.decimal(c)
	case opLong1, opLong4:
		return m.long(map[byte]uint64{opLong1: 1, opLong4: 4}[c])
	}
	return m.scalar(c)
}

// decimal reads an integer in text, of any length.
func (m *anyMachine) decimal(c byte) error {
	s, err := m.line(len(m.data))
	if err != nil {
		return err
	}
	if c == opInt && (string(s) == "00" || string(s) == "01") {
		return m.push(&Any{Kind: Bool, Int: int64(s[1] - '0')})
	}
	if n := len(s); c == opLong && n > 0 && s[n-1] == 'L' {
		s = s[:n-1]
	}
	if len(s) > maxDigits {
		return m.push(&Any{Kind: Opaque})
	}
	i, err := strconv.ParseInt(string(s), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return m.push(&Any{Kind: Opaque})
	}
	return m.pushOr(&Any{Kind: Int, Int: i}, err)
}

func (m *anyMachine) long(width uint64) error {
	n, err := m.uint(width)
	if err != nil {
		return err
	}
	b, err := m.take(n)
	if err != nil || n > 8 {
		return m.pushOr(&Any{Kind: Opaque}, err)
	}
	var full [8]byte
	copy(full[:], b)
	unused := 64 - 8*uint(n)
	return m.push(&Any{Kind: Int, Int: int64(binary.LittleEndian.Uint64(full[:])<<unused) >> unused})
}

func (m *anyMachine) collect(kind Kind) error {
	at, err := m.popMark()
	if err != nil {
		return err
	}
	return m.gather(kind, at)
}

// gather makes one value of those from height at on.
func (m *anyMachine) gather(kind Kind, at int) error {
	switch {
	case at < m.floor():
		return errUnderflow
	case kind == Dict && (len(m.vals)-at)%2 != 0:
		return errors.New("has a key without a value")
	}
	v := &Any{Kind: kind, Items: append([]*Any(nil), m.vals[at:]...)}
	m.vals = m.vals[:at]
	return m.push(v)
}

// addTo runs what adds items to a list, a dict or an object.
func (m *anyMachine) addTo(c byte) (err error) {
	at := len(m.vals) - 1
	if c == opSetitem {
		at--
	}
	if c == opAppends || c == opSetitems {
		if at, err = m.popMark(); err != nil {
			return err
		}
	}
	if at <= m.floor() {
		return errUnderflow
	}
	to, add := m.vals[at-1], m.vals[at:]
	m.vals = m.vals[:at]
	pairs := c == opSetitem || c == opSetitems
	switch {
	case pairs && len(add)%2 != 0:
		return errors.New("has a key without a value")
	case pairs && to.Kind == Dict, !pairs && to.Kind == List:
		to.Items = append(to.Items, add...)
	case to.Kind != Call:
		return fmt.Errorf("adds to %s", to.Kind)
	case pairs:
		to.instance().pairs = append(to.instance().pairs, add...)
	default:
		to.instance().elems = append(to.instance().elems, add...)
	}
	return nil
}

func (v *Any) instance() *instance {
	if v.more == nil {
		v.more = new(instance)
	}
	return v.more
}

func (m *anyMachine) put(c byte) error {
	i, err := m.anyIndex(c)
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	for i >= len(m.seen) {
		m.seen = append(m.seen, nil)
	}
	m.seen[i] = v
	return nil
}

func (m *anyMachine) get(c byte) error {
	i, err := m.anyIndex(c)
	if err != nil {
		return err
	}
	if i >= len(m.seen) || m.seen[i] == nil {
		return fmt.Errorf("gets memo entry %d before it is put", i)
	}
	return m.push(m.seen[i])
}

// anyIndex is index with the bound of this machine.
func (m *anyMachine) anyIndex(c byte) (int, error) {
	var i uint64
	var err error
	switch c {
	case opPut, opGet:
		var s []byte
		if s, err = m.line(maxDigits); err == nil {
			i, err = strconv.ParseUint(string(s), 10, 32)
		}
	case opLongBinput, opLongBinget:
		i, err = m.uint(4)
	default:
		i, err = m.uint(1)
	}
	if err == nil && i >= maxAny {
		err = fmt.Errorf("has memo index %d", i)
	}
	return int(i), err
}
