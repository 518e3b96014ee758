package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// world is a served database.
type world struct {
	stor *memstorage.Store
	core *zcore.Core
	fs   *tree.FS
	in   inProcess
	man  *treetest.Manifest
}

// serve makes the usual database and a tree over it, followed until the test ends.
func serve(t *testing.T, opts tree.Options) *world {
	t.Helper()
	w := &world{stor: memstorage.New()}
	db, err := fixture.Make(w.stor)
	if err != nil {
		t.Fatal(err)
	}
	if w.core, err = zcore.New(t.Context(), w.stor, zcore.Options{PinTimeout: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	w.fs = tree.New(w.core, opts)
	w.in = inProcess{w.fs, tree.Caller{Domain: w.core.Host()}}
	w.man = fixture.Manifest(db, w.core.URL(), "1.5", opts.Debug)

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.core.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

func TestSuite(t *testing.T) {
	w := serve(t, tree.Options{})
	treetest.Run(t, &treetest.Env{FS: w.in, Manifest: w.man})
}

func TestSuiteDebug(t *testing.T) {
	w := serve(t, tree.Options{Debug: true})
	treetest.Run(t, &treetest.Env{FS: w.in, Manifest: w.man})
}

// Behind 9P streams are padded.
func TestSuitePadded(t *testing.T) {
	w := serve(t, tree.Options{BlankEvery: 10 * time.Millisecond})
	w.in.who.Padded = true
	treetest.Run(t, &treetest.Env{FS: w.in, Manifest: w.man})
}

func TestSuiteWatch9(t *testing.T) {
	w := serve(t, tree.Options{BlankEvery: 10 * time.Millisecond})
	treetest.Run(t, &treetest.Env{FS: w.in, Manifest: w.man, Watch: "head/watch9", BaseWatch: true})
}

// The suite must be able to fail: a manifest that is wrong in one place is noticed by the right check.
func TestSuiteFails(t *testing.T) {
	for check, spoil := range map[string]func(m *treetest.Manifest){
		"control files":             func(m *treetest.Manifest) { m.ZURL += "x" },
		"head/at":                   func(m *treetest.Manifest) { m.Head-- },
		"bad names":                 func(m *treetest.Manifest) { m.NotFiles = append(m.NotFiles, m.Files[0].Oid) },
		"attributes of bigfiles":    func(m *treetest.Manifest) { m.Files[0].Revs[1].Size++ },
		"content of head":           func(m *treetest.Manifest) { spoilLast(m, &m.Files[0]) },
		"content of every revision": func(m *treetest.Manifest) { m.Files[0].Revs[0].Blocks[0] = "x" },
		"layout":                    func(m *treetest.Manifest) { m.Debug = true },
	} {
		w := serve(t, tree.Options{})
		spoil(w.man)
		err := treetest.All(&treetest.Env{FS: w.in, Manifest: w.man})
		if err == nil || !strings.Contains(err.Error(), check+": ") {
			t.Errorf("%s: not noticed: %v", check, err)
		}
	}
}

func spoilLast(_ *treetest.Manifest, f *treetest.BigFile) {
	r := f.Revs[len(f.Revs)-1]
	r.Blocks[len(r.Blocks)-1] = "x"
}

// A server that has shown many revisions has not grown, and never gives a number out twice.
func TestRevisionsAreForgotten(t *testing.T) {
	w := serve(t, tree.Options{})
	oid := w.man.Files[0].Oid.String()
	seen := make(map[uint64]string)
	for i := range 2000 {
		path := "@" + (w.man.Head - zodb.Tid(i)).String()
		for _, p := range []string{path, path + "/at", path + "/bigfile", path + "/bigfile/" + oid} {
			st, err := w.in.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[st.Ino]; ok {
				t.Fatalf("%s has the number %d that %s had", p, st.Ino, other)
			}
			seen[st.Ino] = p
		}
	}
	if n := stat(t, w, "RevHead"); n != 0 {
		t.Errorf("%d revisions are still known", n)
	}

	// what is in use stays, and so do its parents
	f, err := w.in.Open("@"+w.man.Head.String()+"/bigfile/"+oid, false)
	if err != nil {
		t.Fatal(err)
	}
	if n := stat(t, w, "RevHead"); n != 1 {
		t.Errorf("RevHead is %d with a file open, want 1", n)
	}
	f.Close()
	if n := stat(t, w, "RevHead"); n != 0 {
		t.Errorf("RevHead is %d after close, want 0", n)
	}
}

// Many clients look up and drop the same revision: they agree on its number while any holds it.
func TestLookupRace(t *testing.T) {
	w := serve(t, tree.Options{})
	path := "@" + w.man.Head.String() + "/bigfile/" + w.man.Files[0].Oid.String()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				a, err1 := w.in.walk(path)
				b, err2 := w.in.walk(path)
				if err := errors.Join(err1, err2); err != nil {
					t.Error(err)
					return
				}
				if a.ID() != b.ID() {
					t.Errorf("one file, two numbers: %d, %d", a.ID(), b.ID())
				}
				a.Release()
				b.Release()
			}
		})
	}
	wg.Wait()
	if n := stat(t, w, "RevHead"); n != 0 {
		t.Errorf("%d revisions are still known", n)
	}
}

func TestNumbersDifferBetweenInstances(t *testing.T) {
	a, b := serve(t, tree.Options{}).fs.Root().ID(), serve(t, tree.Options{}).fs.Root().ID()
	if a == b || a >= 1<<63 || b >= 1<<63 {
		t.Errorf("roots have numbers %d and %d", a, b)
	}
}

