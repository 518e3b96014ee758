package filestorage_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// What is not a FileStorage is refused in one line that says what to do.
func TestOpenRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", "")
	write("short", "FS")
	write("text", "hello, world\n")
	write("zip", "PK\x03\x04")
	write("damaged", "FS30"+strings.Repeat("\xff", 100))
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ url, want string }{
		{"file://" + dir + "/missing", "there is no such file"},
		{"file://" + dir, "this is a directory: give the path of the Data.fs in it"},
		{"file://" + dir + "/empty", "the file is empty"},
		{"file://" + dir + "/short", "not a FileStorage, it is too short"},
		{"file://" + dir + "/text", `not a FileStorage, it begins with "hell"`},
		{"file://" + dir + "/zip", `not a FileStorage`},
		{"file://" + dir + "/fifo", "not a regular file"},
		{"file://" + dir + "/damaged", "at position 4"},
		{"file://" + dir + "/text?x=y", `unknown parameter "x"`},
		{"file:relative/Data.fs", "write file:///path/Data.fs"},
		{"file://host/Data.fs", "write file:///path/Data.fs"},
		{"zeo://localhost:1", "write file:///path/Data.fs"},
	} {
		stor, err := filestorage.Open(context.Background(), tt.url, filestorage.Options{})
		if err == nil {
			stor.Close()
			t.Errorf("%s: opened", tt.url)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, tt.want) || !strings.HasPrefix(msg, tt.url) || strings.Contains(msg, "\n") {
			t.Errorf("%s: error %q, want one line with %q", tt.url, msg, tt.want)
		}
	}
}

// A database without transactions is one.
func TestOpenNew(t *testing.T) {
	b := newGoBackend(t)
	stor := b.Open(t)
	if head, err := stor.Head(context.Background()); head != 0 || err != nil {
		t.Fatalf("head %s, %v", head, err)
	}
	if _, err := stor.LoadAt(context.Background(), 0, zodb.TidMax); !errors.Is(err, zodb.ErrNoObject) {
		t.Fatal(err)
	}
}

func TestURLEscapes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a b%20c?d#e", "plain"} {
		w, err := fswriter.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		open(t, filepath.Join(dir, name), filestorage.Options{})
	}
	stor, err := filestorage.Open(context.Background(), "file://"+dir+"/%70lain", filestorage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stor.Close()
}

// fill writes n transactions that each change two of 40 objects.
func fill(t testing.TB, b *goBackend, n int) {
	for i := range n {
		b.Commit(t, map[zodb.Oid][]byte{
			zodb.Oid(i % 40):             storagetest.Record([]byte{byte(i)}),
			zodb.Oid(i%40) | 0x123450000: storagetest.Record([]byte{byte(i), 1}),
		})
	}
}

