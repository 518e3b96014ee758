package fswriter

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// That Python reads what this package writes, and that the driver does, is tested with them; here is
// what they cannot tell.

func create(t *testing.T) *Writer {
	t.Helper()
	w, err := Create(filepath.Join(t.TempDir(), "Data.fs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestMisuse(t *testing.T) {
	w := create(t)
	one := map[zodb.Oid][]byte{1: []byte("x")}
	for _, tid := range []zodb.Tid{5, 9} {
		if err := w.Commit(tid, one); err != nil {
			t.Fatal(err)
		}
	}
	size := w.Size()
	for what, err := range map[string]error{
		"tid goes back":           w.Commit(9, one),
		"empty record":            w.Commit(10, map[zodb.Oid][]byte{1: {}}),
		"undo of nothing":         w.Undo(10, 7),
		"undo of what is changed": w.Undo(10, 5),
		"too long":                w.CommitHoles(10, map[zodb.Oid]int64{1: fsformat.MaxPos}),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), w.path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Create(w.path); err == nil {
		t.Error("an existing file is created")
	}
	if st, err := os.Stat(w.path); err != nil || st.Size() != size || w.Size() != size {
		t.Fatalf("size %d, %v; want %d", st.Size(), err, size)
	}
}

// Open cuts an unfinished transaction off and goes on from what is before it.
func TestOpenTruncates(t *testing.T) {
	w := create(t)
	for tid := range zodb.Tid(5) {
		if err := w.Commit(tid+1, map[zodb.Oid][]byte{zodb.Oid(tid): []byte("data")}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	tail := append((&fsformat.TxnHeader{Tid: 6, Len: 500, Status: fsformat.Voted}).AppendTxn(nil), make([]byte, 485)...)
	for _, n := range []int{0, 1, 22, 23, 60, 507, 508} {
		if err := os.WriteFile(w.path, append(bytes.Clone(want), tail[:n]...), 0o666); err != nil {
			t.Fatal(err)
		}
		w2, err := Open(w.path)
		if err != nil {
			t.Fatalf("tail of %d bytes: %v", n, err)
		}
		w2.Close()
		got, err := os.ReadFile(w.path)
		if err != nil || !bytes.Equal(got, want) || w2.Last() != 5 || w2.index.Len() != 5 {
			t.Fatalf("tail of %d bytes: %d bytes are left, last %s, %v", n, len(got), w2.Last(), err)
		}
	}
}

// Holes make a file of any size, with real headers, that takes nearly no space.
func TestHoles(t *testing.T) {
	w := create(t)
	for tid := range zodb.Tid(4) {
		if err := w.CommitHoles(tid+1, map[zodb.Oid]int64{1: 1 << 30, 2: 2 << 30, 3: 1}); err != nil {
			t.Fatal(err)
		}
	}
	w2, err := Open(w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	if w2.Size() != w.Size() || w2.Size() < 12<<30 || w2.Last() != 4 {
		t.Fatalf("size %d, last %s", w2.Size(), w2.Last())
	}
}

func TestIndexFile(t *testing.T) {
	x := fsformat.NewIndex()
	for i := range int64(70000) {
		x.Set(zodb.Oid(i*7919%70000*3), 1000+i<<24)
	}
	var b bytes.Buffer
	if err := fsformat.WriteIndex(&b, x, fsformat.MaxPos); err != nil {
		t.Fatal(err)
	}
	y, end, err := fsformat.ReadIndex(bytes.NewReader(b.Bytes()))
	if err != nil || end != fsformat.MaxPos || y.Len() != x.Len() {
		t.Fatalf("%d objects up to %d, %v", y.Len(), end, err)
	}
	for _, g := range x.Groups() {
		for _, e := range x.Group(g, nil) {
			if y.Get(e.Oid) != e.Pos {
				t.Fatalf("%s is at %d, want %d", e.Oid, y.Get(e.Oid), e.Pos)
			}
		}
	}
	for n := range b.Len() / 19937 {
		if _, _, err := fsformat.ReadIndex(io.LimitReader(bytes.NewReader(b.Bytes()), int64(n)*19937)); err == nil {
			t.Fatalf("an index cut to %d bytes is read", n*19937)
		}
	}
}
