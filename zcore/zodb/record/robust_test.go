package record

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	pickle "github.com/kisielk/og-rek"

	"wcfs/zcore/zodb"
)

const maxAlloc = 64 << 20 // bytes that one bad record may make the process allocate

// allocated returns how many bytes fn allocates, freed ones included.
func allocated(fn func()) uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	before := s[0].Value.Uint64()
	fn()
	metrics.Read(s)
	return s[0].Value.Uint64() - before
}

// TestBombs: records made to exhaust memory, time or the stack. None of them may, decoded or not.
func TestBombs(t *testing.T) {
	const many = 4 << 20
	rep := strings.Repeat
	text := "X\x00\x00\x10\x00" + rep("a", 1<<20) + "q\x01"
	var dag strings.Builder
	for i := range 60 { // 2^60 values for who walks it
		fmt.Fprintf(&dag, "h%ch%c\x86q%c", i, i, i+1)
	}
	for name, state := range map[string]string{
		"2 GiB str":           "T\xff\xff\xff\x7fabc",
		"4 GiB bytes":         "B\xff\xff\xff\xffabc",
		"2 GiB text":          "X\xff\xff\xff\x7fabc",
		"2 GiB long":          "\x8b\xff\xff\xff\x7fabc",
		"values":              rep("N", many) + ".",
		"values in a tuple":   "(" + rep("N", many) + "t.",
		"values in a list":    "](" + rep("N", many) + "e.",
		"appended one by one": "]" + rep("Na", many/2) + ".",
		"marks":               rep("(", many) + ".",
		"deep tuples":         ")" + rep("\x85", many) + ".",
		"deep mark tuples":    rep("(", many) + rep("t", many) + ".",
		"deep lists":          rep("(", 1<<16) + rep("l", 1<<16) + ".",
		"memo":                "N" + rep("r\xff\xff\x01\x00", many/8) + ".",
		"memo fetched":        "Nq\x01" + rep("h\x01", many/2) + ".",
		"list doubled":        "](K\x01K\x01eq\x01" + rep("(h\x01h\x01e", 64) + ".",
		"tuples doubled":      ")q\x00" + dag.String() + "h\x01.",
		"text encoded often":  text + rep("c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R", 1<<12) + ".",
		"long decimal":        "L" + rep("9", many) + "L\n.",
		"long name":           "c" + rep("m", many) + "\nC\n.",
	} {
		start := time.Now()
		n := allocated(func() { Decode(1, rec("cm\nC\n."+state)) })
		if took := time.Since(start); n > maxAlloc/2 || took > 20*time.Second {
			t.Errorf("%s: allocates %d bytes in %v", name, n, took)
		}
	}
}

// TestOgrekGrows measures why records are not decoded by og-rek: its lists grow without bound. Should
// this fail, the package doc has lost a reason.
func TestOgrekGrows(t *testing.T) {
	state := "((" + strings.Repeat("N", 20480) + "lq\x01" + strings.Repeat("h\x01(Ne", 400) + "t."
	if n := allocated(func() { pickle.NewDecoder(strings.NewReader(state)).Decode() }); n < maxAlloc {
		t.Errorf("og-rek allocates %d bytes for a record of %d", n, len(state))
	}
	if n := allocated(func() { Decode(1, rec("cm\nC\n."+state)) }); n > maxAlloc/4 {
		t.Errorf("we allocate %d bytes for a record of %d", n, len(state))
	}
}

// samples are records of every class in every style.
func samples() [][]byte {
	var all [][]byte
	for _, s := range styles() {
		var items []Item
		for i := range int64(12) {
			items = append(items, Item{Key: i * i * i * i, Oid: zodb.Oid(i + 1), Class: wendelin("ZBlk0")})
		}
		all = append(all, s.BigFile(2<<20, 2), s.Blk0([]byte("ab\x00\xff")), s.Blk(nil), s.Blk1(3), s.Data(bytes.Repeat([]byte{200}, 300)),
			s.Bucket(LO, items, 9), s.Bucket(IO, items[:3], 0), s.InlineTree(LO, items[:2]), s.InlineTree(IO, nil), s.Tree(LO, items, 9))
	}
	return all
}

