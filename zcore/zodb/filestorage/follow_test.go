package filestorage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fsformat"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// patience bounds all waits; quiet is how long nothing must happen where nothing may.
const (
	patience = 30 * time.Second
	quiet    = 30 * time.Millisecond
)

// follower collects what Follow reports.
type follower struct {
	testing.TB
	ch   chan zodb.Commit
	done chan error
}

func follow(t testing.TB, stor zodb.Storage, after zodb.Tid) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t, make(chan zodb.Commit), make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.done <- stor.Follow(ctx, after, func(c zodb.Commit) error {
			select {
			case f.ch <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

func (f *follower) want(tid zodb.Tid, oids ...zodb.Oid) {
	f.Helper()
	select {
	case c := <-f.ch:
		if c.Tid != tid || c.Gap != 0 || !slices.Equal(c.Oids, oids) {
			f.Fatalf("got %+v, want %s %v", c, tid, oids)
		}
	case err := <-f.done:
		f.Fatalf("follow ended: %v", err)
	case <-time.After(patience):
		f.Fatalf("commit %s is not reported", tid)
	}
}

func (f *follower) wantNone() {
	f.Helper()
	select {
	case c := <-f.ch:
		f.Fatalf("got %+v, want nothing", c)
	case err := <-f.done:
		f.Fatalf("follow ended: %v", err)
	case <-time.After(quiet):
	}
}

// bytesOf returns the bytes of the transaction that commit writes to b's file, which is left without it.
func bytesOf(t testing.TB, b *goBackend, objs map[zodb.Oid][]byte) (tid zodb.Tid, txn []byte) {
	t.Helper()
	before := b.w.Size()
	data, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, data, 0o666); err != nil {
		t.Fatal(err)
	}
	w, err := fswriter.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tid = b.tid()
	if err := w.Commit(tid, objs); err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	return tid, data[before:]
}

// A transaction that arrives byte by byte, as 'c', then flipped, is seen when it is flipped.
func TestFollowSlowWriter(t *testing.T) {
	b := newGoBackend(t)
	b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
	stor := open(t, b.path, filestorage.Options{})
	f := follow(t, stor, b.w.Last())
	tid, txn := bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record([]byte("x")), 2: storagetest.Record(nil)})
	file, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at := b.w.Size()
	txn[16] = 'c'
	for i := range txn {
		if _, err := file.WriteAt(txn[i:i+1], at+int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.wantNone()
	if _, err := stor.LoadAt(context.Background(), 2, zodb.TidMax); !errors.Is(err, zodb.ErrNoObject) {
		t.Fatalf("an object of an unfinished transaction: %v", err)
	}
	if _, err := file.WriteAt([]byte{' '}, at+16); err != nil {
		t.Fatal(err)
	}
	f.want(tid, 1, 2)
}

// A writer that crashed leaves a tail; the next one truncates it and writes other transactions there.
func TestFollowCrashedWriter(t *testing.T) {
	for _, cut := range []int{1, 10, 22, 23, 60, 100, 0} {
		b := newGoBackend(t)
		b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
		_, txn := bytesOf(t, b, map[zodb.Oid][]byte{1: storagetest.Record(make([]byte, 1000)), 2: storagetest.Record(nil)})
		txn[16] = 'c'
		if cut != 0 {
			txn = txn[:cut]
		}
		stor := open(t, b.path, filestorage.Options{Tick: 5 * time.Millisecond})
		f := follow(t, stor, b.w.Last())
		appendTo(t, b.path, txn)
		f.wantNone()
		late := open(t, b.path, filestorage.Options{}) // one that opens with the tail there
		w, err := fswriter.Open(b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		b.w = w
		for range 3 {
			tid := b.Commit(t, map[zodb.Oid][]byte{3: storagetest.Record(nil)})
			f.want(tid, 3)
		}
		waitHead(t, late, b.w.Last())
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func appendTo(t testing.TB, path string, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		t.Fatal(err)
	}
}

func waitHead(t testing.TB, stor zodb.Storage, tid zodb.Tid) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if head, err := stor.Head(context.Background()); err != nil || head == tid {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("head does not become %s", tid)
		}
	}
}

// Transactions with status 'u' have no records, but Python takes the last one's tid for that of the last transaction.
func TestUndoneStatus(t *testing.T) {
	b := newGoBackend(t)
	first := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("a"))})
	at := b.w.Size()
	undone := b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record([]byte("b"))})
	last := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("c"))})
	patch(t, b.path, at+16, 'u')
	at = b.w.Size()
	end := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("d"))})
	patch(t, b.path, at+16, 'u')
	stor := open(t, b.path, filestorage.Options{})
	if _, err := stor.LoadAt(context.Background(), 2, last); !errors.Is(err, zodb.ErrNoObject) {
		t.Fatal(err)
	}
	f := follow(t, stor, 0)
	f.want(first, 1)
	f.want(undone)
	f.want(last, 1)
	f.want(end)
	waitHead(t, stor, end)
	if rec, err := stor.LoadAt(context.Background(), 1, end); err != nil || rec.Serial != last {
		t.Errorf("load at the end: %s, %v", rec.Serial, err)
	}
}

func patch(t testing.TB, path string, pos int64, b byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{b}, pos); err != nil {
		t.Fatal(err)
	}
}

