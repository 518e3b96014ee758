package demostorage_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/demostorage"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

func openFile(ctx context.Context, url string) (zodb.Storage, error) {
	return filestorage.Open(ctx, url, filestorage.Options{})
}

func create(t testing.TB, path string) *fswriter.Writer {
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// backend commits into the base until the database is first opened, and into the changes from then on.
type backend struct {
	url    string
	cur    *fswriter.Writer
	change *fswriter.Writer
	last   zodb.Tid
}

func newBackend(t testing.TB) *backend {
	dir := t.TempDir()
	base, changes := filepath.Join(dir, "base.fs"), filepath.Join(dir, "changes.fs")
	b := &backend{
		url: fmt.Sprintf("demo:(file://%s)/(file://%s)", base, changes),
		cur: create(t, base), change: create(t, changes),
	}
	return b
}

func (b *backend) Open(t testing.TB) zodb.Storage {
	b.cur = b.change
	s, err := demostorage.Open(context.Background(), b.url, openFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	b.last = max(b.last+1, zodb.TidFromTime(time.Now()))
	if err := b.cur.Commit(b.last, objs); err != nil {
		t.Fatal(err)
	}
	return b.last
}

func (b *backend) Many() int { return 500 }

func TestStoragetest(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newBackend(t) })
}

// The suite of storages checks what extents hold; here, that there are some, of both files.
func TestExtents(t *testing.T) {
	b := newBackend(t)
	b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("one")), 2: storagetest.Record([]byte("two"))})
	s := b.Open(t)
	defer s.Close()
	last := b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record([]byte("two changed"))})
	zeotest.Eventually(t, "the change is seen", func() bool {
		head, err := s.Head(t.Context())
		return head == last || err != nil
	})
	for oid, file := range map[zodb.Oid]string{1: "base.fs", 2: "changes.fs"} {
		x, release, err := s.(zodb.Extender).ExtentAt(t.Context(), oid, last)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(x.File.Name()) != file {
			t.Errorf("object %s is in %s; want %s", oid, x.File.Name(), file)
		}
		release()
	}
}

