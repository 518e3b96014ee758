package record

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"wcfs/zcore/zodb"
)

func rec(data string) zodb.Record { return zodb.Record{Data: []byte(data), Serial: 0x22} }

// show prints a value on one line, for tests.
func show(v Value) string {
	switch v.Kind {
	case Int:
		return fmt.Sprint(v.Int)
	case Bytes:
		return fmt.Sprintf("b%q", v.Data)
	case Text:
		return fmt.Sprintf("u%q", v.Data)
	case Tuple, List:
		items := make([]string, len(v.Items))
		for i, it := range v.Items {
			items[i] = show(it)
		}
		if v.Kind == List {
			return "[" + strings.Join(items, " ") + "]"
		}
		return "(" + strings.Join(items, " ") + ")"
	case Global:
		return strings.ReplaceAll(string(v.Data), "\n", ".")
	case Ref:
		return fmt.Sprintf("ref(%d %s)", v.Int, strings.ReplaceAll(string(v.Data), "\n", "."))
	case WeakRef:
		return "weak"
	}
	return v.Kind.String()
}

const oid1 = "\x00\x00\x00\x00\x00\x00\x00\x01"

// TestClassForms: every form that a class reference has had.
func TestClassForms(t *testing.T) {
	for name, class := range map[string]string{
		"class":                     "cm.x\nC\n.",
		"class, protocol 3":         "\x80\x03cm.x\nC\nq\x00.",
		"(class, args)":             "(cm.x\nC\n)t.",
		"(class, None)":             "\x80\x02cm.x\nC\nN\x86.",
		"(class, (1, 'a'))":         "\x80\x02cm.x\nC\nK\x01U\x01a\x86\x86.",
		"((module, name), None)":    "((U\x03m.xU\x01CtNt.",
		"((module, name), args)":    "((U\x03m.xU\x01Ct)t.",
		"((module, name), None) u":  "((X\x03\x00\x00\x00m.xX\x01\x00\x00\x00CtNt.",
		"((module, name), None) p2": "\x80\x02U\x03m.xU\x01C\x86q\x01N\x86q\x02.",
	} {
		obj, err := Decode(5, rec(class+"N."))
		if err != nil || obj.Class != (Class{"m.x", "C"}) || obj.State.Kind != None {
			t.Errorf("%s: %v %v", name, obj, err)
		}
		if c, err := ClassOf(5, rec(class)); err != nil || c != obj.Class {
			t.Errorf("%s: ClassOf: %v %v", name, c, err)
		}
	}
}

