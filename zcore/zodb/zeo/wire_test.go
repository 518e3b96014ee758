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
			w := []wire{pickleWire{}, msgpackWire{}}[i/len(want)]
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
		w := []wire{pickleWire{}, msgpackWire{}}[i/len(messages())]
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
	const size = 6 << 20
	rep := func(head, s, tail string) []byte {
		return []byte(head + strings.Repeat(s, (size-len(head)-len(tail))/len(s)) + tail)
	}
	for _, tt := range []struct {
		name  string
		w     wire
		frame []byte
	}{
		{"nothings", pickleWire{}, rep("\x80\x03(", "N", "t.")},
		{"marks", pickleWire{}, rep("", "(", "")},
		{"dicts", pickleWire{}, rep("(", "}", "t.")},
		{"lists", pickleWire{}, rep("(", "]", "t.")},
		{"empty strings", pickleWire{}, rep("(", "C\x00", "t.")},
		{"nested tuples", pickleWire{}, rep("N", "\x85", ".")},
		{"doubled tuples", pickleWire{}, rep(")", "q\x00h\x00\x86", ".")},
		{"list in itself", pickleWire{}, rep("]", "q\x00h\x00a", ".")},
		{"memo", pickleWire{}, rep("N", "q\x00r\x01\x00\x00\x01", ".")},
		{"classes", pickleWire{}, rep("(", "ca\nb\n", "t.")},
		{"calls", pickleWire{}, rep("ca\nb\n", ")R", ".")},
		{"huge string", pickleWire{}, []byte("\x80\x03B\xff\xff\xff\xff")},
		{"huge text", pickleWire{}, []byte("\x80\x03X\xff\xff\xff\x7f")},
		{"long", pickleWire{}, []byte("\x80\x03\x8a\xff")},
		{"protocol 5", pickleWire{}, []byte("\x80\x05N.")},
		{"persistent reference", pickleWire{}, []byte("\x80\x03NQ.")},
		{"no marks", pickleWire{}, []byte("t.")}, {"append to nothing", pickleWire{}, []byte("Na.")},
		{"append to a tuple", pickleWire{}, []byte(")Na.")}, {"items of a list", pickleWire{}, []byte("]NNs.")},
		{"two values", pickleWire{}, []byte("NN.")}, {"more after the end", pickleWire{}, []byte("N.N")},
		{"nothings", msgpackWire{}, rep("\xdd\x01\xff\xff\xfb", "\xc0", "")},
		{"nested arrays", msgpackWire{}, rep("", "\x91", "\xc0")},
		{"claims in claims", msgpackWire{}, rep("", "\xdd\x00\xff\xff\xff", "")},
		{"dicts in dicts", msgpackWire{}, rep("", "\xdf\x00\x7f\xff\xff", "")},
		{"huge array", msgpackWire{}, []byte("\xdd\xff\xff\xff\xff")},
		{"huge dict", msgpackWire{}, []byte("\xdf\xff\xff\xff\xff")},
		{"huge string", msgpackWire{}, []byte("\xdb\xff\xff\xff\xff")},
		{"huge bytes", msgpackWire{}, []byte("\xc6\xff\xff\xff\xff")},
		{"huge extension", msgpackWire{}, []byte("\xc9\xff\xff\xff\xff\x01")},
		{"unassigned code", msgpackWire{}, []byte("\xc1")},
		{"two values", msgpackWire{}, []byte("\xc0\xc0")},
	} {
		t.Run(fmt.Sprintf("%T/%s", tt.w, tt.name), func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := tt.w.decode(tt.frame)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it is decoded")
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 512<<20 {
				t.Errorf("decoding took %d MiB", got>>20)
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

func FuzzPickle(f *testing.F)  { fuzz(f, pickleWire{}) }
func FuzzMsgpack(f *testing.F) { fuzz(f, msgpackWire{}) }
