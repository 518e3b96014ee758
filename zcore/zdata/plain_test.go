package zdata_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

func plainStyles() []record.Style {
	return []record.Style{record.Py3(), {Protocol: 1, Py2: true}, {Protocol: 2, Py2: true}}
}

func TestFindPlain(t *testing.T) {
	data := bytes.Repeat([]byte("B\x05\x00\x00\x00hello"), 1000)
	for _, s := range plainStyles() {
		for _, n := range []int{1, 10, 255, 256, len(data)} {
			for _, rec := range [][]byte{s.Blk0(data[:n]), s.Blk(data[:n])} {
				off, size, ok, err := zdata.FindPlain(7, bytes.NewReader(rec), int64(len(rec)))
				if err != nil || !ok || !bytes.Equal(rec[off:off+size], bytes.TrimRight(data[:n], "\x00")) {
					t.Errorf("%+v, %d bytes: [%d:+%d] %v %v", s, n, off, size, ok, err)
				}
			}
		}
		name := record.Class{Module: record.ModBigFile, Name: "B\x10\x00\x00\x00" + strings.Repeat("x", 16)}
		for what, rec := range map[string][]byte{
			"ZBlk1":           s.Blk1(9),
			"ZData":           s.Data(data),
			"another class":   s.Encode(name, s.Bytes(data)),
			"cut":             s.Blk0(data)[:len(data)],
			"much after it":   append(s.Blk0(data), make([]byte, 100)...),
			"nothing":         {},
			"class only":      s.Blk0(data)[:40],
			"a list of bytes": s.Encode(record.Class{Module: record.ModBigFile, Name: "ZBlk0"}, []any{s.Bytes(data)}),
		} {
			if off, size, ok, err := zdata.FindPlain(7, bytes.NewReader(rec), int64(len(rec))); ok || err != nil {
				t.Errorf("%+v, %s: [%d:+%d] %v", s, what, off, size, err)
			}
		}
	}
}

// TestPlainAgrees: what is found to lie plainly in a damaged record is what decoding it gives.
func TestPlainAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	agreed := 0
	for range 20000 {
		s := plainStyles()[rng.IntN(3)]
		data := make([]byte, 1+rng.IntN(600))
		for i := range data {
			data[i] = "BTCU.q\x00\x01\x08\xff"[rng.IntN(10)]
		}
		rec := s.Blk0(data)
		for range rng.IntN(3) {
			i := rng.IntN(len(rec))
			if rng.IntN(2) == 0 {
				i = rng.IntN(min(len(rec), 64))
			}
			rec[i] = byte(rng.IntN(256))
		}
		off, size, ok, err := zdata.FindPlain(1, bytes.NewReader(rec), int64(len(rec)))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		agreed++
		got, err := load(commit(t, map[zodb.Oid][]byte{1: rec}), 1, 1<<20)
		if err != nil || !bytes.Equal(got, rec[off:off+size]) {
			t.Fatalf("%q: found [%d:+%d]; decoded %q, %v", rec, off, size, got, err)
		}
	}
	if agreed < 1000 {
		t.Errorf("only %d of the records were good", agreed)
	}
}