// TestStates: values as the Pythons write them. The last are shared with the class pickle by the memo.
func TestStates(t *testing.T) {
	for state, want := range map[string]string{
		"N.":                        "None",
		"K\x05.":                    "5",
		"M\x05\x01.":                "261",
		"J\xfe\xff\xff\xff.":        "-2",
		"I-12345678901\n.":          "-12345678901",
		"L12345678901L\n.":          "12345678901",
		"L-9223372036854775808L\n.": "-9223372036854775808",
		"\x80\x02\x8a\x00.":         "0",
		"\x80\x02\x8a\x01\xff.":     "-1",
		"\x80\x02\x8a\x06\x00\x00\x00\x00\x00\x01.":         "1099511627776",
		"\x80\x02\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.": "-9223372036854775808",
		"U\x03a\x00\xff.":                     `b"a\x00\xff"`,
		"T\x03\x00\x00\x00a\x00\xff.":         `b"a\x00\xff"`,
		"\x80\x03C\x03a\x00\xff.":             `b"a\x00\xff"`,
		"\x80\x03B\x03\x00\x00\x00a\x00\xff.": `b"a\x00\xff"`,
		"X\x03\x00\x00\x00a\xc3\xa9.":         `u"aé"`,
		"c_codecs\nencode\n(X\x05\x00\x00\x00a\x00\xc3\xbf\nX\x06\x00\x00\x00latin1tR.": `b"a\x00\xff\n"`,
		"c__builtin__\nbytes\n)R.":                                                      `b""`,
		"\x80\x02czodbpickle\nbinary\nU\x01x\x85R.":                                     `b"x"`,
		"\x80\x02czodbpickle\nbinary\nU\x01x\x85\x81.":                                  `b"x"`,
		"ccopy_reg\n_reconstructor\n(czodbpickle\nbinary\nc__builtin__\nstr\nU\x01xtR.": `b"x"`,
		"U\x08" + oid1 + "Q.":                                                           "ref(1 )",
		"\x80\x03C\x08" + oid1 + "Q.":                                                   "ref(1 )",
		"(U\x08" + oid1 + "cm\nC\ntQ.":                                                  "ref(1 m.C)",
		"(U\x08" + oid1 + "NtQ.":                                                        "ref(1 )",
		"]U\x08" + oid1 + "aQ.":                                                         "weak",
		"](U\x01wU\x08" + oid1 + "\x85eQ.":                                              "weak",
		"](U\x01n(U\x02dbU\x08" + oid1 + "teQ.":                                         "weak",
		"(](K\x01K\x02e(K\x03lt.":                                                       "([1 2] [3])",
		"(K\x01q\x01h\x01r\x02\x01\x00\x00j\x02\x01\x00\x00t.":                          "(1 1 1)",
		"(h\x00h\x00t.":                                                                 "(m.C m.C)",
		"N.x":                                                                           "None", // Python stops at STOP

		// Protocol 0, and values moved about.
		"S'x\\n\\x00\\101\\'\\q'\n.":     `b"x\n\x00A'\\q"`,
		"S\"it's\"\n.":                   `b"it's"`,
		"Vd\\u00e9\xe9\\\n.":             `u"déé\\"`,
		"(S'a'\np1\ng1\nI5\np2\n0g2\nt.": `(b"a" b"a" 5)`,
		"K\x01200M\x01\x01.":             "257",
		"(K\x01(K\x02K\x031K\x042t.":     "(1 4 4)",
		"(K\x01(0t.":                     "(1)",

		// Byte arrays, as the Pythons write them.
		"cbuiltins\nbytearray\nC\x01a\x85R.": `b"a"`,
		"cbuiltins\nbytearray\n)R.":          `b""`,
		"c__builtin__\nbytearray\n(X\x02\x00\x00\x00\xc3\xbfX\x07\x00\x00\x00latin-1tR.": `b"\xff"`,
		"c__builtin__\nbytearray\n(V\xff\nS'latin-1'\ntR.":                               `b"\xff"`,
	} {
		obj, err := Decode(5, rec("cm\nC\nq\x00."+state))
		if err != nil || show(obj.State) != want {
			t.Errorf("%q: %s, want %s (%v)", state, show(obj.State), want, err)
		}
	}
}

// TestRefused: what is not well-formed, and what is but that no known class can hold.
func TestRefused(t *testing.T) {
	foreign := []string{
		"\x80\x04N.", "\x88.", "I01\n.", "}.", "G\x00\x00\x00\x00\x00\x00\x00\x00.", "P1\n.", "cos\nsystem\n(U\x02lstR.",
		"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", "]q\x01h\x01.", "\x8b\x01\x00\x00\x00\x01.", "]2.",
	}
	for _, state := range foreign {
		_, err := Decode(5, rec("cm\nC\n."+state))
		if !errors.Is(err, ErrForeign) {
			t.Errorf("%q: %v", state, err)
		}
	}
	for _, state := range []string{
		"", "N", ".", "K", "K.", "NN.", "(N.", "t.", "\x85.", "(\x85.", "N(\x85t.", "Q.", "NQ.", "U\x07" + oid1[1:] + "Q.", ")Q.", "]Q.",
		"R.", ")R.", "NNR.", "h\x00.", "q\x00.", "(q\x00.", "j\xff\xff\xff\xff.", "Nr\xff\xff\xff\xff.", "a.", "Na.", "NNa.", "(e.", "N(e.",
		"U\xff.", "T\xff\xff\xff\x7f.", "B\xff\xff\xff\xff.", "X\xff\xff\xff\x7f.", "cm", "cm\n", "c" + strings.Repeat("x", 5000) + "\nC\n.",
		"I\n.", "Ix\n.", "L12345678901234567890L\n.", "L" + strings.Repeat("1", 1<<20) + "L\n.", "\x80", "0.", "(0.", "1.", "N1.", "2.", "(2.", "p1\n.", "Np\n.", "Np-1\n.", "Np99999999\n.", "g0\n.", "gx\n.",
		"S\n.", "S'\n.", "S'x\n.", "Sx\n.", "S'\\x4'\n.", "S'\\\n.", "V\\u12\n.", "V\\ud800\n.", "Vx",
		"\x8a", "\x8a\x08",
		"c_codecs\nencode\n(X\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1tR.", "c_codecs\nencode\n(X\x01\x00\x00\x00\xffX\x06\x00\x00\x00latin1tR.",
	} {
		obj, err := Decode(5, rec("cm\nC\n."+state))
		var de *zodb.DataError
		if !errors.As(err, &de) || de.Oid != 5 || de.Serial != 0x22 || de.Pos < 6 {
			t.Errorf("%.40q: %v, %v", state, show(obj.State), err)
		}
	}
	for _, class := range []string{"", "N.", "K\x01.", "(NNt.", "(N).", "((U\x01aNtNt.", "((U\x01aU\x01bU\x01ctNt.", "(cm\nC\nNNt."} {
		if obj, err := Decode(5, rec(class+"N.")); err == nil {
			t.Errorf("class %q: %v", class, obj)
		}
	}
}

