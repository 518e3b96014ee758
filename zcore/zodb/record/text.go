package record

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// The opcodes of protocol 0 that hold strings as text, and those by which a hand or an optimizer moves values
// about. Source: pickletools of the Python standard library.

// pushLine runs STRING, a Python 2 literal, and UNICODE, text with \uXXXX escapes; both end with the line. The
// result is never longer than the line, but for UNICODE, whose bytes above 127 become two.
func (m *machine) pushLine(c byte) error {
	s, err := m.line(len(m.data))
	if err != nil {
		return err
	}
	v := Value{Kind: Bytes}
	if c == opUnicode {
		v.Kind = Text
		v.Data, err = unescapeUnicode(s)
	} else {
		v.Data, err = unquote(s)
	}
	if err != nil {
		return err
	}
	return m.push(v)
}

var errLiteral = errors.New("has a bad string literal")

// unquote evaluates a literal as repr of a Python 2 str writes it. Without an escape there is no copy.
func unquote(s []byte) ([]byte, error) {
	n := len(s)
	if n < 2 || s[0] != s[n-1] || s[0] != '\'' && s[0] != '"' {
		return nil, errLiteral
	}
	s = s[1 : n-1 : n-1]
	if bytes.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		if s[0] != '\\' {
			out, s = append(out, s[0]), s[1:]
			continue
		}
		b, size, ok := escape(s[1:])
		if !ok {
			return nil, errLiteral
		}
		out, s = append(out, b...), s[1+size:]
	}
	return out, nil
}

// escape evaluates what follows a backslash, and tells how long that is. As in Python, one that is no escape stands for
// itself.
func escape(s []byte) (b []byte, size int, ok bool) {
	if len(s) == 0 {
		return nil, 0, false
	}
	switch c := s[0]; c {
	case '\\', '\'', '"':
		return s[:1], 1, true
	case 'x':
		if len(s) < 3 {
			return nil, 0, false
		}
		u, err := strconv.ParseUint(string(s[1:3]), 16, 8)
		return []byte{byte(u)}, 3, err == nil
	case '0', '1', '2', '3', '4', '5', '6', '7':
		n, u := 0, 0
		for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
			u, n = u<<3|int(s[n]-'0'), n+1
		}
		return []byte{byte(u)}, n, true
	default:
		if i := bytes.IndexByte([]byte("abtnvfr"), c); i >= 0 {
			return []byte{"\a\b\t\n\v\f\r"[i]}, 1, true
		}
		return []byte{'\\', c}, 1, true
	}
}

// unescapeUnicode evaluates raw-unicode-escape: \uXXXX and \UXXXXXXXX, every other byte is a character of latin-1.
func unescapeUnicode(s []byte) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		width := 0
		if len(s) > 1 && s[0] == '\\' {
			width = map[byte]int{'u': 4, 'U': 8}[s[1]]
		}
		if width == 0 {
			out, s = utf8.AppendRune(out, rune(s[0])), s[1:]
			continue
		}
		if len(s) < 2+width {
			return nil, errLiteral
		}
		u, err := strconv.ParseUint(string(s[2:2+width]), 16, 32)
		if err != nil || !utf8.ValidRune(rune(u)) || u > utf8.MaxRune {
			return nil, errLiteral
		}
		out, s = utf8.AppendRune(out, rune(u)), s[2+width:]
	}
	return out, nil
}

// dup pushes the topmost value once more; as with the memo, not a list.
func (m *machine) dup() error {
	v, err := m.top()
	if err != nil {
		return err
	}
	if v.Kind == List {
		return fmt.Errorf("has a list twice: %w", ErrForeign)
	}
	return m.push(*v)
}

// drop runs POP, which takes a mark if that is what lies on top.
func (m *machine) drop() error {
	if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
		m.marks = m.marks[:n-1]
		return nil
	}
	_, err := m.pop()
	return err
}