// The file is replaced twice between two looks at it, while Follow is stuck: no commit is lost that
// is in any file, and where transactions were packed before they could be reported, that is said.
func TestFollowReplaced(t *testing.T) {
	b := newGoBackend(t)
	first := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("1"))})
	stor := open(t, b.path, filestorage.Options{})
	f := follow(t, stor, first)
	ctx := context.Background()
	x, release, err := stor.ExtentAt(ctx, 1, first)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	var want []zodb.Tid
	for range 3 { // Follow is stuck with the first of these until the end of the test
		want = append(want, b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("2"))}))
	}
	for range 2 {
		b.repack(t, false)
		for range 3 {
			want = append(want, b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record([]byte("3"))}))
		}
		waitHead(t, stor, b.w.Last())
	}
	for i, tid := range want {
		f.want(tid, zodb.Oid(1+min(i/3, 1)))
	}
	f.wantNone()

	// All is packed, which is seen only together with the next commit.
	gone := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("4"))})
	f.want(gone, 1)
	old := make([]byte, x.Len)
	if _, err := io.ReadFull(io.NewSectionReader(x.File, x.Off, x.Len), old); err != nil || !bytes.Equal(old, storagetest.Record([]byte("1"))) {
		t.Fatalf("extent in a replaced file: %q, %v", old, err)
	}

	late := open(t, b.path, filestorage.Options{})
	b.repack(t, true)
	last := b.Commit(t, map[zodb.Oid][]byte{7: storagetest.Record(nil)})
	waitHead(t, late, last)
	fl := follow(t, open(t, b.path, filestorage.Options{}), first)
	select {
	case c := <-fl.ch:
		if c.Gap != first || c.Tid != gone || c.Oids != nil {
			t.Fatalf("got %+v, want the gap (%s, %s]", c, first, gone)
		}
	case <-time.After(patience):
		t.Fatal("no gap reported")
	}
	fl.want(last, 7)
	f.want(last, 7)
}

// repack replaces the file by a copy, as a pack does; packed: all transactions become packed ones.
func (b *goBackend) repack(t testing.TB, packed bool) {
	t.Helper()
	data := read(t, b.path)
	for pos := int64(fsformat.MagicLen); packed && pos < int64(len(data)); {
		h, err := fsformat.DecodeTxn(data[pos:])
		if err != nil {
			t.Fatal(err)
		}
		data[pos+16] = 'p'
		pos += h.Len + fsformat.TailLen
	}
	if err := os.WriteFile(b.path+".pack", data, 0o666); err != nil {
		t.Fatal(err)
	}
	b.w.Close()
	if err := errors.Join(os.Rename(b.path, b.path+".old"), os.Rename(b.path+".pack", b.path)); err != nil {
		t.Fatal(err)
	}
	w, err := fswriter.Open(b.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	b.w = w
}

// Following fails at once when what was committed is cut off, and once it has for a while when the tail is damaged.
func TestFollowFails(t *testing.T) {
	for name, harm := range map[string]func(b *goBackend){
		"cut":     func(b *goBackend) { os.Truncate(b.path, b.w.Size()-1) },
		"damaged": func(b *goBackend) { appendTo(t, b.path, make([]byte, 100)) },
	} {
		b := newGoBackend(t)
		tid := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
		stor := open(t, b.path, filestorage.Options{Tick: 5 * time.Millisecond, Grace: 30 * time.Millisecond})
		f := follow(t, stor, tid)
		harm(b)
		select {
		case err := <-f.done:
			var de *zodb.DataError
			if name == "cut" {
				storagetest.WantKind(t, name, err, zodb.KindOtherDatabase)
			} else if !errors.As(err, &de) || de.Pos < b.w.Size()-1 {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s: Follow goes on", name)
		}
	}
}

// The file is away for a while: that is no failure.
func TestFollowMissing(t *testing.T) {
	b := newGoBackend(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
	stor := open(t, b.path, filestorage.Options{Tick: 5 * time.Millisecond, Grace: time.Millisecond})
	f := follow(t, stor, tid)
	if err := os.Rename(b.path, b.path+".away"); err != nil {
		t.Fatal(err)
	}
	f.wantNone()
	f.want(b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record(nil)}), 2) // the writer has it open
	if err := os.Rename(b.path+".away", b.path); err != nil {
		t.Fatal(err)
	}
	f.want(b.Commit(t, map[zodb.Oid][]byte{3: storagetest.Record(nil)}), 3)
}

// A file put in place of ours that does not go on where ours ended is not served.
func TestFollowReplacedByAnother(t *testing.T) {
	for name, other := range map[string]func(b *goBackend, before []byte) []byte{
		"backup": func(_ *goBackend, before []byte) []byte { return before },
		"other": func(*goBackend, []byte) []byte {
			x := newGoBackend(t)
			x.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
			x.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
			x.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
			return read(t, x.path)
		},
	} {
		b := newGoBackend(t)
		b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil), 2: storagetest.Record(nil)})
		before := read(t, b.path)
		tid := b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record(nil)})
		stor := open(t, b.path, filestorage.Options{Tick: 5 * time.Millisecond, Grace: 30 * time.Millisecond})
		f := follow(t, stor, tid)
		data := other(b, before)
		if err := errors.Join(os.WriteFile(b.path+".new", data, 0o666), os.Rename(b.path+".new", b.path)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-f.done:
			t.Logf("%s: %v", name, err)
		case <-time.After(patience):
			t.Errorf("%s: Follow goes on", name)
		}
	}
}