// TestEncode: what the encoder writes in each style is what the decoder reads.
func TestEncode(t *testing.T) {
	long := bytes.Repeat([]byte{0, 0x7f, 0x80, 0xff}, 100)
	for _, s := range styles() {
		items := []Item{{Key: -5, Oid: 7, Class: wendelin("ZBlk0")}, {Key: 1 << 40, Oid: 1 << 63, Class: wendelin("ZBlk1")}}
		zblk0, zblk1 := "ref(7 wendelin.bigfile.file_zodb.ZBlk0)", "ref(-9223372036854775808 wendelin.bigfile.file_zodb.ZBlk1)"
		for _, c := range []struct {
			name, class, state string
			data               []byte
		}{
			{"file", "wendelin.bigfile.file_zodb.ZBigFile", "(2097152 ref(2 BTrees.LOBTree.LOBTree))", s.BigFile(2<<20, 2)},
			{"blk0", "wendelin.bigfile.file_zodb.ZBlk0", fmt.Sprintf("b%q", long), s.Blk0(append(long[:len(long):len(long)], 0, 0))},
			{"blk", "wendelin.bigfile.file_zodb.ZBlk", `b""`, s.Blk(make([]byte, 9))},
			{"blk1", "wendelin.bigfile.file_zodb.ZBlk1", "ref(3 BTrees.IOBTree.IOBTree)", s.Blk1(3)},
			{"data", "wendelin.bigfile.file_zodb.ZData", `b"x\x00"`, s.Data([]byte("x\x00"))},
			{"bucket", "BTrees.LOBTree.LOBucket", "((-5 " + zblk0 + " 1099511627776 " + zblk1 + "))", s.Bucket(LO, items, 0)},
			{"next", "BTrees.IOBTree.IOBucket", "((-5 " + zblk0 + ") ref(9 BTrees.IOBTree.IOBucket))", s.Bucket(IO, items[:1], 9)},
			{"inline", "BTrees.LOBTree.LOBTree", "((((-5 " + zblk0 + "))))", s.InlineTree(LO, items[:1])},
			{"empty", "BTrees.LOBTree.LOBTree", "None", s.InlineTree(LO, nil)},
			{"tree", "BTrees.LOBTree.LOBTree", "((" + zblk0 + " 1099511627776 " + zblk1 + ") ref(9 BTrees.LOBTree.LOBucket))", s.Tree(LO, items, 9)},
		} {
			obj, err := Decode(1, zodb.Record{Data: c.data})
			if err != nil || obj.Class.String() != c.class || show(obj.State) != c.state {
				t.Errorf("%v %s: %s %s (%v), want %s", s, c.name, obj.Class, show(obj.State), err, c.state)
			}
		}
	}
}

func styles() []Style {
	return []Style{{1, true}, {2, true}, {3, true}, {1, false}, {2, false}, {3, false}}
}
