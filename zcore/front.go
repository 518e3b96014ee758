package zcore

import (
	"context"
	"os"

	"wcfs/zcore/zodb"
)

// Data is the answer to a read: pieces to be sent one after another, and what to call afterwards.
type Data struct {
	Pieces []Piece
	// Done, when not nil, is called once, after the reply was written to the client or dropped.
	Done func()
	// Failed, when not nil, is called before Done where the client gets an error instead of the data.
	Failed func()
}

// Piece is either bytes in memory (Mem) or a range of a file (File, Off, Len); Mem is shared and
// never written to.
type Piece struct {
	Mem  []byte
	File *os.File
	Off  int64
	Len  int // length of the range of File; not used when Mem is set

	check func() error // of File
}

// Check is called after a range of File was read, and before the client is given it: an error says that the file was
// written over, and the bytes are something else.
func (p Piece) Check() error {
	if p.check == nil {
		return nil
	}
	return p.check()
}

// Size returns the number of bytes in all pieces.
func (d Data) Size() int {
	n := 0
	for _, p := range d.Pieces {
		if p.File != nil {
			n += p.Len
		} else {
			n += len(p.Mem)
		}
	}
	return n
}

// PageCache is the kernel's page cache behind the FUSE front, as the commit path needs it. A file
// that the kernel does not know is no error: there is nothing to do then. No method is called from
// inside a request handler.
type PageCache interface {
	// Retrieve copies cached bytes of head/bigfile/<oid> at off into p and returns how many it got: it stops at
	// the first page that is not cached. The returned bytes must not be trusted.
	Retrieve(oid zodb.Oid, off int64, p []byte) (int, error)
	// Invalidate drops [off, off+size) of head/bigfile/<oid>. It blocks while the kernel holds a page
	// of the range locked, which is until READs of it are answered.
	Invalidate(oid zodb.Oid, off, size int64) error
	// Drop drops all pages and attributes of head/bigfile/<oid>. It blocks as Invalidate does.
	Drop(oid zodb.Oid) error
	// DropName makes the kernel look head/bigfile/<oid> up anew. It blocks while others look names up.
	DropName(oid zodb.Oid) error
	// InvalidateAttr makes the kernel ask for size and mtime of head/bigfile/<oid> anew.
	InvalidateAttr(oid zodb.Oid) error
	// Upload stores data at off of head/bigfile/<oid>. It blocks as Invalidate does.
	Upload(oid zodb.Oid, off int64, data []byte) error
	// StoreRev stores data at off of @<rev>/bigfile/<oid>, making the kernel know that file first.
	StoreRev(rev zodb.Tid, oid zodb.Oid, off int64, data []byte) error
}

// Process is a local client process that holds a watch link.
type Process interface {
	// Pid is the process id as this server sees it.
	Pid() int
	// Alive reports whether it still runs; a zombie does not.
	Alive() bool
	// Signal sends a signal; a process that is gone is no error.
	Signal(sig os.Signal) error
	// Wait returns when the process has ended, or with ctx's error.
	Wait(ctx context.Context) error
	// Close releases what the front holds to name the process.
	Close()
}