// dump reads all objects at some moments; two databases with equal dumps answer alike.
func dump(t testing.TB, stor zodb.Storage) string {
	t.Helper()
	var out strings.Builder
	ctx := context.Background()
	head, err := stor.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString(head.String())
	for _, at := range []zodb.Tid{head, head - 1, head - 1000000} {
		err := stor.(zodb.Lister).Oids(ctx, at, func(oid zodb.Oid) error {
			rec, err := stor.LoadAt(ctx, oid, at)
			out.WriteString(oid.String() + rec.Serial.String() + rec.Until.String() + string(rec.Data))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// An index is used when it is right, and never makes answers differ when it is not.
func TestIndex(t *testing.T) {
	b := newGoBackend(t)
	fill(t, b, 100)
	index := b.path + ".index"
	save := func() []byte {
		t.Helper()
		if err := b.w.WriteIndex(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(index)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	early := save()
	fill(t, b, 60)
	late := save()
	fill(t, b, 7) // not in any index
	want := dump(t, open(t, b.path, filestorage.Options{NoIndex: true}))

	other := newGoBackend(t)
	fill(t, other, 300)
	if err := other.w.WriteIndex(); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(other.path + ".index")
	if err != nil {
		t.Fatal(err)
	}
	flip := func(data []byte, i int) []byte {
		data = bytes.Clone(data)
		data[i] ^= 4
		return data
	}
	for _, tt := range []struct {
		name string
		data []byte
		used bool
	}{
		{"right", late, true},
		{"behind", early, true},
		{"none", nil, false},
		{"empty", []byte{}, false},
		{"cut", late[:len(late)/2], false},
		{"without end", late[:len(late)-4], false},
		{"of another database", foreign, false},
		{"garbage", []byte("\x80\x03}q\x00.hello"), false},
		{"huge string", []byte("\x80\x03K\xff.\x80\x03C\x06aaaaaaB\xff\xff\xff\xff"), false},
		{"wrong end", flip(late, 4), false},
		{"wrong positions", flip(flip(late, len(late)-10), len(late)-16), false},
	} {
		os.Remove(index)
		if tt.data != nil {
			if err := os.WriteFile(index, tt.data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		stor := open(t, b.path, filestorage.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if got := dump(t, stor); got != want {
			t.Errorf("index %s: other answers than without", tt.name)
		}
		if refused := strings.Contains(log.String(), "index is not used"); refused != (!tt.used && tt.data != nil) {
			t.Errorf("index %s: log %q", tt.name, log.String())
		}
	}
}

// A compressed record is expanded, and has no extent.
func TestCompressed(t *testing.T) {
	plain := storagetest.Record(bytes.Repeat([]byte("abc"), 100000))
	var z bytes.Buffer
	z.WriteString(".z")
	zw := zlib.NewWriter(&z)
	zw.Write(plain)
	zw.Close()
	b := newGoBackend(t)
	ctx := context.Background()
	tid := b.Commit(t, map[zodb.Oid][]byte{1: z.Bytes(), 2: z.Bytes()[:200], 3: plain})
	stor := open(t, b.path, filestorage.Options{})
	rec, err := stor.LoadAt(ctx, 1, tid)
	if err != nil || !bytes.Equal(rec.Data, plain) {
		t.Fatalf("%d bytes, %v", len(rec.Data), err)
	}
	if _, _, err := stor.ExtentAt(ctx, 1, tid); !errors.Is(err, zodb.ErrNoExtent) {
		t.Fatal(err)
	}
	var de *zodb.DataError
	if _, err := stor.LoadAt(ctx, 2, tid); !errors.As(err, &de) || de.Pos <= 0 || de.Oid != 2 || de.Serial != tid {
		t.Fatal(err)
	}
	// An extent stays readable after Close, until it is released.
	x, release, err := stor.ExtentAt(ctx, 3, tid)
	if err != nil {
		t.Fatal(err)
	}
	stor.Close()
	got := make([]byte, x.Len)
	if _, err := io.ReadFull(io.NewSectionReader(x.File, x.Off, x.Len), got); err != nil || !bytes.Equal(got, plain) {
		t.Fatal(err)
	}
	release()
	if _, err := x.File.ReadAt(got, x.Off); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("after release: %v", err)
	}
}

// Opening and closing leaves no goroutine and no descriptor.
func TestNoLeaks(t *testing.T) {
	b := newGoBackend(t)
	fill(t, b, 10)
	fds := func() int {
		l, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	cycle := func() {
		stor, err := filestorage.Open(context.Background(), "file://"+b.path, filestorage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- stor.Follow(ctx, 0, func(zodb.Commit) error { return nil }) }()
		b.repack(t, false)
		waitHead(t, stor, b.w.Last())
		stor.Close()
		<-done
		cancel()
	}
	cycle() // whatever is made once
	goroutines, files := runtime.NumGoroutine(), fds()
	const n = 20
	for range n {
		cycle()
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines || fds() > files; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines and %d descriptors, after %d cycles %d and %d", goroutines, files, n, runtime.NumGoroutine(), fds())
		}
	}
}
