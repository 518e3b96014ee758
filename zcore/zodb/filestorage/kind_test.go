package filestorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// A place of the file that cannot be read is an answer, final for what lies there; a file system that does not answer
// for now is an outage.
func TestKindOfReadErrors(t *testing.T) {
	for err, want := range map[error]zodb.Kind{
		syscall.EIO: zodb.KindAnswer, syscall.EUCLEAN: zodb.KindAnswer, syscall.EBADMSG: zodb.KindAnswer,
		syscall.ENODATA: zodb.KindAnswer, io.EOF: zodb.KindAnswer, io.ErrUnexpectedEOF: zodb.KindAnswer,
		syscall.ENOMEM: zodb.KindOutage, syscall.ESTALE: zodb.KindOutage, syscall.ETIMEDOUT: zodb.KindOutage,
		syscall.EINTR: zodb.KindOutage, syscall.ENOTCONN: zodb.KindOutage,
	} {
		read := err
		if _, ok := err.(syscall.Errno); ok {
			read = &fs.PathError{Op: "read", Path: "Data.fs", Err: err}
		}
		storagetest.WantKind(t, err.Error(), fmt.Errorf("load: %w", readError(4096, read)), want)
	}
}

// The reads of a load really fail with EIO: /proc/self/mem does where nothing is mapped. Every way to ask for the object
// gives an answer that says so.
func TestEIOOfADiskSector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tid := zodb.TidFromTime(time.Now())
	if err := w.Commit(tid, map[zodb.Oid][]byte{1: storagetest.Record([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), "file://"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	bad := &dataFile{f: mem, path: path, stat: s.cur.stat, index: s.cur.index, end: s.cur.end, last: s.cur.last}
	v := view{bad, 1, s.cur.index.Get(1), s.cur.end}
	ctx := context.Background()
	for op, load := range map[string]func() error{
		"LoadAt":   func() error { _, err := v.load(ctx, tid); return err },
		"SerialAt": func() error { _, _, _, err := v.find(ctx, tid); return err },
		"ExtentAt": func() error { _, err := v.extent(ctx, tid); return err },
	} {
		err := load()
		storagetest.WantKind(t, op, err, zodb.KindAnswer)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", op, err)
		}
	}
	// That the file is still the same cannot be told from there; that is no error of everything else.
	if err := bad.look(s.cur.id.mark.Load(), s.cur.stat); err != nil {
		t.Errorf("look: %v", err)
	}
}