// TestFlips: 10^4 records with some bits flipped, bytes cut out or repeated.
func TestFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 0))
	all := samples()
	for i := range 10000 {
		data := mutate(rng, all[rng.IntN(len(all))])
		if n := allocated(func() { Decode(1, zodb.Record{Data: data}) }); n > maxAlloc {
			t.Fatalf("mutation %d allocates %d bytes: %q", i, n, data)
		}
	}
}

func mutate(rng *rand.Rand, data []byte) []byte {
	data = bytes.Clone(data)
	for range 1 + rng.IntN(3) {
		i := rng.IntN(len(data))
		switch rng.IntN(6) {
		case 0:
			data[i] = byte(rng.IntN(256))
		case 1:
			data = append(data[:i], data[min(len(data), i+rng.IntN(9)):]...)
		case 2:
			data = append(data[:i:i], data[max(0, i-rng.IntN(9)):]...)
		default:
			data[i] ^= 1 << rng.IntN(8)
		}
		if len(data) == 0 {
			return []byte{0}
		}
	}
	return data
}

// TestTruncated: a record cut anywhere is an error; one with more behind it is what it is without, as for Python.
func TestTruncated(t *testing.T) {
	for _, data := range samples() {
		for n := range data {
			if obj, err := Decode(1, zodb.Record{Data: data[:n]}); err == nil {
				t.Fatalf("%q cut to %d decodes to %v", data, n, obj)
			}
		}
		want, _ := Decode(1, zodb.Record{Data: data})
		if obj, err := Decode(1, zodb.Record{Data: append(bytes.Clone(data), '.')}); err != nil || show(obj.State) != show(want.State) {
			t.Fatalf("%q with a byte more decodes to %v, %v", data, obj, err)
		}
	}
}

func deflate(data []byte) []byte {
	var out bytes.Buffer
	out.WriteString(".z")
	w := zlib.NewWriter(&out)
	w.Write(data)
	w.Close()
	return out.Bytes()
}

func TestDecompress(t *testing.T) {
	for _, plain := range append(samples(), make([]byte, 5<<20), nil) {
		if got, err := Decompress(plain); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("plain record of %d bytes: %v", len(plain), err)
		}
		z := deflate(plain)
		if got, err := Decompress(z); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("compressed record of %d bytes: %v", len(plain), err)
		}
		for n := 2; n < len(z) && len(z) < 1000; n++ {
			if _, err := Decompress(z[:n]); err == nil {
				t.Fatalf("a compressed record cut to %d of %d expands", n, len(z))
			}
		}
	}
	z := deflate(make([]byte, 1<<20))
	if _, err := inflate(z[2:], 1<<20-1); err == nil {
		t.Error("a record larger than the bound expands")
	}
	if got, err := inflate(z[2:], 1<<20); err != nil || len(got) != 1<<20 {
		t.Errorf("a record as large as the bound: %v", err)
	}
	rng := rand.New(rand.NewPCG(3, 0))
	z = deflate(make([]byte, 1<<14))
	for range 2000 {
		data := mutate(rng, z)
		if n := allocated(func() { Decompress(data) }); n > maxAlloc {
			t.Fatalf("allocates %d bytes: %q", n, data)
		}
	}
}

// ogrek turns what og-rek decoded into a Value.
func ogrek(o any) (Value, error) {
	switch o := o.(type) {
	case pickle.None:
		return Value{}, nil
	case int64:
		return Value{Kind: Int, Int: o}, nil
	case *big.Int:
		return Value{Kind: Int, Int: o.Int64()}, nil
	case string:
		return Value{Kind: Text, Data: []byte(o)}, nil
	case pickle.ByteString:
		return Value{Kind: Bytes, Data: []byte(o)}, nil
	case pickle.Bytes:
		return Value{Kind: Bytes, Data: []byte(o)}, nil
	case pickle.Class:
		return Value{Kind: Global, Data: []byte(o.Module + "\n" + o.Name)}, nil
	case pickle.Tuple:
		return ogrekAll(Tuple, o)
	case []any:
		return ogrekAll(List, o)
	case pickle.Ref:
		id, err := ogrek(o.Pid)
		if err != nil {
			return Value{}, err
		}
		return reference(id)
	case pickle.Call:
		fn, _ := ogrek(o.Callable)
		args, err := ogrek(o.Args)
		if err != nil {
			return Value{}, err
		}
		return new(machine).makeBytes(fn, args)
	}
	return Value{}, fmt.Errorf("og-rek made a %T", o)
}

