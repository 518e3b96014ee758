// Package treetest is the acceptance suite of the tree: what any client of any front may rely on. It
// knows only a small file system interface, so it runs against the tree in process, a FUSE mount, a 9P
// client, and inside guests.
//
// It owns the manifest (what a database holds, from whoever wrote it) and the checks. It does not own
// databases, servers or mounts. It imports nothing heavy, so that a static program of a few MB can
// carry it into a guest.
//
// A check answers with an error that says path, what was got and what was wanted. Checks change
// nothing and may run in any order; the manifest must describe the database as it is now, unless
// Env.HeadMoves says that commits go on.
package treetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

// FS is a file system as its clients see it. Errors must match a syscall.Errno.
type FS interface {
	Stat(path string) (Info, error)
	// ReadDir lists names, without "." and "..".
	ReadDir(path string) ([]string, error)
	Open(path string, write bool) (File, error)
	// OpenStream opens head/watch or another stream for reading and, with write, for writing. A Read
	// may return blank lines.
	OpenStream(path string, write bool) (io.ReadWriteCloser, error)
}

// File is an open file. ReadAt returns io.EOF with what there is when that is less than asked for.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Info is what stat shows.
type Info struct {
	Ino     uint64
	Mode    fs.FileMode // type and permission bits
	Size    int64
	Blksize int64
	Mtime   time.Time
}

// Manifest says what a database holds.
type Manifest struct {
	ZURL       string
	PinTimeout string // content of .wcfs/pintimeout
	Debug      bool   // the server runs with -debug
	Head       zodb.Tid
	Tids       []zodb.Tid // all transactions, in order; the last is Head
	Files      []BigFile
	NotFiles   []zodb.Oid // objects that are not bigfiles, or do not exist
}

// BigFile is one ZBigFile through its history.
type BigFile struct {
	Oid  zodb.Oid
	Revs []Rev // in order; the first is its creation
}

// Rev is one revision of a bigfile: how it is from Tid on.
type Rev struct {
	Tid     zodb.Tid
	Size    int64
	Blksize int64
	Blocks  []string // sha256 of each block, in hex; of blksize bytes, the missing ones being zeros
}

// At returns the revision of f as of tid, nil when it did not exist yet.
func (f *BigFile) At(tid zodb.Tid) *Rev {
	var found *Rev
	for i := range f.Revs {
		if f.Revs[i].Tid <= tid {
			found = &f.Revs[i]
		}
	}
	return found
}

// Save writes the manifest to a file.
func (m *Manifest) Save(path string) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// Load reads a manifest that Save wrote.
func Load(path string) (*Manifest, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Env is what a check runs in.
type Env struct {
	FS       FS
	Manifest *Manifest

	HeadMoves bool   // commits go on: the manifest is right up to its Head only, and head/ is not compared
	NoBlksize bool   // the client's kernel does not show the server's st_blksize (v9fs)
	NoBase    bool   // base/ is not looked at (a front that serves a subtree)
	NoWatch   bool   // head/watch is not opened
	Watch     string // name of the watch file; default head/watch
	OldNames  bool   // a name in bigfile/ that is no oid is EINVAL, as in the form of existing clients
	BaseWatch bool   // the watch file takes only watches with a base (head/watch9 over FUSE)
}

// Check is one property.
type Check struct {
	Name string
	Fn   func(*Env) error
}

// Checks are all of them.
func Checks() []Check {
	return []Check{
		{"layout", checkLayout},
		{"control files", checkControl},
		{"stats", checkStats},
		{"bad names", checkBadNames},
		{"not a directory", checkNotDir},
		{"head/at", checkHeadAt},
		{"attributes of directories", checkDirs},
		{"attributes of bigfiles", checkAttrs},
		{"block sizes", checkBlksize},
		{"inode numbers", checkInos},
		{"content of head", checkHeadContent},
		{"content of every revision", checkRevContent},
		{"content of base", checkBaseContent},
		{"tids between transactions", checkBetween},
		{"odd reads", checkOddReads},
		{"listings", checkListings},
		{"read-only", checkReadOnly},
		{"watch", checkWatch},
	}
}

// Run runs all checks as subtests.
func Run(t *testing.T, env *Env) {
	t.Helper()
	for _, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Fn(env); err != nil {
				t.Error(err)
			}
		})
	}
}

// All runs all checks, for programs that are no tests, and returns what failed.
func All(env *Env) error {
	var errs []error
	for _, c := range Checks() {
		if err := c.Fn(env); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}
