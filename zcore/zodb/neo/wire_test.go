package neo

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"wcfs/zcore/zodb"
)

func generations() []generation { return []generation{structs, packed} }

// samples has each message, with all its fields set.
func samples() []message {
	at := stamp(math.Float64bits(1795981268.348423))
	a := address{"::1", 2051}
	return []message{
		&answerError{5, []byte("no")},
		&requestIdentification{kind: typeClient, node: -536870911, cluster: []byte("c"), stamp: at},
		&acceptIdentification{typeMaster, -268435455, -536870911},
		&ping{}, &pong{}, &closeClient{}, &stopOperation{}, &flushLog{}, &askLastTransaction{},
		&notPrimaryMaster{1, []address{{"10.1.2.3", 1}, a}},
		&nodeInformation{at, []nodeInfo{{typeClient, address{}, -536870911, nodeRunning, at}, {typeStorage, a, 3, 1, noStamp}}},
		&partitionTable{7, 1, [][]cellInfo{{{1, cellUpToDate}, {2, cellFeeding}}, {{2, 0}}}},
		&partitionChanges{8, 1, []cellChange{{1, cellInfo{3, cellDiscarded}}}},
		&invalidateObjects{0x040d58dd23f08bee, []zodb.Oid{1, 3}},
		&clusterInformation{clusterBackingUp},
		&answerLastTransaction{0x040d58dd23f08bee},
		&askObject{oid: 5, at: none, before: 9}, &askObject{oid: 5, at: 8, before: none},
		&answerObject{5, 8, none, 1, [20]byte{1, 19: 2}, []byte("data"), 7},
		&askTIDsFrom{1, zodb.TidMax, 1000, 2}, &answerTIDsFrom{[]zodb.Tid{1, 2}},
		&askTransaction{6}, &answerTransaction{6, []byte("u"), []byte("d"), []byte("m"), true, []zodb.Oid{5}},
		&askHistory{5, 0, 10}, &answerHistory{5, []revision{{9, 300}, {8, 0}}},
		&askOIDsFrom{1, 10, 0, 9}, &answerOIDsFrom{none, []zodb.Oid{5}},
	}
}

func decode(g generation, b []byte) (envelope, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	e, err := g.readMessage(r, 1<<20)
	if err == nil && r.Buffered() > 0 {
		err = fmt.Errorf("%d bytes are left", r.Buffered())
	}
	return e, err
}

// What is encoded is decoded to the same, and cut short it is an error.
func TestMessages(t *testing.T) {
	for _, g := range generations() {
		for _, m := range samples() {
			if codeOf(g, m) == 0 {
				continue
			}
			b, err := g.encode(3, m)
			if err != nil {
				t.Errorf("%s: %T: %v", g, m, err)
				continue
			}
			e, err := decode(g, b)
			if err != nil || e.id != 3 || !reflect.DeepEqual(e.msg, m) || e.size != int64(len(b)) {
				t.Errorf("%s: %T: %+v, %v; want %+v", g, m, e, err, m)
			}
			for n := range b {
				if _, err := decode(g, b[:n]); err == nil {
					t.Errorf("%s: %T: %d of %d bytes are taken for all", g, m, n, len(b))
				}
			}
		}
	}
}

// The bytes are those of the protocols, written down by hand.
func TestBytes(t *testing.T) {
	half := stamp(math.Float64bits(0.5))
	for _, tt := range []struct {
		gen generation
		msg message
		hex string
	}{
		{structs, &requestIdentification{kind: typeClient, cluster: []byte("ab"), stamp: noStamp, readOnly: true},
			"00000001 0001 0000001f 02 00000000 00000000 00000002 6162 ffffffffffffffff 00000000 00000000"},
		{packed, &requestIdentification{kind: typeClient, cluster: []byte("ab"), stamp: noStamp, readOnly: true},
			"93 01 01 96 d40402 c0 c0 c4026162 c0 81 c409 726561645f6f6e6c79 c3"},
		{packed, &requestIdentification{kind: typeClient, node: -536870911, cluster: []byte("ab"), stamp: half},
			"93 01 01 96 d40402 d2e0000001 c0 c4026162 cb3fe0000000000000 80"},
		{structs, &askObject{oid: 5, at: none, before: 9}, "00000001 0020 00000018 0000000000000005 ffffffffffffffff 0000000000000009"},
		{packed, &askObject{oid: 5, at: none, before: 9}, "93 01 20 93 c4080000000000000005 c0 c4080000000000000009"},
		{structs, &askLastTransaction{}, "00000001 0038 00000000"},
		{packed, &askLastTransaction{}, "93 01 3c 90"},
		{structs, &askTIDsFrom{1, 2, 3, 4}, "00000001 0030 00000018 0000000000000001 0000000000000002 00000003 00000004"},
		{packed, &askTIDsFrom{1, 2, 3, 4}, "93 01 30 94 c4080000000000000001 c4080000000000000002 03 04"},
		{structs, &askHistory{5, 0, 9}, "00000001 0023 00000018 0000000000000005 0000000000000000 0000000000000009"},
		{packed, &askHistory{5, 0, 9}, "93 01 23 93 c4080000000000000005 00 09"},
		{packed, &askOIDsFrom{1, 2, 3, 4}, "93 01 31 94 01 02 c4080000000000000003 c4080000000000000004"},
		{structs, &ping{}, "00000001 0002 00000000"},
		{packed, &ping{}, "93 01 02 90"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := tt.gen.encode(1, tt.msg); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %T: %x, %v; want %x", tt.gen, tt.msg, b, err, want)
		}
	}
}

