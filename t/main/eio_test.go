package main_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// With --on-file-change=mount a bigfile that becomes another one while it is served ends all service: rather an error than stale data.
// The mount stays, so that nobody writes below it, and the process goes on until it is told to end.
func TestEIOMode(t *testing.T) {
	path, mnt, sock := filepath.Join(t.TempDir(), "Data.fs"), t.TempDir(), filepath.Join(t.TempDir(), "s")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	db, err := fixture.Make(w)
	if err != nil {
		t.Fatal(err)
	}
	oid := db.Files(db.Head())[0]
	p := serve(t, mnt, "serve", "--on-file-change=mount", "--mount", mnt, "--9p", "unix:"+sock, "file://"+path)
	name := filepath.Join(mnt, "head/bigfile", oid.String())
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	tx := db.Begin()
	tx.ResetFile(oid, 4096)
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	served.Eventually(t, "ENOTCONN", func() bool {
		_, err := os.Stat(name)
		return errors.Is(err, syscall.ENOTCONN)
	})
	if took := time.Since(began); took > promptly() {
		t.Errorf("it took %v", took)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("read of an open file: %v, want ENOTCONN", err)
	}
	if _, err := os.ReadFile(filepath.Join(mnt, ".wcfs/zurl")); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("read of .wcfs/zurl: %v, want ENOTCONN", err)
	}
	if _, stderr, code := run(t, "cat", "unix:"+sock, "head/at"); code != 1 || !strings.Contains(stderr, "input/output error") {
		t.Errorf("over 9P: exit %d, %s; want an I/O error", code, stderr)
	}
	if mountOf(t, mnt) == nil {
		t.Error("the mount entry is gone")
	}
	for _, want := range []string{"zwatcher failed", "switching filesystem to EIO mode", oid.String()} {
		if !strings.Contains(p.Log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	select {
	case <-p.Done:
		t.Errorf("the server ended")
	default:
	}
	p.Cmd.Process.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d after SIGTERM, want 1: it had failed", code)
	}
	if mountOf(t, mnt) != nil {
		t.Error("the mount is still there after SIGTERM")
	}
}

// The database file is cut off below what was served: that cannot be mended.
func TestStorageBreaks(t *testing.T) {
	zurl, _ := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, zurl, mnt)
	if err := os.Truncate(strings.TrimPrefix(zurl, "file://"), 100); err != nil {
		t.Fatal(err)
	}
	served.Eventually(t, "ENOTCONN", func() bool {
		_, err := os.Stat(filepath.Join(mnt, "head/at"))
		return errors.Is(err, syscall.ENOTCONN)
	})
	p.Cmd.Process.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d after SIGTERM, want 1: it had failed", code)
	}
}

// A tid that lies in the future is a tid like any other.
func TestFutureTid(t *testing.T) {
	path, mnt := filepath.Join(t.TempDir(), "Data.fs"), t.TempDir()
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	db, err := fixture.Make(w)
	if err != nil {
		t.Fatal(err)
	}
	tx := db.Begin()
	tx.Object(0, "from the future")
	future, err := tx.CommitAt(zodb.TidFromTime(time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC)))
	if err != nil {
		t.Fatal(err)
	}
	p := serve(t, mnt, "file://"+path, mnt)
	if got := read(t, filepath.Join(mnt, "head/at")); got != future.String() {
		t.Errorf("head/at is %s, want %s", got, future)
	}
	p.End()
}
