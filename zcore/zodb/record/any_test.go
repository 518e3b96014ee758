package record

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"wcfs/t/py"
	"wcfs/zcore/zodb"
)

// TestAnyAgreesWithNarrow: what the machine for known classes reads, the general one reads the same.
func TestAnyAgreesWithNarrow(t *testing.T) {
	out, err := py.Command(t, py.Py5, "odd_pickles.py", "7", "2000").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list [][3]string
	if err := json.Unmarshal(out, &list); err != nil || len(list) != 2000 {
		t.Fatalf("%d records (%v)", len(list), err)
	}
	for _, c := range list {
		data, err := hex.DecodeString(c[0])
		if err != nil {
			t.Fatal(err)
		}
		obj, err := DecodeAny(1, zodb.Record{Data: data})
		if err != nil || obj.Class.String() != c[1] || showHex(narrowed(obj.State)) != c[2] {
			t.Errorf("%q\n is %s %s (%v)\nwant %s %s", data, obj.Class, showHex(narrowed(obj.State)), err, c[1], c[2])
		}
	}
}

func narrowed(v *Any) Value {
	if v == nil {
		return Value{}
	}
	out := Value{Kind: v.Kind, Int: v.Int, Data: v.Data}
	for _, item := range v.Items {
		out.Items = append(out.Items, narrowed(item))
	}
	return out
}

// TestAnyForms: what only records of other classes hold.
func TestAnyForms(t *testing.T) {
	for state, want := range map[string]string{
		"}X\x01\x00\x00\x00aK\x01sX\x01\x00\x00\x00b\x88s.":               `{a: 1, b: True}`,
		"(X\x01\x00\x00\x00aI01\nd.":                                      `{a: True}`,
		"}q\x01(X\x01\x00\x00\x00ah\x01u.":                                `{a: ...}`, // holds itself
		"](K\x01K\x02e.":                                                  `[1, 2]`,
		"]q\x01(h\x01K\x02e.":                                             `[..., 2]`,
		"cm\nF\n(K\x01tR}X\x01\x00\x00\x00xNsb.":                          `m.F(1){x: None}`,
		"cm\nF\n)\x81](K\x01e\x86.":                                       `(m.F(), [1])`,
		"cm\nF\n)\x81(K\x01K\x02e.":                                       `m.F()+[1, 2]`,
		"cm\nF\n)\x81(K\x01K\x02u.":                                       `m.F()+{1: 2}`,
		"(im\nF\n}b.":                                                     `m.F(){}`,
		"(cm\nF\nK\x05o.":                                                 `m.F(5)`,
		"\x8a\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09.":                   `?`,
		"\x8b\x02\x00\x00\x00\xff\xff.":                                   `-1`,
		"F1.5\n.":                                                         `1.5`,
		"G\x3f\xf8\x00\x00\x00\x00\x00\x00.":                              `1.5`,
		"U\x08\x00\x00\x00\x00\x00\x00\x00\x07cm\nC\n\x86Q.":              `ref 7 of m.C`,
		"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1tR.": `a`,
		"\x82\x01.": `?`,
	} {
		obj, err := DecodeAny(1, rec("cm\nC\n."+state))
		if got := showAny(obj.State, map[*Any]bool{}); err != nil || got != want {
			t.Errorf("%q is %s (%v), want %s", state, got, err, want)
		}
	}
	for _, state := range []string{"}K\x01s.", "(K\x01d.", "K\x01K\x02K\x03s.", "N}b.", "cm\nF\n)\x81}b}b.", "t.", "h\x01.", "\x8b\xff\xff\xff\xffab.", "(K\x01", "\x80\x04N.", "\x95."} {
		if obj, err := DecodeAny(1, rec("cm\nC\n."+state)); err == nil {
			t.Errorf("%q is %s", state, showAny(obj.State, map[*Any]bool{}))
		}
	}
}

