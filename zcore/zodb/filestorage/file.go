package filestorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// dataFile is one file that is, or was, the database.
type dataFile struct {
	f    *os.File
	path string
	stat fs.FileInfo // identifies the file, see os.SameFile

	refs atomic.Int64 // users; taken only by who has one already or sees the file under Storage.mu

	// Guarded by Storage.mu once the file is in use, before that by who opens it.
	index *fsformat.Index
	end   int64     // just past the last complete transaction
	last  zodb.Tid  // its tid, 0 if there is none
	next  *dataFile // what replaced this file, nil while nothing has; owns a reference

	high   zodb.Tid // the greatest tid before a time-stamp reduction, else 0; see reduce. Set while it is opened, as is
	opened zodb.Tid // last, and
	start  int64    // end, when it was opened

	id      identity
	extents extents
	marks   txnMarks
	lastTxn atomic.Pointer[txnAt] // the header looked at last: neighbouring records share it
}

func (f *dataFile) acquire() { f.refs.Add(1) }

func (f *dataFile) release() {
	for f != nil && f.refs.Add(-1) == 0 {
		f.f.Close()
		f = f.next // nobody else sees f any more
	}
}

// openData opens the file and brings its index up to date.
func openData(ctx context.Context, path string, opt Options) (*dataFile, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	err = f.buildIndex(ctx, opt)
	if err == nil {
		err = f.takeMark(nil)
	}
	if err != nil {
		f.f.Close()
		return nil, err
	}
	f.refs.Store(1)
	return f, nil
}

// openPlain opens the file and checks that it is a FileStorage.
func openPlain(path string) (*dataFile, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no such file: give the path of an existing Data.fs (%w)", fs.ErrNotExist)
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, errors.New("this is a directory: give the path of the Data.fs in it")
	case !st.Mode().IsRegular():
		return nil, errors.New("this is not a regular file: give the path of a Data.fs")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &dataFile{f: file, path: path}
	var magic [fsformat.MagicLen]byte
	n, err := file.ReadAt(magic[:], 0)
	switch {
	case err == io.EOF && n == 0:
		err = errors.New("the file is empty: let the application that writes the database create it first")
	case err == io.EOF:
		err = errors.New("this is not a FileStorage, it is too short: give the path of a Data.fs")
	case err == nil && string(magic[:]) != fsformat.MagicPy2 && string(magic[:]) != fsformat.MagicPy3:
		err = fmt.Errorf("this is not a FileStorage, it begins with %q: give the path of a Data.fs", magic[:])
	case err == nil:
		f.stat, err = file.Stat()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

// buildIndex fills index, end and last: from the index file as far as that is right, the rest by a
// scan. An index that appears while a scan runs is used, too: a packer writes it only after it has
// put the new file in place.
func (f *dataFile) buildIndex(ctx context.Context, opt Options) error {
	f.index, f.end = fsformat.NewIndex(), fsformat.MagicLen
	ixf := indexFile{path: f.path + ".index", off: opt.NoIndex, log: opt.Log}
	ixf.use(f)
	sc := newScanner(f.f)
	looked := time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan at position %d: %w", f.end, err)
		}
		t, err := sc.txn(f.end)
		if err == errIncomplete {
			f.opened, f.start = f.last, f.end
			return nil
		}
		if err == nil {
			f.reduce(t, opt)
			err = f.apply(t)
		}
		if err != nil {
			return err
		}
		if time.Since(looked) > time.Second {
			ixf.use(f)
			looked = time.Now()
		}
	}
}

// reduce deals with a transaction that has a lower tid than one before it, in a file that is being opened: a merged
// database, or a clock that went back. As for Python it is the last one then, and what has later tids is to come: head
// reaches it with the first commit that passes them, which is reported as a gap, since no commit names what it changed.
func (f *dataFile) reduce(t txn, opt Options) {
	if t.Tid > f.last || t.Tid == 0 {
		return
	}
	if f.high == 0 && opt.Log != nil {
		opt.Log.Warn("time-stamp reduction: a transaction has a lower tid than the one before it; that one is served once head has passed it",
			"file", f.path, "pos", t.pos, "tid", t.Tid, "before", f.last)
	}
	f.high = max(f.high, f.last)
	f.last = t.Tid - 1
}

// apply enters a transaction that begins at f.end. Every record must name as its previous one what
// the index says: that catches an object id or pointer gone wrong, which would otherwise show old or
// foreign data. Only a pack cuts histories off.
func (f *dataFile) apply(t txn) error {
	if t.Tid <= f.last {
		return damage(t.pos, "transaction %s comes after transaction %s", t.Tid, f.last)
	}
	if t.Status == fsformat.Done {
		for _, r := range t.recs {
			if have := f.index.Get(r.oid); have != r.prev {
				return &zodb.DataError{Oid: r.oid, Serial: t.Tid, Pos: r.pos,
					Msg: fmt.Sprintf("names %d as its previous record, which is at %d", r.prev, have)}
			}
		}
	}
	for _, r := range t.recs {
		f.index.Set(r.oid, r.pos)
	}
	f.end, f.last = t.end, t.Tid // an undone one too: Python takes it for the last transaction
	return nil
}

// damage returns the error that the file is not what it must be at pos.
func damage(pos int64, format string, args ...any) error {
	return &zodb.DataError{Pos: pos, Msg: fmt.Sprintf(format, args...)}
}
