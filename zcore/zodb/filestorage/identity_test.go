package filestorage_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// futures makes two files of one past, whose records have the same sizes in both. Each object's data begins with the name
// of the file. b has the first one.
func futures(t *testing.T, more int) (b *goBackend, past, two []byte) {
	b = newGoBackend(t)
	b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("past")), 2: storagetest.Record(filled("past"))})
	past = read(t, b.path)
	b2 := newGoBackend(t)
	if err := os.WriteFile(b2.path, past, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		b    *goBackend
		name string
		n    int
	}{{b, "one", 4}, {b2, "two", 4 + more}} {
		w, err := fswriter.Open(x.b.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		x.b.w = w
		for i := range x.n {
			x.b.Commit(t, map[zodb.Oid][]byte{zodb.Oid(1 + i%2): storagetest.Record(filled(x.name))})
		}
	}
	return b, past, read(t, b2.path)
}

func filled(name string) []byte { return bytes.Repeat([]byte(name+" "), 400)[:400] }

// Case db/24: the file is written over in place, as `cp` of a backup does.
func TestWrittenOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		more  int // commits that the other future is longer
		write func(t *testing.T, path string, past, two []byte)
	}{
		{"equal", 0, func(t *testing.T, path string, _, two []byte) { cp(t, path, two) }},
		{"equal, not cut before", 0, func(t *testing.T, path string, _, two []byte) { over(t, path, two) }},
		{"larger", 3, func(t *testing.T, path string, _, two []byte) { cp(t, path, two) }},
		{"larger, not cut before", 3, func(t *testing.T, path string, _, two []byte) { over(t, path, two) }},
		{"smaller", -2, func(t *testing.T, path string, _, two []byte) { cp(t, path, two) }},
		{"smaller, the end stays", -2, func(t *testing.T, path string, _, two []byte) { over(t, path, two) }},
		{"backup", 0, func(t *testing.T, path string, past, _ []byte) { cp(t, path, past) }},
		{"backup, grown again", 3, func(t *testing.T, path string, past, two []byte) { cp(t, path, past); cp(t, path, two) }},
		{"emptied", 0, func(t *testing.T, path string, _, _ []byte) { cp(t, path, nil) }},
		{"zeros", 0, func(t *testing.T, path string, _, two []byte) { over(t, path, make([]byte, len(two))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, past, two := futures(t, c.more)
			stor := open(t, b.path, filestorage.Options{})
			last := b.w.Last()
			f := follow(t, stor, last)
			ctx := context.Background()
			x, release, err := stor.ExtentAt(ctx, 1, last)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			if err := x.Check(); err != nil {
				t.Fatal(err)
			}
			c.write(t, b.path, past, two)
			// at once, before anybody has noticed
			if rec, err := stor.LoadAt(ctx, 1, last); zodb.KindOf(err) != zodb.KindOtherDatabase {
				t.Errorf("a load gives %.20q, %v", rec.Data, err)
			}
			storagetest.WantKind(t, "an extent handed out before", x.Check(), zodb.KindOtherDatabase)
			_, _, err = stor.ExtentAt(ctx, 1, last)
			storagetest.WantKind(t, "ExtentAt", err, zodb.KindOtherDatabase)
			_, _, err = stor.SerialAt(ctx, 2, last)
			storagetest.WantKind(t, "SerialAt", err, zodb.KindOtherDatabase)
			stor.LoadBatch(ctx, []zodb.Oid{1, 2}, last, func(_ int, _ zodb.Record, err error) error {
				storagetest.WantKind(t, "LoadBatch", err, zodb.KindOtherDatabase)
				return nil
			})
			select {
			case err := <-f.done:
				storagetest.WantKind(t, "Follow", err, zodb.KindOtherDatabase)
				for _, want := range []string{b.path, "expected transaction ", "found "} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not tell %q", err, want)
					}
				}
			case com := <-f.ch:
				t.Errorf("commit %v is reported", com)
			case <-time.After(patience):
				t.Error("Follow goes on")
			}
		})
	}
}