// What later servers may send is taken: more values, text for bytes, plain numbers, codes that are not known.
func TestLaterServers(t *testing.T) {
	for name, tt := range map[string]struct {
		hex  string
		want message
	}{
		"one value more":          {"93 01 cd803c 92 c4080000000000000005 93 01 81 01 a161 c70501 0102030405", &answerLastTransaction{5}},
		"text for bytes":          {"93 01 cd8000 92 05 a26e6f", &answerError{5, []byte("no")}},
		"plain enumeration":       {"93 01 2d 91 05", &clusterInformation{clusterBackingUp}},
		"code not known":          {"93 01 61 92 81 c4016b 93 c3 c0 cb3fe0000000000000 d40101", nil},
		"error as an enumeration": {"93 01 cd8000 92 d40205 c400", &answerError{5, []byte{}}},
	} {
		b, _ := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		e, err := decode(packed, b)
		if err != nil || !reflect.DeepEqual(e.msg, tt.want) && e.msg != nil {
			t.Errorf("%s: %+v, %v; want %+v", name, e.msg, err, tt.want)
		}
	}
}

// What a server must not get is not sent.
func TestStrict(t *testing.T) {
	for _, g := range generations() {
		for _, m := range []message{
			&askObject{oid: 1 << 63, at: none, before: 1}, &askObject{oid: 1, at: none, before: 1 << 63},
			&askTransaction{none}, &askTIDsFrom{from: 1, to: 1<<63 + 5}, &askHistory{oid: none, last: 1},
			&requestIdentification{kind: 100, stamp: noStamp}, &requestIdentification{addr: address{host: "x"}, stamp: noStamp},
		} {
			if b, err := g.encode(1, m); err == nil {
				t.Errorf("%s: %+v is sent as %x", g, m, b)
			}
		}
	}
	if _, err := structs.encode(1, &askOIDsFrom{}); err == nil {
		t.Error("protocol 6 has no AskOIDsFrom")
	}
}

// Each message has a code, by which it is made again.
func TestCodes(t *testing.T) {
	for _, g := range generations() {
		seen := map[uint16]string{}
		for _, m := range samples() {
			code := codeOf(g, m)
			name := fmt.Sprintf("%T", m)
			if code == 0 {
				continue
			}
			if got := fmt.Sprintf("%T", newMessage(g, code)); got != name {
				t.Errorf("%s: %#x is %s and %s", g, code, name, got)
			}
			if other := seen[code]; other != "" && other != name {
				t.Errorf("%s: %#x is %s and %s", g, code, name, other)
			}
			seen[code] = name
		}
	}
}

