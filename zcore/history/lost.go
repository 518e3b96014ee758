package history

import (
	"errors"
	"fmt"
	"strings"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// FileChanged says that a ZBigFile object itself is not any more what it was when it was looked up.
type FileChanged struct {
	Oid zodb.Oid
	Tid zodb.Tid
	Why string
}

func (e *FileChanged) Error() string {
	return fmt.Sprintf("ZBigFile %s changed at %s: %s", e.Oid, e.Tid, e.Why)
}

// ErrorKind tells zodb.KindOf that this is an answer.
func (e *FileChanged) ErrorKind() zodb.Kind { return zodb.KindAnswer }

// FileError says which files an error stands in the way of, as of a commit: no others. Its kind is that of Err.
type FileError struct {
	Files []*File
	Err   error
}

func (e *FileError) Error() string {
	var list []string
	for _, f := range e.Files {
		list = append(list, fmt.Sprintf("f<%s>", f.Oid))
	}
	return fmt.Sprintf("%s: %v", strings.Join(list, ", "), e.Err)
}
func (e *FileError) Unwrap() error { return e.Err }

// changedHow tells how a ZBigFile, loaded as bf or err, differs from f in what must not change; "" if it does
// not. An error that says nothing about the object is returned.
func changedHow(f *File, bf zdata.BigFile, err error) (string, error) {
	var bad *zodb.DataError
	switch {
	case zodb.IsAbsent(err):
		return "it was deleted", nil
	case errors.Is(err, zdata.ErrNotBigFile), errors.As(err, &bad):
		return err.Error(), nil
	case err != nil:
		return "", err
	case bf.Blksize != f.Blksize:
		return fmt.Sprintf("its block size was %d and is now %d", f.Blksize, bf.Blksize), nil
	case bf.Blktab != f.Blktab:
		return "it has another blktab", nil
	}
	return "", nil
}

// Lost reports whether Lose was called: the file is followed no more, and nothing of it is tracked.
func (f *File) Lost() bool { return f.lost.Load() }

// Lose ends the following of a file. A look-up makes it known anew, as another File. What the returned function
// does, to give its memory back, may take longer; it must return before the next Delta.
func (t *Tail) Lose(f *File) (sweep func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.lost.Swap(true) {
		return func() {}
	}
	if t.files[f.Oid] == f {
		delete(t.files, f.Oid)
	}
	blocks := f.blocks
	f.blocks, f.revs, f.recent, f.deltas = leaves{}, nil, nil, nil
	return func() { t.sweep(f, &blocks) }
}

// sweepStep is how many references are dropped before others get their turn.
const sweepStep = 4096

// sweep drops what refers to a lost file.
func (t *Tail) sweep(f *File, blocks *leaves) {
	type ref struct {
		zblk zodb.Oid
		blk  Blk
	}
	var refs []ref
	blocks.between(btree.KeyMin, btree.KeyMax, func(b *block) {
		if m := b.mapping(); !m.Hole {
			refs = append(refs, ref{m.ZBlk, b.blk})
		}
	})
	for len(refs) > 0 {
		n := min(len(refs), sweepStep)
		t.mu.Lock()
		for _, r := range refs[:n] {
			t.blkRefs.drop(r.zblk, blkRef{f.no, r.blk})
		}
		t.mu.Unlock()
		refs = refs[n:]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var nodes []nodeRef
	for oid := range t.nodeRefs.one { // far fewer than blocks
		nodes = t.nodeRefs.appendOf(nodes[:0], oid)
		for _, r := range nodes {
			if r.file == f.no {
				t.nodeRefs.drop(oid, r)
			}
		}
	}
	t.byNo[f.no] = nil
}

// filesOf returns the files that depend on an object.
func (t *Tail) filesOf(oid zodb.Oid) []*File {
	found := map[*File]bool{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.nodeRefs.appendOf(nil, oid) {
		found[t.byNo[r.file]] = true
	}
	for _, r := range t.blkRefs.appendOf(nil, oid) {
		found[t.byNo[r.file]] = true
	}
	var files []*File
	for f := range found {
		files = append(files, f)
	}
	return files
}

// isAnswer tells an answer of the database, which no other try would change, from an outage.
func isAnswer(err error) bool { return err != nil && zodb.KindOf(err) == zodb.KindAnswer }