func TestPaddedStream(t *testing.T) {
	w := serve(t, tree.Options{BlankEvery: time.Hour})
	w.in.who.Padded = true
	if _, err := w.in.Stat("head/bigfile/" + w.man.Files[0].Oid.String()); err != nil {
		t.Fatal(err)
	}
	f, err := w.in.Open("head/watch", true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(writer{f}, "1 watch %s @%s\n", w.man.Files[0].Oid, w.man.Head)

	// a line is delivered in whatever pieces it is asked for, and the last one is padded
	got := ""
	for range 4 {
		p := make([]byte, 2)
		n, err := f.ReadAt(p, 0)
		if n != 2 {
			t.Fatalf("read of 2 bytes: %d, %v", n, err)
		}
		got += string(p)
		if strings.HasSuffix(got, "\n") {
			break
		}
	}
	if strings.TrimRight(got, "\n") != "1 ok" {
		t.Fatalf("got %q", got)
	}

	// a read that is cancelled takes nothing, and is answered by a blank
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		p := make([]byte, 100)
		n, err := read(ctx, f.(file).h, p, 0)
		if n != 100 || strings.Trim(string(p), "\n") != "" {
			err = fmt.Errorf("cancelled read: %d bytes %q, %v", n, p, err)
		}
		done <- err
	}()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	io.WriteString(writer{f}, "3 bye\n")
	if n, err := f.ReadAt(make([]byte, 100), 0); n != 0 || err != io.EOF {
		t.Fatalf("after bye: %d bytes, %v; want the end", n, err)
	}
}

func TestBlankLines(t *testing.T) {
	w := serve(t, tree.Options{BlankEvery: 20 * time.Millisecond})
	f, err := w.in.Open("head/watch9", true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 64)
	if n, err := f.ReadAt(p, 0); n != 64 || strings.Trim(string(p), "\n") != "" {
		t.Fatalf("read without a message: %d bytes %q, %v; want blank lines", n, p, err)
	}
}

// A watch file that is opened for reading alone is empty: programs that read whole trees come by.
func TestWatchReadOnly(t *testing.T) {
	w := serve(t, tree.Options{})
	for _, name := range []string{"head/watch", "head/watch9"} {
		f, err := w.in.Open(name, false)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.ReadAt(make([]byte, 10), 0); n != 0 || err != io.EOF {
			t.Errorf("%s: %d bytes, %v; want EOF", name, n, err)
		}
		if n := w.core.Stats().WatchLink; n != 0 {
			t.Errorf("%s: %d links", name, n)
		}
		f.Close()
	}
}

// An interrupted read of a stream is EINTR.
func TestInterrupt(t *testing.T) {
	w := serve(t, tree.Options{Debug: true})
	for _, name := range []string{"head/watch", "head/watch9", ".wcfs/debug/zhead"} {
		f, err := w.in.Open(name, strings.HasPrefix(name, "head/"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Millisecond, cancel)
		if n, err := read(ctx, f.(file).h, make([]byte, 10), 0); n != 0 || !errors.Is(err, syscall.EINTR) {
			t.Errorf("%s: interrupted read: %d bytes, %v; want EINTR", name, n, err)
		}
		f.Close()
	}
}

// The head moves: head/at, its mtime and zhead follow, a file created later appears.
func TestHeadMoves(t *testing.T) {
	w := serve(t, tree.Options{Debug: true})
	z, err := w.in.OpenStream(".wcfs/debug/zhead", false)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	at, err := w.in.Open("head/at", false)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	tid := w.man.Head + 0x10000
	if err := w.stor.Commit(tid, map[zodb.Oid][]byte{77777: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 17)
	if _, err := io.ReadFull(z, line); err != nil || string(line) != tid.String()+"\n" {
		t.Fatalf("zhead: %q, %v; want %s", line, err, tid)
	}
	text := make([]byte, 16)
	if n, err := at.ReadAt(text, 0); n != 16 || string(text) != tid.String() {
		t.Fatalf("head/at through a file opened before: %q, %v; want %s", text[:n], err, tid)
	}
	w.man.Tids, w.man.Head = append(w.man.Tids, tid), tid
	treetest.Run(t, &treetest.Env{FS: w.in, Manifest: w.man})
}

// In EIO mode nothing is answered, whatever was open before.
func TestFailed(t *testing.T) {
	w := serve(t, tree.Options{})
	open := make(map[string]treetest.File)
	for _, name := range []string{"head/at", ".wcfs/zurl", "head/bigfile/" + w.man.Files[0].Oid.String(), "head/watch"} {
		f, err := w.in.Open(name, false)
		if err != nil {
			t.Fatal(err)
		}
		open[name] = f
		defer f.Close()
	}
	w.stor.FailFollow(errors.New("broken on purpose"))
	select {
	case <-w.core.Failed():
	case <-time.After(wait.Patience):
		t.Fatal("the core did not notice that following fails")
	}
	for name, f := range open {
		if _, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: read in EIO mode: %v; want ENOTCONN", name, err)
		}
		if _, err := w.in.Stat(name); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: stat in EIO mode: %v; want ENOTCONN", name, err)
		}
	}
}

type writer struct{ f io.WriterAt }

func (w writer) Write(p []byte) (int, error) { return w.f.WriteAt(p, 0) }

func stat(t *testing.T, w *world, name string) int64 {
	t.Helper()
	for _, s := range w.fs.Stats() {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}