func TestHello(t *testing.T) {
	for hello, want := range map[string]string{
		"\x00\x00\x00\x06":             "",
		"\x92\xa3NEO\x05":              "",
		"\x00\x00\x00\x05":             "NEO protocol 5 (struct) is not supported",
		"\x92\xa3NEO\x04":              "NEO protocol M4 (msgpack) is not supported",
		"HTTP/1.1 400 Bad Request\r\n": "it is not a NEO server",
		"\x00\x00\x00\x05M5":           "NEO protocol 5 (struct)", // ZEO's
		"":                             "EOF",
		"\x92\xa3N":                    "closes the connection within its greeting",
	} {
		_, err := readHello(bufio.NewReader(strings.NewReader(hello)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v; want %q", hello, err, want)
		}
	}
}

// Messages made to cost memory or time are refused.
func TestHostileMessages(t *testing.T) {
	deep := append([]byte{0x93, 1, 0x60}, bytes.Repeat([]byte{0x91}, 1<<19)...)
	for name, tt := range map[string]struct {
		gen generation
		b   []byte
	}{
		"nested":        {packed, deep},
		"long list":     {packed, []byte("\x93\x01\x16\x92\xc4\x08\x00\x00\x00\x00\x00\x00\x00\x01\xdd\x00\x1f\xff\xff")},
		"long bytes":    {packed, []byte("\x93\x01\xcd\x80\x00\x92\x01\xc6\x3f\xff\xff\xff")},
		"long body":     {structs, []byte("\x00\x00\x00\x01\x80\x00\x03\xff\xff\xff")},
		"too long body": {structs, []byte("\x00\x00\x00\x01\x80\x00\xff\xff\xff\xff")},
		"list in body":  {structs, []byte("\x00\x00\x00\x01\x00\x16\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff")},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := tt.gen.readMessage(bufio.NewReader(bytes.NewReader(tt.b)), 1<<30)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 2*step {
			t.Errorf("%s: %v, %d bytes of memory", name, err, got)
		}
	}
}

func FuzzStruct(f *testing.F) { fuzzDecoder(f, structs) }
func FuzzPacked(f *testing.F) { fuzzDecoder(f, packed) }

// fuzzDecoder: what can be decoded and encoded is decoded to the same again.
func fuzzDecoder(f *testing.F, g generation) {
	for _, m := range samples() {
		if b, err := g.encode(7, m); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := g.readMessage(bufio.NewReader(bytes.NewReader(b)), 1<<20)
		if err != nil || e.msg == nil {
			return
		}
		again, err := g.encode(e.id, e.msg)
		if err != nil {
			return
		}
		e2, err := decode(g, again)
		if err != nil || e2.id != e.id || e2.code != e.code || !same(e.msg, e2.msg) {
			t.Fatalf("%x is %+v, encoded %x is %+v, %v", b, e.msg, again, e2.msg, err)
		}
	})
}

// same compares messages by how they print: no list and an empty one are the same.
func same(a, b message) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

// FuzzRequests: whatever is asked for, a request is one list of two numbers and a list, in protocol 5, and of the
// announced length in protocol 6; or it is refused.
func FuzzRequests(f *testing.F) {
	f.Add(uint64(1), uint64(none), uint32(5), []byte("cluster"), int8(2))
	f.Add(uint64(1<<63), uint64(5), uint32(1<<31), []byte{}, int8(-1))
	f.Fuzz(func(t *testing.T, a, b uint64, n uint32, text []byte, kind int8) {
		for _, m := range []message{
			&requestIdentification{kind: kind, node: int32(n), cluster: text, stamp: stamp(b), readOnly: n%2 == 0},
			&ping{}, &pong{}, &askLastTransaction{},
			&askObject{zodb.Oid(a), zodb.Tid(b), none}, &askObject{zodb.Oid(a), none, zodb.Tid(b)},
			&askTIDsFrom{zodb.Tid(a), zodb.Tid(b), n, n / 2}, &askTransaction{zodb.Tid(a)},
			&askHistory{zodb.Oid(a), uint64(n), b >> 1}, &askOIDsFrom{n, n / 2, zodb.Oid(a), zodb.Tid(b)},
		} {
			for _, g := range generations() {
				if raw, err := g.encode(n, m); err == nil {
					wellFormed(t, g, n, m, raw)
				}
			}
		}
	})
}

func wellFormed(t *testing.T, g generation, id uint32, m message, raw []byte) {
	e, err := decode(g, raw)
	if err != nil || e.id != id || e.code != codeOf(g, m) {
		t.Fatalf("%s: %+v is sent as %x: %v", g, m, raw, err)
	}
	if g == structs {
		return
	}
	dec := msgpack.NewDecoder(bytes.NewReader(raw))
	if n, err := dec.DecodeArrayLen(); err != nil || n != 3 {
		t.Fatalf("%+v: %x is a list of %d, %v", m, raw, n, err)
	}
	for _, want := range []uint64{uint64(id), uint64(e.code)} {
		if v, err := dec.DecodeUint64(); err != nil || v != want {
			t.Fatalf("%+v: %x has %d for %d, %v", m, raw, v, want, err)
		}
	}
	args, err := dec.DecodeArrayLen()
	if err != nil || args < 0 {
		t.Fatalf("%+v: %x has no list of arguments: %v", m, raw, err)
	}
	for range args {
		if err := dec.Skip(); err != nil {
			t.Fatalf("%+v: %x: %v", m, raw, err)
		}
	}
	if err := dec.Skip(); !errors.Is(err, io.EOF) {
		t.Fatalf("%+v: %x has something after its end: %v", m, raw, err)
	}
}