func ogrekAll(kind Kind, items []any) (Value, error) {
	v := Value{Kind: kind}
	for _, it := range items {
		w, err := ogrek(it)
		if err != nil {
			return Value{}, err
		}
		v.Items = append(v.Items, w)
	}
	return v, nil
}

// checkOgrek compares the decoder with og-rek where both decode.
func checkOgrek(t *testing.T, data []byte) (compared bool) {
	t.Helper()
	obj, err := Decode(1, zodb.Record{Data: data})
	if err != nil {
		return false
	}
	d := pickle.NewDecoderWithConfig(bytes.NewReader(data), &pickle.DecoderConfig{StrictUnicode: true})
	d.Decode()
	o, err := d.Decode()
	if err != nil {
		return false
	}
	want, err := ogrek(o)
	if err != nil || show(want) != show(obj.State) {
		t.Errorf("%q:\n%s, og-rek has\n%s (%v)", data, show(obj.State), show(want), err)
	}
	return true
}

func TestOgrekAgrees(t *testing.T) {
	for _, data := range samples() {
		if !checkOgrek(t, data) {
			t.Errorf("not compared: %q", data)
		}
	}
	rng := rand.New(rand.NewPCG(12, 0))
	n, all := 0, samples()
	for range 5000 {
		if checkOgrek(t, mutate(rng, all[rng.IntN(len(all))])) {
			n++
		}
	}
	if n < 1000 {
		t.Errorf("only %d of 5000 mutated records were compared", n)
	}
}

// FuzzDecode: any bytes decode or do not, in bounded memory, and never to another value than og-rek's.
func FuzzDecode(f *testing.F) {
	for _, data := range samples() {
		f.Add(data)
	}
	for _, s := range []string{
		"((U\x03m.xU\x01CtNt.N.", "cm\nC\nq\x00.(h\x00h\x00t.", "cm\nC\n.c_codecs\nencode\n(X\x02\x00\x00\x00\xc3\xbfX\x06\x00\x00\x00latin1tR.",
		"cm\nC\n.](U\x01wU\x08" + oid1 + "\x85eQ.", "cm\nC\n.T\xff\xff\xff\x7f", "cm\nC\n.L12345678901L\n.", "cm\nC\n.](K\x01K\x02e.",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 || bytes.Count(data, []byte("h")) > 12 { // shared tuples print exponentially
			return
		}
		if n := allocated(func() { Decode(1, zodb.Record{Data: data}) }); n > maxAlloc {
			t.Fatalf("allocates %d bytes", n)
		}
		checkOgrek(t, data)
	})
}

// FuzzDecompress: any bytes expand or do not.
func FuzzDecompress(f *testing.F) {
	f.Add(deflate([]byte("abc")))
	f.Add(deflate(make([]byte, 1<<16)))
	f.Add([]byte(".z"))
	f.Add([]byte("cm\nC\n.N."))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 1<<14 {
			Decompress(data)
		}
	})
}

// BenchmarkDecode shows what a decode costs: a block of 2 MiB and a bucket of 60 keys.
func BenchmarkDecode(b *testing.B) {
	var items []Item
	for i := range int64(60) {
		items = append(items, Item{Key: i, Oid: zodb.Oid(i + 1), Class: wendelin("ZBlk0")})
	}
	block := binary.BigEndian.AppendUint64(make([]byte, 2<<20), 1)
	for name, data := range map[string][]byte{"block": Py3().Blk0(block), "bucket": Py3().Bucket(LO, items, 9)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decode(1, zodb.Record{Data: data})
			}
		})
		b.Run(name+"-ogrek", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := pickle.NewDecoder(bytes.NewReader(data))
				d.Decode()
				d.Decode()
			}
		})
	}
}