// cp writes as cp does: it empties the file first.
func cp(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// over writes from the beginning, as `rsync --inplace` does, and leaves what is behind that.
func over(t testing.TB, path string, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
}

// Loads that are under way while the file is written over: no byte of the other future is ever given out.
func TestWrittenOverInFlight(t *testing.T) {
	for range 20 {
		b, _, two := futures(t, 0)
		stor := open(t, b.path, filestorage.Options{})
		last := b.w.Last()
		ctx := context.Background()
		var wg sync.WaitGroup
		var loads atomic.Int64
		check := func(how string, data []byte, err error) bool {
			loads.Add(1)
			if err == nil && !bytes.Contains(data, []byte("one one")) {
				t.Errorf("%s gives %.60q", how, data)
			}
			return err == nil
		}
		wg.Go(func() {
			for {
				rec, err := stor.LoadAt(ctx, 1, last)
				if !check("LoadAt", rec.Data, err) {
					return
				}
			}
		})
		wg.Go(func() {
			for {
				ok := true
				stor.LoadBatch(ctx, []zodb.Oid{2, 1}, last, func(_ int, rec zodb.Record, err error) error {
					ok = check("LoadBatch", rec.Data, err) && ok
					return nil
				})
				if !ok {
					return
				}
			}
		})
		wg.Go(func() {
			for {
				x, release, err := stor.ExtentAt(ctx, 2, last)
				if err != nil {
					return
				}
				data := make([]byte, x.Len)
				_, err = x.File.ReadAt(data, x.Off)
				if bad := x.Check(); bad != nil {
					err = bad
				}
				release()
				if !check("ExtentAt", data, err) {
					return
				}
			}
		})
		for loads.Load() < 100 {
			time.Sleep(time.Microsecond)
		}
		over(t, b.path, two)
		wg.Wait()
	}
}

// A copy that is brought up to date in place, cut in the middle of a transaction at times, is the same database.
func TestWarmCopy(t *testing.T) {
	src := newGoBackend(t)
	src.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("0"))})
	path := t.TempDir() + "/copy.fs"
	cp(t, path, read(t, src.path))
	stor := open(t, path, filestorage.Options{})
	f := follow(t, stor, src.w.Last())
	for i := range 30 {
		tid := src.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled(fmt.Sprint(i))), 2: storagetest.Record(nil)})
		data := read(t, src.path)
		if i%3 == 0 {
			over(t, path, data[:len(data)-1-i])
		}
		over(t, path, data)
		f.want(tid, 1, 2)
	}
}

// Case db/15: a writer was killed in the middle of a commit, and the next one cuts off what there is of that. It gives the tid
// as that of the last transaction, so head must reach it: for a server that was there before, and one that came later.
func TestKilledInCommit(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(txn []byte) []byte
		told bool
	}{
		{"voted", func(txn []byte) []byte { txn[16] = 'c'; return txn }, true},
		{"half", func(txn []byte) []byte { txn[16] = 'c'; return txn[:len(txn)-100] }, true},
		{"header", func(txn []byte) []byte { return txn[:23] }, true},
		{"nostatus", func(txn []byte) []byte { return txn[:15] }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newGoBackend(t)
			first := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("1"))})
			tid, txn := bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record(filled("2"))})
			txn = c.cut(txn)
			appendTo(t, b.path, txn)
			before := open(t, b.path, filestorage.Options{})
			f := follow(t, before, first)
			f.wantNone()
			cutOff(t, b.path, "0", txn)
			want := first
			if c.told {
				want = tid
				f.want(tid)
			} else {
				f.wantNone()
			}
			waitHead(t, before, want)
			after := open(t, b.path, filestorage.Options{})
			waitHead(t, after, want)
			f2 := follow(t, after, want)
			if rec, err := after.LoadAt(context.Background(), 1, tid); err != nil || rec.Serial != first {
				t.Errorf("load at the tid cut off: %s, %v", rec.Serial, err)
			}
			next := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("3"))})
			f.want(next, 1)
			f2.want(next, 1)

			// once more, and opened twice after that: the second time Python tells the last transaction
			tid, txn = bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record(filled("4"))})
			cutOff(t, b.path, "1", txn)
			f.want(tid)
			now := time.Now().Add(time.Second)
			cp(t, b.path+".lock", nil)
			if err := os.Chtimes(b.path+".lock", now, now); err != nil {
				t.Fatal(err)
			}
			waitHead(t, open(t, b.path, filestorage.Options{}), next)
		})
	}
}

// cutOff does what Python does about the end of a file that is no whole transaction.
func cutOff(t *testing.T, path, n string, txn []byte) {
	t.Helper()
	cp(t, path+".tr"+n, txn)
	data := read(t, path)
	if rest, had := bytes.CutSuffix(data, txn); had {
		if err := os.Truncate(path, int64(len(rest))); err != nil {
			t.Fatal(err)
		}
	}
}

// What was cut off another file, or earlier, is not taken for the last transaction.
func TestCutOffElsewhere(t *testing.T) {
	b := newGoBackend(t)
	b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("1"))})
	early, txn := bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record(filled("2"))})
	last := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("3"))})
	cp(t, b.path+".tr0", txn)
	waitHead(t, open(t, b.path, filestorage.Options{}), last)
	binary.BigEndian.PutUint64(txn, uint64(max(early, last)+1000)) // its records are of another position
	cp(t, b.path+".tr0", txn)
	waitHead(t, open(t, b.path, filestorage.Options{}), last)
}

// The tid cut off was told; nothing may come before it.
func TestCutOffOvertaken(t *testing.T) {
	b := newGoBackend(t)
	first := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("1"))})
	_, txn := bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record(filled("2"))})
	tid := first + 1<<40
	binary.BigEndian.PutUint64(txn, uint64(tid))
	stor := open(t, b.path, filestorage.Options{})
	f := follow(t, stor, first)
	cutOff(t, b.path, "0", txn)
	f.want(tid)
	b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(filled("3"))})
	select {
	case err := <-f.done:
		storagetest.WantKind(t, "Follow", err, zodb.KindOtherDatabase)
	case <-time.After(patience):
		t.Error("Follow goes on")
	}
}
