package zeo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// pickleWire is the encoding Z5: pickles of protocol 3, which hold only plain data of ours. The
// decoder makes nothing else: it looks classes up nowhere, and what is built of one is opaque.
type pickleWire struct {
	max int // values in one message
}

// Opcodes that are written. Source for all of them: pickletools of the Python standard library.
const pickleHead = "\x80\x03("

func (pickleWire) encode(b []byte, id int64, method string, args []any) []byte {
	b = append(b, pickleHead...)
	b = pickleValue(b, id)
	b = pickleValue(b, int64(0))
	b = pickleValue(b, method)
	b = pickleValue(b, args)
	return append(b, 't', '.')
}

// pickleValue appends one value of a call.
func pickleValue(b []byte, v any) []byte {
	switch x := v.(type) {
	case nil:
		return append(b, 'N')
	case bool:
		if x {
			return append(b, 0x88)
		}
		return append(b, 0x89)
	case int:
		return pickleValue(b, int64(x))
	case int64:
		return binary.LittleEndian.AppendUint64(append(b, 0x8a, 8), uint64(x))
	case string:
		b = binary.LittleEndian.AppendUint32(append(b, 'X'), uint32(len(x)))
		return append(b, x...)
	case []byte:
		b = binary.LittleEndian.AppendUint32(append(b, 'B'), uint32(len(x)))
		return append(b, x...)
	case []any:
		b = append(b, '(')
		for _, y := range x {
			b = pickleValue(b, y)
		}
		return append(b, 't')
	}
	panic(fmt.Sprintf("call with an argument of type %T", v))
}

func (w pickleWire) decode(frame []byte) (message, error) {
	m := unpickler{rest: frame, max: w.max}
	v, err := m.run()
	if err != nil {
		return m.head(), fmt.Errorf("pickle at byte %d: %w", len(frame)-len(m.rest), err)
	}
	return asMessage(v)
}

// head returns what is known of a message that could not be read to its end.
func (m *unpickler) head() message {
	parts := m.stack
	if len(parts) > 0 {
		switch first := parts[0].(type) {
		case mark:
			parts = parts[1:]
		case []any:
			parts = first
		}
	}
	if len(parts) < 3 {
		return message{}
	}
	msg, err := asMessage([]any{parts[0], parts[1], parts[2], nil})
	if err != nil {
		return message{}
	}
	return msg
}

// mark stands on the stack for the opcode MARK; pylist is a list that may still grow.
type (
	mark   struct{}
	pylist struct{ items []any }
)

var (
	errShort     = errors.New("it ends too soon")
	errUnderflow = errors.New("it takes more values than there are")
	errTooMany   = errors.New("it holds too many values")
)

// unpickler runs one pickle. Its allocation is bounded by max and the size of the frame.
type unpickler struct {
	rest  []byte
	stack []any
	memo  map[uint32]any
	made  int // values so far, at most max
	max   int
}

func (m *unpickler) run() (any, error) {
	for {
		op, err := m.bytes(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			break
		}
		if err := m.step(op[0]); err != nil {
			return nil, err
		}
	}
	if len(m.stack) != 1 || len(m.rest) != 0 {
		return nil, errors.New("it does not end with one value")
	}
	return finish(m.stack[0], 0)
}