// TestPython: loads equal those of a Python DemoStorage over the same two files, at every tid, through
// changes of what is in the base, new objects and undone ones.
func TestPython(t *testing.T) {
	dir := t.TempDir()
	basePath, changesPath := filepath.Join(dir, "base.fs"), filepath.Join(dir, "changes.fs")
	oids := []zodb.Oid{0, 1, 2, 3, 4, 5}
	var tids []zodb.Tid

	srv := zeotest.Start(t, zeotest.Config{Version: 5, Data: basePath})
	py := srv.Client()
	tids = append(tids, py.Burst(9, oids[:3], 50, 0)...)
	py.Close()
	srv.Kill()

	section := fmt.Sprintf("<demostorage 1>\n <filestorage base>\n  path %s\n </filestorage>\n"+
		" <filestorage changes>\n  path %s\n </filestorage>\n</demostorage>\n", basePath, changesPath)
	srv = zeotest.Start(t, zeotest.Config{Version: 5, Section: section})
	py = srv.Client()
	first := py.Burst(1, oids[1:2], 50, 100)[0]
	// Back to what the base has. Python cannot store the object any more after that.
	tids = append(tids, first, py.Undo(first))
	tids = append(tids, py.Burst(12, oids[2:5], 50, 200)...)
	tids = append(tids, py.Undo(tids[len(tids)-1]))
	tids = append(tids, py.Burst(1, oids[2:3], 50, 300)...)

	s, err := demostorage.Open(context.Background(), fmt.Sprintf("demo:(file://%s)/(file://%s)", basePath, changesPath), openFile)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var before []zodb.Tid
	for _, tid := range tids {
		before = append(before, tid, tid+1)
	}
	loads := py.LoadsBefore(oids, before)
	for i, want := range loads {
		oid, at := oids[i/len(before)], before[i%len(before)]-1
		rec, err := s.LoadAt(context.Background(), oid, at)
		switch {
		case oid == 1 && at >= tids[7] && at < first:
			// Python fails here: it looks for the first change, and stumbles over the undone one.
			if err != nil || rec.Serial != tids[7] || want.Err == "" {
				t.Errorf("%s@%s: serial %s, %v; want %s of the base", oid, at, rec.Serial, err, tids[7])
			}
		case want.Err != "":
			if !zodb.IsAbsent(err) {
				t.Errorf("%s@%s: serial %s, error %v; Python has no data (%s)", oid, at, rec.Serial, err, want.Err)
			}
		case err != nil:
			t.Errorf("%s@%s: %v; Python has %s", oid, at, err, want.Tid)
		default:
			end := ""
			if rec.Until != zodb.TidMax {
				end = rec.Until.String()
			}
			if rec.Serial.String() != want.Tid || !bytes.Equal(rec.Data, want.Data) || end != want.End {
				t.Errorf("%s@%s: serial %s until %s; Python has %s until %s", oid, at, rec.Serial, end, want.Tid, want.End)
			}
		}
	}
	if head, err := s.Head(context.Background()); err != nil || head != tids[len(tids)-1] {
		t.Errorf("head %s, %v; want %s", head, err, tids[len(tids)-1])
	}
	var got []zodb.Oid
	if err := s.Oids(context.Background(), tids[len(tids)-1], func(oid zodb.Oid) error {
		got = append(got, oid)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(oids[:5]) {
		t.Errorf("objects %v; want %v", got, oids[:5])
	}
}

// A commit of the changes that is older than the base would change what is past.
func TestChangesBehindBase(t *testing.T) {
	b := newBackend(t)
	last := b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record(nil)})
	s := b.Open(t)
	defer s.Close()
	if err := b.change.Commit(last-5, map[zodb.Oid][]byte{1: storagetest.Record([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	err := s.Follow(t.Context(), last, func(c zodb.Commit) error { return fmt.Errorf("reported %s", c.Tid) })
	if err == nil || !strings.Contains(err.Error(), "older than the base") {
		t.Errorf("Follow: %v", err)
	}
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct{ url, base, changes string }{
		{"demo:(file:///a)/(file:///b)", "file:///a", "file:///b"},
		{"demo:(demo:(zeo://h:1)/(file:///b))/(file:///c(1))", "demo:(zeo://h:1)/(file:///b)", "file:///c(1)"},
		{"demo:(a)", "", ""}, {"demo:", "", ""}, {"demo:()/()", "", ""}, {"demo:(a)(b)", "", ""},
		{"demo:(a)/(b", "", ""}, {"demo:(a)/(b)c", "", ""}, {"file:///a", "", ""}, {"demo:)a(/(b)", "", ""},
	} {
		base, changes, err := demostorage.Split(tt.url)
		if base != tt.base || changes != tt.changes || (err != nil) != (tt.base == "") {
			t.Errorf("%s: %q, %q, %v", tt.url, base, changes, err)
		}
		if err != nil && !strings.Contains(err.Error(), "demo:(base URL)/(changes URL)") {
			t.Errorf("%s: error does not say how it is written: %v", tt.url, err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	create(t, filepath.Join(dir, "a.fs"))
	for url, want := range map[string]string{
		fmt.Sprintf("demo:(file://%s/none.fs)/(file://%s/a.fs)", dir, dir): "demo base: ",
		fmt.Sprintf("demo:(file://%s/a.fs)/(file://%s/none.fs)", dir, dir): "demo changes: ",
	} {
		_, err := demostorage.Open(context.Background(), url, openFile)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "none.fs") {
			t.Errorf("%s: %v; want %q and the file", url, err, want)
		}
	}
}

// Case db/24, for both parts: one is written over in place.
func TestPartWrittenOver(t *testing.T) {
	for _, part := range []string{"base", "changes"} {
		b := newBackend(t)
		b.Commit(t, map[zodb.Oid][]byte{1: storagetest.Record([]byte("one"))})
		s := b.Open(t)
		defer s.Close()
		last := b.Commit(t, map[zodb.Oid][]byte{2: storagetest.Record([]byte("two"))})
		ended := make(chan error, 1)
		reported := make(chan zodb.Tid, 10)
		go func() {
			ended <- s.Follow(context.Background(), 0, func(c zodb.Commit) error { reported <- c.Tid; return nil })
		}()
		for tid := zodb.Tid(0); tid != last; {
			select {
			case tid = <-reported:
			case <-time.After(storagetest.Patience):
				t.Fatal("the changes are not reported")
			}
		}
		base, changes, err := demostorage.Split(b.url)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(map[string]string{"base": base, "changes": changes}[part], "file://")
		other := filepath.Join(t.TempDir(), "other.fs")
		w := create(t, other)
		for range 3 {
			if err := w.Commit(max(w.Last()+1, last+1), map[zodb.Oid][]byte{1: storagetest.Record([]byte("other"))}); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(other)
		if err == nil {
			err = os.WriteFile(path, data, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			storagetest.WantKind(t, part+": Follow", err, zodb.KindOtherDatabase)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %q does not name %s", part, err, path)
			}
		case <-time.After(storagetest.Patience):
			t.Errorf("%s: Follow goes on", part)
		}
	}
}
