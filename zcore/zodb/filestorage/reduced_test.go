package filestorage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// db/05: the last transaction of a file has a lower tid than the one before. It is served as Python serves it, with one
// warning: the last transaction is head, what has a later tid is not there yet, and comes with the first commit after it.
func TestTimeStampReduction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rec := func(s string) []byte { return storagetest.Record([]byte(s)) }
	t1 := zodb.TidFromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	t2, t3, t4, reduced := t1+100, t1+200, t1+300, t1+50
	for _, c := range []struct {
		tid  zodb.Tid
		objs map[zodb.Oid][]byte
	}{{t1, map[zodb.Oid][]byte{1: rec("one"), 3: rec("x1")}}, {t2, map[zodb.Oid][]byte{2: rec("G"), 3: rec("x2")}}, {t3, map[zodb.Oid][]byte{1: rec("two")}}} {
		if err := w.Commit(c.tid, c.objs); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, binary.BigEndian.AppendUint64(nil, uint64(t3)), binary.BigEndian.AppendUint64(nil, uint64(reduced)))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	s, err := Open(context.Background(), "file://"+path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := strings.Count(log.String(), "time-stamp reduction"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), storagetest.Patience)
	defer cancel()
	if head, err := s.Head(ctx); err != nil || head != reduced {
		t.Errorf("head %s, %v; want %s", head, err, reduced)
	}
	check := func(oid zodb.Oid, at zodb.Tid, want string) {
		t.Helper()
		got, err := s.LoadAt(ctx, oid, at)
		if want == "" && !errors.Is(err, zodb.ErrNoData) || want != "" && (err != nil || !bytes.Equal(got.Data, rec(want))) {
			t.Errorf("%s@%s: %q, %v; want %q", oid, at, got.Data, err, want)
		}
	}
	check(1, t1, "one")
	check(1, reduced, "two")
	check(2, reduced, "")
	check(3, reduced, "x1")
	check(2, t2, "G")
	check(3, t2, "x2")

	// Who follows from before is told of a gap; so is everybody of the first commit past what came before its time.
	commits := make(chan zodb.Commit, 10)
	go s.Follow(ctx, t1-1, func(c zodb.Commit) error { commits <- c; return nil })
	want := func(tid, gap zodb.Tid) {
		t.Helper()
		select {
		case c := <-commits:
			if c.Tid != tid || c.Gap != gap {
				t.Fatalf("commit %+v; want %s, gap from %s", c, tid, gap)
			}
		case <-ctx.Done():
			t.Fatalf("no commit %s", tid)
		}
	}
	want(reduced, t1-1)
	add, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer add.Close()
	for _, tid := range []zodb.Tid{t4, t4 + 1} {
		b = appendTxn(t, b, tid, rec("y"))
		if _, err := add.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	want(t4, reduced)
	want(t4+1, 0)
	check(2, t4, "G")
	check(3, t4, "x2")
}

// appendTxn appends a transaction that writes a new object.
func appendTxn(t *testing.T, b []byte, tid zodb.Tid, data []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "one.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Commit(tid, map[zodb.Oid][]byte{zodb.Oid(tid): data}); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	one = one[4:]
	// The record says where its transaction begins.
	one = bytes.Replace(one, binary.BigEndian.AppendUint64(nil, 4), binary.BigEndian.AppendUint64(nil, uint64(len(b))), 1)
	return append(bytes.Clone(b), one...)
}
