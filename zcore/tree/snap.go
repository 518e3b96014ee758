package tree

import (
	"context"
	"fmt"

	"wcfs/zcore/zodb"
)

// snapKey names a snapshot: /@<rev>, or /base/<rev>.
type snapKey struct {
	rev  zodb.Tid
	base bool
}

// snapshot is one directory /@<rev> or /base/<rev> with what is below it. All nodes of a snapshot that
// are not files of the database share its references; a file holds one of them as long as it is known.
type snapshot struct {
	fs  *FS
	key snapKey
	dir *snapDir
	at  *snapAt // nil below /base
	big *snapBigDir
	arr *arrayDir // nil below /base, and if arrays are not served

	refs  int                   // guard: fs.mu
	files map[zodb.Oid]*revFile // guard: fs.mu; those with references
}

// getSnap returns the snapshot with one reference for the caller.
func (fs *FS) getSnap(key snapKey) *snapshot {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	s := fs.snaps[key]
	if s == nil {
		s = &snapshot{fs: fs, key: key, files: make(map[zodb.Oid]*revFile)}
		s.dir = &snapDir{dirBase{fs.newNode()}, s}
		s.big = &snapBigDir{dirBase{fs.newNode()}, s}
		if !key.base {
			if fs.opts.Arrays {
				s.arr = &arrayDir{arrayNode{node: fs.newNode(), snap: s, root: true}}
			}
			s.at = &snapAt{*fs.newStatic(key.rev.String(), fixedTid(key.rev)), s}
		}
		fs.snaps[key] = s
	}
	s.refs++
	return s
}

// get takes one more reference. The caller has one already, or has found the snapshot under fs.mu.
func (s *snapshot) get() {
	s.fs.mu.Lock()
	s.refs++
	s.fs.mu.Unlock()
}

func (s *snapshot) put() {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	s.putLocked()
}

// putLocked gives one reference back. fs.mu must be held.
func (s *snapshot) putLocked() {
	s.refs--
	if s.refs < 0 {
		panic(fmt.Sprintf("tree: @%s released too often", s.key.rev))
	}
	if s.refs == 0 {
		delete(s.fs.snaps, s.key)
	}
}

// listSnaps lists the snapshots known under / or under /base.
func (fs *FS) listSnaps(base bool) []Entry {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var list []Entry
	for key, s := range fs.snaps {
		if key.base != base {
			continue
		}
		name := key.rev.String()
		if !base {
			name = "@" + name
		}
		list = append(list, Entry{Name: name, Ino: s.dir.ino, Dir: true})
	}
	return list
}

func (fs *FS) revHeads() int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := int64(0)
	for key := range fs.snaps {
		if !key.base {
			n++
		}
	}
	return n
}

// baseDir is /base.
type baseDir struct{ dirBase }

func (d *baseDir) Attr(context.Context) (Attr, error) { return d.dirAttr(d.fs.core.Head(), 0) }

func (d *baseDir) Lookup(_ context.Context, name string) (Node, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	rev, err := zodb.ParseTid(name)
	if err != nil {
		return nil, fmt.Errorf("lookup base %q: %w", name, ErrInvalid)
	}
	// below t0 nothing is known about which block changed when: a client of an earlier server must
	// take a new base.
	if rev < d.fs.t0 || rev > d.fs.core.Head() {
		return nil, fmt.Errorf("lookup base %s: %w", rev, ErrNotExist)
	}
	return d.fs.getSnap(snapKey{rev, true}).dir, nil
}

func (d *baseDir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	return sortEntries(d.fs.listSnaps(true)), nil
}

// snapDir is /@<rev> or /base/<rev>.
type snapDir struct {
	dirBase
	snap *snapshot
}

func (d *snapDir) Release() { d.snap.put() }

func (d *snapDir) Attr(context.Context) (Attr, error) {
	return d.dirAttr(d.snap.key.rev, d.snap.key.rev)
}

func (d *snapDir) Lookup(_ context.Context, name string) (Node, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	switch {
	case name == "bigfile":
		d.snap.get()
		return d.snap.big, nil
	case name == "at" && d.snap.at != nil:
		d.snap.get()
		return d.snap.at, nil
	case name == "arrays" && d.snap.arr != nil:
		d.snap.get()
		return d.snap.arr, nil
	}
	return nil, fmt.Errorf("lookup @%s %q: %w", d.snap.key.rev, name, ErrNotExist)
}

func (d *snapDir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	list := []Entry{{Name: "bigfile", Ino: d.snap.big.ino, Dir: true}}
	if d.snap.at != nil {
		list = append(list, Entry{Name: "at", Ino: d.snap.at.ino})
	}
	if d.snap.arr != nil {
		list = append(list, Entry{Name: "arrays", Ino: d.snap.arr.ino, Dir: true})
	}
	return sortEntries(list), nil
}

// snapAt is /@<rev>/at.
type snapAt struct {
	static
	snap *snapshot
}

func (f *snapAt) Release() { f.snap.put() }

func (f *snapAt) Attr(ctx context.Context) (Attr, error) {
	a, err := f.static.Attr(ctx)
	a.Rev = f.snap.key.rev
	return a, err
}

func (f *snapAt) Open(ctx context.Context, who Caller, write bool) (Handle, error) {
	h, err := f.static.Open(ctx, who, write)
	if err != nil {
		return nil, err
	}
	f.snap.get()
	return &snapAtHandle{h, f.snap}, nil
}

type snapAtHandle struct {
	Handle
	snap *snapshot
}

func (h *snapAtHandle) Close() { h.snap.put() }

// snapBigDir is /@<rev>/bigfile or /base/<rev>/bigfile.
type snapBigDir struct {
	dirBase
	snap *snapshot
}

func (d *snapBigDir) Release() { d.snap.put() }

func (d *snapBigDir) Attr(context.Context) (Attr, error) {
	return d.dirAttr(d.snap.key.rev, d.snap.key.rev)
}

func (d *snapBigDir) Lookup(ctx context.Context, name string) (Node, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	oid, err := d.fs.parseOid(name)
	if err != nil {
		return nil, err
	}
	if f := d.snap.getFile(oid); f != nil {
		return f, nil
	}
	return d.snap.loadFile(ctx, oid)
}

func (d *snapBigDir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	d.fs.mu.Lock()
	list := make([]Entry, 0, len(d.snap.files))
	for oid, f := range d.snap.files {
		list = append(list, Entry{Name: oid.String(), Ino: f.ino})
	}
	d.fs.mu.Unlock()
	return sortEntries(list), nil
}
