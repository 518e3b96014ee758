package tree

import (
	"context"
	"fmt"

	"wcfs/zcore/zodb"
)

// node is what every node has. Release does nothing here: nodes of the fixed layout stay.
type node struct {
	fs  *FS
	ino uint64
}

func (fs *FS) newNode() node { return node{fs, fs.newIno()} }

func (n *node) ID() uint64 { return n.ino }
func (n *node) Release()   {}

// dirBase gives a directory what all have in common.
type dirBase struct{ node }

func (*dirBase) Kind() Kind { return Dir }

func (*dirBase) Open(context.Context, Caller, bool) (Handle, error) { return nil, ErrIsDir }

func (d *dirBase) dirAttr(mtime, rev zodb.Tid) (Attr, error) {
	if err := d.fs.failed(); err != nil {
		return Attr{}, err
	}
	return d.attrAlways(mtime, rev), nil
}

func (d *dirBase) attrAlways(mtime, rev zodb.Tid) Attr {
	return Attr{Ino: d.ino, Dir: true, Perm: 0o555, Blksize: 4096, Nlink: 2, Mtime: mtime.StatTime(), Rev: rev}
}

// fileBase gives a file what all have in common.
type fileBase struct{ node }

func (*fileBase) Lookup(context.Context, string) (Node, error) { return nil, ErrNotDir }
func (*fileBase) ReadDir(context.Context) ([]Entry, error)     { return nil, ErrNotDir }

// smallAttr is the attributes of a file that is no bigfile.
func (f *fileBase) smallAttr(size int, perm uint32, mtime zodb.Tid) (Attr, error) {
	a := Attr{Ino: f.ino, Perm: perm, Size: int64(size), Blksize: 4096, Nlink: 1, Mtime: mtime.StatTime()}
	return a, f.fs.failed()
}

func fixedTid(tid zodb.Tid) func() zodb.Tid { return func() zodb.Tid { return tid } }

// dir is a directory of the fixed layout; it may have more than its fixed names.
type dir struct {
	dirBase
	mtime func() zodb.Tid // immutable
	names []Entry         // immutable once the tree is made
	nodes map[string]Node // immutable once the tree is made

	always Node // its node that is served in EIO mode too, nil for none; immutable once the tree is made

	more func(name string) (Node, error) // other names; nil: there are none
	list func() []Entry                  // those of them that are known; nil: there are none
}

func (fs *FS) newDir(mtime func() zodb.Tid) *dir {
	return &dir{dirBase: dirBase{fs.newNode()}, mtime: mtime, nodes: make(map[string]Node)}
}

// add is for the time when the tree is made.
func (d *dir) add(name string, n Node) {
	d.names = append(d.names, Entry{Name: name, Ino: n.ID(), Dir: n.Kind() == Dir})
	d.nodes[name] = n
}

func (d *dir) Attr(context.Context) (Attr, error) {
	if d.always != nil {
		return d.attrAlways(d.mtime(), 0), nil
	}
	return d.dirAttr(d.mtime(), 0)
}

// Always reports whether a node answers in EIO mode too: its attributes, and what it is there for. That holds for
// .wcfs/health and the directories it is in.
func Always(n Node) bool {
	switch n := n.(type) {
	case *dir:
		return n.always != nil
	case *volatile:
		return n.always
	}
	return false
}

func (d *dir) Lookup(_ context.Context, name string) (Node, error) {
	n := d.nodes[name]
	if err := d.fs.failed(); err != nil && (n == nil || n != d.always) {
		return nil, err
	}
	if n != nil {
		return n, nil
	}
	if d.more != nil {
		return d.more(name)
	}
	return nil, fmt.Errorf("lookup %q: %w", name, ErrNotExist)
}

func (d *dir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	list := append([]Entry(nil), d.names...)
	if d.list != nil {
		list = append(list, d.list()...)
	}
	return sortEntries(list), nil
}
