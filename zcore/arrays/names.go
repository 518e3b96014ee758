package arrays

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Key is one step of a path: the key of a mapping, the name of an attribute, the index in a list.
type Key struct {
	// Type says what the key is, where its text alone does not:
	//	0    a string, or an integer in decimal where there is no such string
	//	'b'  a byte string, where there is a text that reads the same
	//	'i'  an integer, where there is a string that reads the same
	//	'r'  another value, as repr of Python writes it
	//	'o'  the oid of an object that is referred to without a name
	Type byte
	Text string
}

func (k Key) String() string { return strings.Join(k.Names(), "/") }

const (
	// maxPart is how long a file name made of a key may be, in bytes: 255 less "%+", and ".json" with room to spare.
	maxPart = 240
	joiner  = "%+" // ends a name whose key goes on in the directory of that name
	jsonEnd = ".json"
	upper   = "0123456789ABCDEF"
)

// Names returns the file names that stand for a key: one, or several if it is longer than a name can be.
//
// A byte that no file name can have, that is no UTF-8 or that would be hard to type is written as %XX with upper-case
// digits: '/', '%', controls, the dots of "." and "..", and that of ".json" at the end. The empty string is "%". Each key
// has one form.
func (k Key) Names() []string {
	head := ""
	if k.Type != 0 {
		head = "%" + string(rune(k.Type))
	}
	var names []string
	part := head
	for _, piece := range pieces(k.Text) {
		if len(part)+len(piece) > maxPart {
			names, part = append(names, part+joiner), ""
		}
		part += piece
	}
	if part == "" {
		part = "%"
	}
	return append(names, part)
}

// pieces escapes a string and cuts it where a name may be cut: not in a character.
func pieces(s string) []string {
	list := make([]string, 0, len(s))
	dots := s == "." || s == ".."
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		c := s[i]
		switch {
		case r == utf8.RuneError && n == 1, c < ' ', c == 0x7f, c == '/', c == '%', c == '.' && (dots || s[i:] == jsonEnd):
			list = append(list, string([]byte{'%', upper[c>>4], upper[c&15]}))
			n = 1
		default:
			list = append(list, s[i:i+n])
		}
		i += n
	}
	return list
}

// ParseKey is the reverse of Key.Names for one name, or for the joined names of a long key. It refuses a name that no
// key has.
func ParseKey(names ...string) (Key, error) {
	var k Key
	var text strings.Builder
	for i, name := range names {
		if i < len(names)-1 {
			name = strings.TrimSuffix(name, joiner)
		}
		if i == 0 && len(name) >= 2 && name[0] == '%' && strings.IndexByte("bior", name[1]) >= 0 {
			k.Type, name = name[1], name[2:]
		}
		if name == "%" && len(names) == 1 {
			name = ""
		}
		for j := 0; j < len(name); j++ {
			if name[j] != '%' {
				text.WriteByte(name[j])
				continue
			}
			if j+3 > len(name) {
				return Key{}, fmt.Errorf("%q ends in mid-escape", name)
			}
			hi, lo := strings.IndexByte(upper, name[j+1]), strings.IndexByte(upper, name[j+2])
			if hi < 0 || lo < 0 {
				return Key{}, fmt.Errorf("%q has %q, which is no escape", name, name[j:j+3])
			}
			text.WriteByte(byte(hi<<4 | lo))
			j += 2
		}
	}
	k.Text = text.String()
	if again := k.Names(); strings.Join(again, "/") != strings.Join(names, "/") {
		return Key{}, fmt.Errorf("%q is written %q", strings.Join(names, "/"), strings.Join(again, "/"))
	}
	return k, nil
}

// ParsePath turns the names of a path below arrays/ into keys. rest has the names that begin a long key and do not end it.
func ParsePath(path string) (keys []Key, rest []string, err error) {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		rest = append(rest, name)
		if strings.HasSuffix(name, joiner) {
			continue
		}
		k, err := ParseKey(rest...)
		if err != nil {
			return nil, nil, err
		}
		keys, rest = append(keys, k), nil
	}
	return keys, rest, nil
}

// FormatPath is the reverse of ParsePath.
func FormatPath(keys []Key) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.Names()...)
	}
	return strings.Join(names, "/")
}

// keyOf names a decoded key. ok is false for what is too long or too deep to be named.
func keyOf(v *record.Any) (k Key, ok bool) {
	switch v.Kind {
	case record.Text, record.Bytes:
		return Key{0, string(v.Data)}, true
	case record.Int:
		return Key{0, strconv.FormatInt(v.Int, 10)}, true
	}
	text, ok := repr(v, 3)
	return Key{'r', text}, ok && len(text) <= 1000
}

// typed is the form of a key that only its own type has, for one that another key of the same text hides.
func typed(v *record.Any, k Key) Key {
	switch v.Kind {
	case record.Bytes:
		k.Type = 'b'
	case record.Int:
		k.Type = 'i'
	}
	return k
}

// matches reports whether k means the key v, and how well: of several the one with the least rank is meant.
func (k Key) matches(v *record.Any) (rank int, ok bool) {
	switch {
	case k.Type == 0 && v.Kind == record.Text:
		return 0, string(v.Data) == k.Text
	case (k.Type == 0 || k.Type == 'b') && v.Kind == record.Bytes:
		return 1, string(v.Data) == k.Text
	case (k.Type == 0 || k.Type == 'i') && v.Kind == record.Int:
		return 2, strconv.FormatInt(v.Int, 10) == k.Text
	case k.Type == 'r' && v.Kind != record.Text && v.Kind != record.Bytes && v.Kind != record.Int:
		own, ok := keyOf(v)
		return 3, ok && own == k
	}
	return 0, false
}

// repr writes a key of another type as Python does, as far as that is needed to tell keys apart.
func repr(v *record.Any, depth int) (string, bool) {
	switch v.Kind {
	case record.None:
		return "None", true
	case record.Bool:
		return map[int64]string{0: "False", 1: "True"}[v.Int], true
	case record.Int:
		return strconv.FormatInt(v.Int, 10), true
	case record.Float:
		return v.Float(), true
	case record.Text:
		return strconv.Quote(string(v.Data)), true
	case record.Bytes:
		return "b" + strconv.Quote(string(v.Data)), true
	case record.Ref:
		return "oid " + zodb.Oid(v.Int).String(), true
	case record.Tuple:
		if depth == 0 || len(v.Items) > 32 {
			return "", false
		}
		var parts []string
		for _, item := range v.Items {
			part, ok := repr(item, depth-1)
			if !ok {
				return "", false
			}
			parts = append(parts, part)
		}
		return "(" + strings.Join(parts, ", ") + ")", true
	}
	return "", false
}