// finish replaces the lists that may grow by plain ones, in place. Values form a tree: see useMemo.
func finish(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	var err error
	switch x := v.(type) {
	case mark:
		return nil, errors.New("it leaves a mark")
	case *pylist:
		return finish(x.items, depth)
	case []any:
		for i := range x {
			if x[i], err = finish(x[i], depth+1); err != nil {
				return nil, err
			}
		}
		if x == nil {
			x = []any{}
		}
		return x, nil
	case dict:
		for k := range x {
			if x[k], err = finish(x[k], depth+1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// step runs one opcode: it is the table of those known.
func (m *unpickler) step(op byte) error {
	switch op {
	case '(':
		return m.push(mark{})
	case 'N':
		return m.push(nil)
	case 0x88, 0x89:
		return m.push(op == 0x88)
	case 'K', 'M', 'J', 0x8a, 'I', 'L':
		return m.pushInt(op)
	case 'G':
		b, err := m.bytes(8)
		if err != nil {
			return err
		}
		return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 'C', 'B', 'U', 'T', 'X':
		return m.pushString(op)
	case ')':
		return m.push([]any{})
	case ']':
		return m.push(&pylist{})
	case '}':
		return m.push(dict{})
	case 't':
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.push(items)
	case 0x85, 0x86, 0x87:
		items, err := m.pop(int(op) - 0x84)
		if err != nil {
			return err
		}
		return m.push(items)
	case 'a', 'e':
		return m.extend(op)
	case 's', 'u':
		return m.setItems(op)
	case 'q', 'r', 'h', 'j':
		return m.useMemo(op)
	case 0x80:
		v, err := m.bytes(1)
		if err == nil && v[0] > 3 {
			err = fmt.Errorf("it is of protocol %d", v[0])
		}
		return err
	}
	return m.foreign(op)
}

// foreign runs the opcodes that make objects: nothing is made of them.
func (m *unpickler) foreign(op byte) error {
	switch op {
	case 'c': // a class by its name
		for range 2 {
			i := bytes.IndexByte(m.rest, '\n')
			if i < 0 || i > 1<<10 {
				return errShort
			}
			m.rest = m.rest[i+1:]
		}
		return m.push(opaque{})
	case 'R', 0x81, 'b': // call, new, set state: the object and one argument become one object
		if _, err := m.pop(2); err != nil {
			return err
		}
		return m.push(opaque{})
	}
	return fmt.Errorf("it has the opcode %#02x", op)
}

func (m *unpickler) bytes(n int) ([]byte, error) {
	if n > len(m.rest) {
		return nil, errShort
	}
	b := m.rest[:n:n]
	m.rest = m.rest[n:]
	return b, nil
}

func (m *unpickler) push(v any) error {
	if m.made++; m.made > m.max {
		return errTooMany
	}
	m.stack = append(m.stack, v)
	return nil
}

// pop takes n values off the stack; none of them may be a mark.
func (m *unpickler) pop(n int) ([]any, error) {
	if n > len(m.stack) {
		return nil, errUnderflow
	}
	at := len(m.stack) - n
	items := append(make([]any, 0, n), m.stack[at:]...)
	for _, v := range items {
		if _, ok := v.(mark); ok {
			return nil, errUnderflow
		}
	}
	m.stack = m.stack[:at]
	return items, nil
}

// popMark takes the values above the topmost mark off the stack, and the mark.
func (m *unpickler) popMark() ([]any, error) {
	for at := len(m.stack) - 1; at >= 0; at-- {
		if _, ok := m.stack[at].(mark); ok {
			items, err := m.pop(len(m.stack) - 1 - at)
			m.stack = m.stack[:at]
			return items, err
		}
	}
	return nil, errUnderflow
}

// length reads the length in front of a string.
func (m *unpickler) length(short bool) (int, error) {
	if short {
		b, err := m.bytes(1)
		if err != nil {
			return 0, err
		}
		return int(b[0]), nil
	}
	b, err := m.bytes(4)
	if err != nil {
		return 0, err
	}
	return int(binary.LittleEndian.Uint32(b)), nil
}

func (m *unpickler) pushString(op byte) error {
	n, err := m.length(op == 'C' || op == 'U')
	if err != nil {
		return err
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	if op == 'X' {
		return m.push(string(b))
	}
	return m.push(b)
}

func (m *unpickler) pushInt(op byte) error {
	if op == 'I' || op == 'L' { // decimal text
		i := bytes.IndexByte(m.rest, '\n')
		if i < 0 || i > 32 {
			return errShort
		}
		s := string(bytes.TrimSuffix(m.rest[:i], []byte("L")))
		m.rest = m.rest[i+1:]
		if op == 'I' && (s == "00" || s == "01") {
			return m.push(s == "01")
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return m.push(opaque{})
		}
		return m.push(n)
	}
	n := map[byte]int{'K': 1, 'M': 2, 'J': 4}[op]
	if op == 0x8a {
		var err error
		if n, err = m.length(true); err != nil {
			return err
		}
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	if n > 8 {
		return m.push(opaque{})
	}
	var u uint64
	for i := n - 1; i >= 0; i-- {
		u = u<<8 | uint64(b[i])
	}
	if op == 'J' || op == 0x8a { // signed
		unused := 64 - 8*n
		return m.push(int64(u<<unused) >> unused)
	}
	return m.push(int64(u))
}

func (m *unpickler) extend(op byte) (err error) {
	var items []any
	if op == 'a' {
		items, err = m.pop(1)
	} else {
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	if len(m.stack) == 0 {
		return errUnderflow
	}
	l, ok := m.stack[len(m.stack)-1].(*pylist)
	if !ok {
		return errors.New("it appends to what is no list")
	}
	l.items = append(l.items, items...)
	return nil
}

// setItems adds to a dict what has a text for a key; other keys are none of ours.
func (m *unpickler) setItems(op byte) (err error) {
	var items []any
	if op == 's' {
		items, err = m.pop(2)
	} else {
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	if len(m.stack) == 0 || len(items)%2 != 0 {
		return errUnderflow
	}
	d, ok := m.stack[len(m.stack)-1].(dict)
	if !ok {
		return errors.New("it sets items of what is no dict")
	}
	for i := 0; i < len(items); i += 2 {
		if k, ok := asText(items[i]); ok {
			d[k] = items[i+1]
		}
	}
	return nil
}

func (m *unpickler) useMemo(op byte) error {
	n := 4
	if op == 'q' || op == 'h' {
		n = 1
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	var key uint32
	for i := n - 1; i >= 0; i-- {
		key = key<<8 | uint32(b[i])
	}
	if op == 'h' || op == 'j' {
		v, ok := m.memo[key]
		if !ok {
			return errors.New("it takes from the memo what is not there")
		}
		switch v.(type) {
		case []any, dict, *pylist, mark: // shared, values could be more than the frame has bytes, or endless
			v = opaque{}
		}
		return m.push(v)
	}
	if len(m.stack) == 0 {
		return errUnderflow
	}
	if m.memo == nil {
		m.memo = map[uint32]any{}
	}
	if len(m.memo) >= m.max/8 {
		return errTooMany
	}
	m.memo[key] = m.stack[len(m.stack)-1]
	return nil
}
