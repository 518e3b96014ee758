package history

import (
	"fmt"
	"strings"

	"wcfs/zcore/zodb"
)

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

// Fail gives a file up for good: CheckFiles and Delta leave it alone from now on. It returns all its tracked blocks,
// none if it was given up before. The caller sees that no reader at a view from now on is answered from it.
func (t *Tail) Fail(f *File, cause error) []Blk {
	if !f.failure.CompareAndSwap(nil, &cause) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var blks []Blk
	for _, l := range f.blocks.list {
		for _, b := range l.blocks {
			blks = append(blks, b.blk)
		}
	}
	return blks
}

// Failure returns what Fail was called with, nil while the file is served.
func (f *File) Failure() error {
	if p := f.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// isAnswer tells an answer of the database, which no other try would change, from an outage.
func isAnswer(err error) bool { return err != nil && zodb.KindOf(err) == zodb.KindAnswer }
