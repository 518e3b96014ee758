// Package tree is the one tree of files that every front serves: its nodes, handles, attributes and
// kinds of errors. See README for the layout.
//
// It owns names, inode numbers, attributes and the life of nodes. It does not own data, revisions or
// watches (package zcore) nor any wire format (the fronts).
//
// Life of a node: Root and Lookup return a node with one reference for the caller, who gives it back
// with Release. A node without references, and without open handles, is forgotten; its number is
// never used again, also not by a later process.
package tree

import (
	"context"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/zodb"
)

// Kind tells a front how a node is to be cached and opened.
type Kind int

// Kinds of nodes.
const (
	Dir      Kind = iota // directory
	Static               // small file whose content never changes: zurl, pintimeout, @tid/at
	Volatile             // small file without fixed content, never cached: stats, head/at, head/base
	Stream               // head/watch, .wcfs/debug/zhead: Read blocks until there is a message
	Padded               // head/watch9: as Stream, and every reply is padded with '\n' to the size asked for
	HeadFile             // head/bigfile/<oid>: cached, explicitly invalidated
	RevFile              // @tid/bigfile/<oid>: immutable
	BaseFile             // base/tid/bigfile/<oid>: immutable bytes, reads may wait for base watches
	Link                 // symbolic link: a Linker
)

// Attr is what stat shows.
type Attr struct {
	Ino     uint64
	Dir     bool
	Link    bool
	Perm    uint32 // permission bits
	Size    int64  // bytes
	Blksize int64  // preferred I/O size: a bigfile's blksize, else 4096
	Nlink   uint32
	Mtime   time.Time
	// Rev is the tid the content is as of, for immutable files and snapshot directories; else 0.
	Rev zodb.Tid
	// Fleeting says that a name that leads to the node may lead to another one, or nowhere, after the next commit.
	Fleeting bool
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Ino  uint64
	Dir  bool
	Link bool
}

// Caller is who opens or reads: what the front knows about the client.
type Caller struct {
	Domain *zcore.Domain
	// Process is the local process that opens a watch link, to be killed should it not acknowledge a
	// pin. nil where there is none to kill (9P).
	Process zcore.Process
	// Padded is set by a front whose transport cannot end a read short (9P): Stream files then behave as Padded.
	Padded bool
}

// Node is a file or directory. Methods may be called from many goroutines.
type Node interface {
	Kind() Kind
	// ID is the inode number: unique, never reused.
	ID() uint64
	// Attr never waits for pins or for page cache work.
	Attr(ctx context.Context) (Attr, error)
	// Lookup finds name in a directory. It never waits for pins or for page cache work.
	Lookup(ctx context.Context, name string) (Node, error)
	// ReadDir lists a directory, without "." and "..".
	ReadDir(ctx context.Context) ([]Entry, error)
	// Open opens a file. A watch file that is opened without write is empty. write asks for O_WRONLY or O_RDWR: ErrReadOnly but for watch files.
	Open(ctx context.Context, who Caller, write bool) (Handle, error)
	// Release gives one reference back.
	Release()
}

// Linker is a node of kind Link.
type Linker interface {
	// Readlink returns the target. It never waits for pins or for page cache work.
	Readlink(ctx context.Context) (string, error)
}

// Handle is an open file.
type Handle interface {
	// Read returns up to size bytes at off; fewer only at the end of the file (0 past it), or for a
	// Stream when that is all there is. Bigfile reads may wait for acknowledgements of pins; reads of
	// a Stream for messages; ctx ends either wait.
	Read(ctx context.Context, size int, off int64) (Data, error)
	// Write is for watch files only; off is ignored.
	Write(ctx context.Context, p []byte, off int64) (int, error)
	// Close is called once.
	Close()
}

// Data is the answer to a read. The front must call Done, when it is not nil, after the reply has
// been written to its client (or dropped): until then the commit path leaves the blocks read alone.
type Data = zcore.Data
