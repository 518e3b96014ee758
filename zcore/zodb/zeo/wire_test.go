package zeo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"

	zeotest "wcfs/t/zeo"
)

// encoded is what Python's own encoder makes of messages, one a line in hex, Z5 then M5.
func encoded(t testing.TB, version int) [][]byte {
	const script = `
from ZEO.asyncio.marshal import encoder
messages = [
    (1, 0, '.reply', (b'x' * 300, b'12345678', None)),
    (2, 0, '.reply', None),
    (-1, 0, '.reply', None),
    (0, True, 'invalidateTransaction', (b'12345678', [b'1' * 8, b'2' * 8])),
    (0, True, 'invalidateTransaction', (b'12345678', [b'1' * 8] * 5000)),
    (0, True, 'info', {'length': 70000, 'size': 2**40, 'name': 'n', 'interfaces': (('a', 'b'),)}),
    (3, 2, '.reply', ('ZODB.POSException.POSKeyError', (b'1' * 8,))),
    (4, 0, '.reply', [{'time': 1.5, 'tid': b'87654321', 'size': -3, 'x': [], 'y': (), 'z': False}]),
    (5, 0, '.reply', (b'', b'', b'z' * 70000)),
    (6, 0, '.reply', {'deep': [[[(1, (2, (3,)))]]]}),
]
for p in b'Z5', b'M5':
    e = encoder(p, True)
    for m in messages:
        print(e(*m).hex())
`
	out, err := exec.Command(zeotest.Python(t, version), "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for line := range strings.FieldsSeq(string(out)) {
		var b []byte
		if _, err := fmt.Sscanf(line, "%x", &b); err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

func messages() []message {
	b := func(s string) []byte { return []byte(s) }
	var many []any
	for range 5000 {
		many = append(many, b("11111111"))
	}
	return []message{
		{1, 0, ".reply", []any{bytes.Repeat(b("x"), 300), b("12345678"), nil}},
		{2, 0, ".reply", nil},
		{-1, 0, ".reply", nil},
		{0, 1, "invalidateTransaction", []any{b("12345678"), []any{b("11111111"), b("22222222")}}},
		{0, 1, "invalidateTransaction", []any{b("12345678"), many}},
		{0, 1, "info", dict{"length": int64(70000), "size": int64(1) << 40, "name": "n", "interfaces": []any{[]any{"a", "b"}}}},
		{3, 2, ".reply", []any{"ZODB.POSException.POSKeyError", []any{b("11111111")}}},
		{4, 0, ".reply", []any{dict{"time": 1.5, "tid": b("87654321"), "size": int64(-3), "x": []any{}, "y": []any{}, "z": false}}},
		{5, 0, ".reply", []any{b(""), b(""), bytes.Repeat(b("z"), 70000)}},
		{6, 0, ".reply", dict{"deep": []any{[]any{[]any{[]any{int64(1), []any{int64(2), []any{int64(3)}}}}}}}},
	}
}

// What Python encodes is decoded to what it was.
func TestDecode(t *testing.T) {
	t.Parallel()
	for _, version := range []int{5, 6} {
		enc, want := encoded(t, version), messages()
		if len(enc) != 2*len(want) {
			t.Fatalf("%d messages", len(enc))
		}
		for i, frame := range enc {
			w := []wire{pickleWire{maxValues}, msgpackWire{maxValues}}[i/len(want)]
			m, err := w.decode(frame)
			if err != nil || !reflect.DeepEqual(m, want[i%len(want)]) {
				t.Errorf("ZEO %d, %T, message %d: %.200v, %v", version, w, i%len(want), m, err)
			}
		}
	}
}

// What is cut short or changed is an error or some message, and is bounded.
func TestDecodeDamaged(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, frame := range encoded(t, 5) {
		if len(frame) > 1000 {
			frame = frame[:1000]
		}
		w := []wire{pickleWire{maxValues}, msgpackWire{maxValues}}[i/len(messages())]
		for n := range frame {
			if _, err := w.decode(frame[:n]); err == nil {
				t.Errorf("%T message %d: cut to %d bytes it is decoded", w, i, n)
			}
		}
		for range 2000 {
			b := bytes.Clone(frame)
			for range 1 + rnd.IntN(3) {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
			_, _ = w.decode(b)
		}
	}
}

// Frames made to cost much: each is an error, and memory stays in bounds.
func TestDecodeHostile(t *testing.T) {
	// Bounds in proportion, so that the test is quick: what is measured is memory for a value.
	const values = maxValues / 32
	z, m := pickleWire{values}, msgpackWire{values}
	rep := func(head, s, tail string) []byte { return []byte(head + strings.Repeat(s, values+1000) + tail) }
	for _, tt := range []struct {
		name  string
		w     wire
		frame []byte
	}{
		{"nothings", z, rep("\x80\x03(", "N", "t.")},
		{"marks", z, rep("", "(", "")},
		{"dicts", z, rep("(", "}", "t.")},
		{"lists", z, rep("(", "]", "t.")},
		{"empty strings", z, rep("(", "C\x00", "t.")},
		{"nested tuples", z, rep("N", "\x85", ".")},
		{"doubled tuples", z, rep(")", "q\x00h\x00\x86", ".")},
		{"doubled tuples, a few", z, []byte(")" + strings.Repeat("q\x00h\x00\x86", 50) + ".")},
		{"list in itself", z, rep("]", "q\x00h\x00a", ".")},
		{"memo", z, rep("N", "q\x00r\x01\x00\x00\x01", ".")},
		{"classes", z, rep("(", "ca\nb\n", "t.")},
		{"calls", z, rep("ca\nb\n", ")R", ".")},
		{"huge string", z, []byte("\x80\x03B\xff\xff\xff\xff")},
		{"huge text", z, []byte("\x80\x03X\xff\xff\xff\x7f")},
		{"long", z, []byte("\x80\x03\x8a\xff")},
		{"protocol 5", z, []byte("\x80\x05N.")},
		{"persistent reference", z, []byte("\x80\x03NQ.")},
		{"no marks", z, []byte("t.")}, {"append to nothing", z, []byte("Na.")},
		{"append to a tuple", z, []byte(")Na.")}, {"items of a list", z, []byte("]NNs.")},
		{"two values", z, []byte("NN.")}, {"more after the end", z, []byte("N.N")},
		{"nothings", m, rep("\xdd\x00\x01\x00\x10", "\xc0", "")},
		{"nested arrays", m, rep("", "\x91", "\xc0")},
		{"claims in claims", m, rep("", "\xdd\x00\xff\xff\xff", "")},
		{"dicts in dicts", m, rep("", "\xdf\x00\x7f\xff\xff", "")},
		{"huge array", m, []byte("\xdd\xff\xff\xff\xff")},
		{"huge dict", m, []byte("\xdf\xff\xff\xff\xff")},
		{"huge string", m, []byte("\xdb\xff\xff\xff\xff")},
		{"huge bytes", m, []byte("\xc6\xff\xff\xff\xff")},
		{"huge extension", m, []byte("\xc9\xff\xff\xff\xff\x01")},
		{"unassigned code", m, []byte("\xc1")},
		{"two values", m, []byte("\xc0\xc0")},
	} {
		t.Run(fmt.Sprintf("%T/%s", tt.w, tt.name), func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := tt.w.decode(tt.frame)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it is decoded")
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 512<<20/32 {
				t.Errorf("decoding took %d bytes", got)
			}
		})
	}
}

// The length of a frame is a claim: memory comes with the bytes.
func TestReadFrame(t *testing.T) {
	t.Parallel()
	frame := func(claim int, n int) *bufio.Reader {
		b := append(binary.BigEndian.AppendUint32(nil, uint32(claim)), bytes.Repeat([]byte{7}, n)...)
		return bufio.NewReader(bytes.NewReader(b))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readFrame(frame(1<<30, 100), 1<<30); err == nil {
		t.Error("a frame that ends too soon is read")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*frameStep {
		t.Errorf("a claim of 1 GiB took %d bytes", got)
	}
	if _, err := readFrame(frame(1<<30+1, 100), 1<<30); err == nil || !strings.Contains(err.Error(), "1073741825 bytes") {
		t.Errorf("frame above the limit: %v", err)
	}
	for _, n := range []int{0, 1, frameStep - 1, frameStep, frameStep + 1, 3*frameStep + 5} {
		b, err := readFrame(frame(n, n+3), 1<<30)
		if err != nil || len(b) != n || bytes.Count(b, []byte{7}) != n {
			t.Errorf("frame of %d: %d bytes, %v", n, len(b), err)
		}
	}
}

func fuzz(f *testing.F, w wire) {
	for _, m := range [][]any{nil, {int64(1), "x", []byte("12345678"), true, nil}, {[]any{[]any{}}}} {
		f.Add(w.encode(nil, 7, "register", m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := w.decode(b)
		if err != nil {
			return
		}
		// What is decoded can be used like any message.
		_ = exception(m.args)
		_, _ = asHistory(m.args, 10)
		_, _ = asOids(m.args)
		_ = short(m.args)
	})
}

func FuzzPickle(f *testing.F)  { fuzz(f, pickleWire{maxValues}) }
func FuzzMsgpack(f *testing.F) { fuzz(f, msgpackWire{maxValues}) }
