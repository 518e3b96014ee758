// Package fswriter writes FileStorage files, for tests, benchmarks and the demo only.
//
// It owns the file's end and an index of it. It does not lock the file, resolve conflicts, fsync
// or survive a crash better than a truncated tail; a database that matters is written by Python.
//
// A commit is written as Python writes it: a transaction with status 'c' is appended, then that byte
// is changed to ' '. So whoever follows the file sees from this writer what it sees from a real one.
package fswriter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// Writer appends to one file. Not safe for concurrent use.
type Writer struct {
	f     *os.File
	path  string
	buf   *bufio.Writer
	index *fsformat.Index
	end   int64    // just past the last transaction
	last  zodb.Tid // its tid
}

// Create makes a new database at path, which must not exist.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(fsformat.MagicPy3); err != nil {
		f.Close()
		return nil, err
	}
	return newWriter(f, path), nil
}

// Open opens an existing database to append to it. Bytes after the last complete transaction are cut off, as
// Python does.
func Open(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	w := newWriter(f, path)
	if err := w.scan(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

func newWriter(f *os.File, path string) *Writer {
	return &Writer{f: f, path: path, index: fsformat.NewIndex(), end: fsformat.MagicLen,
		buf: bufio.NewWriterSize(io.Discard, 1<<16)}
}

// scan reads the whole file.
func (w *Writer) scan() error {
	for {
		t, err := w.txn(w.end)
		if err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && t.hdr.Status == fsformat.Voted {
			return w.f.Truncate(w.end)
		}
		if err != nil {
			return err
		}
		for _, r := range t.recs {
			w.index.Set(r.Oid, r.pos)
		}
		w.end, w.last = t.pos+t.hdr.Len+fsformat.TailLen, t.hdr.Tid
	}
}

// Last returns the tid of the last transaction, 0 if there is none.
func (w *Writer) Last() zodb.Tid { return w.last }

// Size returns how many bytes of the file are committed.
func (w *Writer) Size() int64 { return w.end }

// Close closes the file. It does not write an index, see WriteIndex.
func (w *Writer) Close() error { return w.f.Close() }

// WriteIndex writes the index file that Python, too, uses to open the database without a scan.
func (w *Writer) WriteIndex() error {
	tmp := w.path + ".index_tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	err = errors.Join(fsformat.WriteIndex(f, w.index, w.end), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, w.path+".index")
}

// entry is a record to be written: data, or a backpointer if data is nil (0: a deletion).
type entry struct {
	oid  zodb.Oid
	data []byte
	back int64
	hole int64 // if not 0, this many bytes are left out of the file as a hole
}

func (e *entry) len() int64 {
	if e.hole != 0 {
		return e.hole
	}
	return int64(len(e.data))
}

// Commit writes one transaction; nil data deletes the object. Tids must ascend.
func (w *Writer) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	entries := make([]entry, 0, len(objs))
	for _, oid := range slices.Sorted(maps.Keys(objs)) {
		data := objs[oid]
		if data != nil && len(data) == 0 {
			return fmt.Errorf("%s: the record of %s is empty, which FileStorage cannot store", w.path, oid)
		}
		entries = append(entries, entry{oid: oid, data: data})
	}
	return w.write(tid, entries)
}

// CommitHoles writes one transaction of records that have the given sizes, at least 1, and are holes
// in the file: they take no space on disk and read as zeros.
func (w *Writer) CommitHoles(tid zodb.Tid, sizes map[zodb.Oid]int64) error {
	entries := make([]entry, 0, len(sizes))
	for _, oid := range slices.Sorted(maps.Keys(sizes)) {
		entries = append(entries, entry{oid: oid, hole: sizes[oid]})
	}
	return w.write(tid, entries)
}

// Undo writes, as transaction tid, the undo of transaction undone, as far as that is still the last
// one of each of its objects.
func (w *Writer) Undo(tid, undone zodb.Tid) error {
	t, err := w.find(undone)
	if err != nil {
		return err
	}
	var entries []entry
	for _, r := range t.recs {
		if w.index.Get(r.Oid) != r.pos {
			return fmt.Errorf("%s: undo %s: object %s was changed since", w.path, undone, r.Oid)
		}
		entries = append(entries, entry{oid: r.Oid, back: r.Prev})
	}
	return w.write(tid, entries)
}

func (w *Writer) write(tid zodb.Tid, entries []entry) error {
	if tid <= w.last {
		return fmt.Errorf("%s: tid %s is not after %s", w.path, tid, w.last)
	}
	descr := "wcfs test data"
	h := fsformat.TxnHeader{Tid: tid, Status: fsformat.Voted, Descr: len(descr)}
	h.Len = h.HdrLen()
	for _, e := range entries {
		h.Len += (&fsformat.DataHeader{Len: e.len()}).RecLen()
	}
	if w.end+h.Len+fsformat.TailLen > fsformat.MaxPos {
		return fmt.Errorf("%s: the file would be too long for an index", w.path)
	}
	if err := w.append(h, descr, entries); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", w.path, err), w.f.Truncate(w.end))
	}
	if _, err := w.f.WriteAt([]byte{byte(fsformat.Done)}, w.end+16); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	pos := w.end + h.HdrLen()
	for _, e := range entries {
		w.index.Set(e.oid, pos)
		pos += (&fsformat.DataHeader{Len: e.len()}).RecLen()
	}
	w.end, w.last = pos+fsformat.TailLen, tid
	return nil
}

// append writes a whole transaction at the end of the file.
func (w *Writer) append(h fsformat.TxnHeader, descr string, entries []entry) error {
	if _, err := w.f.Seek(w.end, io.SeekStart); err != nil {
		return err
	}
	w.buf.Reset(w.f)
	b := append(h.AppendTxn(nil), descr...)
	w.buf.Write(b)
	for _, e := range entries {
		d := fsformat.DataHeader{Oid: e.oid, Tid: h.Tid, Prev: w.index.Get(e.oid), Txn: w.end, Len: e.len()}
		b = d.AppendData(b[:0])
		if d.Len == 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(e.back))
		}
		w.buf.Write(b)
		w.buf.Write(e.data)
		if e.hole != 0 {
			if err := w.buf.Flush(); err != nil {
				return err
			}
			if _, err := w.f.Seek(e.hole, io.SeekCurrent); err != nil {
				return err
			}
		}
	}
	w.buf.Write(binary.BigEndian.AppendUint64(b[:0], uint64(h.Len)))
	return w.buf.Flush()
}