func showAny(v *Any, in map[*Any]bool) string {
	if v == nil {
		return "nothing"
	}
	if in[v] {
		return "..."
	}
	in[v] = true
	defer delete(in, v)
	list := func(vs []*Any) string {
		var parts []string
		for _, p := range vs {
			parts = append(parts, showAny(p, in))
		}
		return strings.Join(parts, ", ")
	}
	pairs := func(vs []*Any) string {
		var parts []string
		for i := 0; i < len(vs); i += 2 {
			parts = append(parts, showAny(vs[i], in)+": "+showAny(vs[i+1], in))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	switch v.Kind {
	case None:
		return "None"
	case Bool:
		return map[int64]string{0: "False", 1: "True"}[v.Int]
	case Int:
		return fmt.Sprint(v.Int)
	case Float:
		return v.Float()
	case Bytes, Text:
		return string(v.Data)
	case Tuple:
		return "(" + list(v.Items) + ")"
	case List:
		return "[" + list(v.Items) + "]"
	case Dict:
		return pairs(v.Items)
	case Global:
		c, _ := v.Class()
		return c.String()
	case Ref:
		c, _ := v.Class()
		return fmt.Sprintf("ref %d of %s", v.Int, c)
	case Call:
		s := showAny(v.Items[0], in) + "(" + list(v.Items[1].Items) + ")"
		if v.more != nil {
			if v.more.state != nil {
				s += showAny(v.more.state, in)
			}
			if v.more.elems != nil {
				s += "+[" + list(v.more.elems) + "]"
			}
			if v.more.pairs != nil {
				s += "+" + pairs(v.more.pairs)
			}
		}
		return s
	}
	return "?"
}

// TestAnyBombs: TestBombs for the general machine, whose bound is larger.
func TestAnyBombs(t *testing.T) {
	const many = 4 << 20
	rep := strings.Repeat
	for name, state := range map[string]string{
		"2 GiB str":         "T\xff\xff\xff\x7fabc",
		"2 GiB long":        "\x8b\xff\xff\xff\x7fabc",
		"values in a tuple": "(" + rep("N", many) + "t.",
		"dicts":             rep("}", many) + ".",
		"marks":             rep("(", many) + ".",
		"deep tuples":       ")" + rep("\x85", many) + ".",
		"deep mark tuples":  rep("(", many) + rep("t", many) + ".",
		"memo":              "N" + rep("r\xff\xff\x01\x00", many/8) + ".",
		"memo far away":     "Nr\xff\xff\x07\x00.",
		"memo fetched":      "]q\x01" + rep("h\x01", many/2) + ".",
		"list doubled":      "](K\x01K\x01eq\x01" + rep("(h\x01h\x01e", many/8) + ".",
		"states":            rep("cm\nF\n)\x81}b", many/8) + ".",
		"calls":             "cm\nF\n" + rep(")R", many/2) + ".",
		"long decimal":      "L" + rep("9", many) + "L\n.",
		"long name":         "c" + rep("m", many) + "\nC\n.",
	} {
		start := time.Now()
		n := allocated(func() {
			if obj, err := DecodeAny(1, rec("cm\nC\n."+state)); err == nil {
				for range obj.State.Refs() {
				}
			}
		})
		if took := time.Since(start); n > 4*maxAlloc || took > 20*time.Second {
			t.Errorf("%s: allocates %d bytes in %v", name, n, took)
		}
	}
}

// FuzzDecodeAny: any record is read, or refused, without a panic, in bounded time and memory; its references can be
// walked to an end.
func FuzzDecodeAny(f *testing.F) {
	f.Add([]byte("cm\nC\n.}q\x01(X\x01\x00\x00\x00ah\x01u."))
	f.Add([]byte("cm\nC\n.cm\nF\n(K\x01tR}X\x01\x00\x00\x00xNsb."))
	f.Add([]byte("cm\nC\n.U\x08\x00\x00\x00\x00\x00\x00\x00\x07cm\nC\n\x86Q."))
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, err := DecodeAny(1, zodb.Record{Data: data})
		if err != nil {
			return
		}
		n := 0
		for range obj.State.All() {
			n++
		}
		if n > len(data) {
			t.Fatalf("%d values of %d bytes", n, len(data))
		}
	})
}
