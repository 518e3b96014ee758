package tree

import (
	"context"
	"errors"
	"fmt"

	"wcfs/zcore"
	"wcfs/zcore/zodb"
)

// headBigDir is /head/bigfile.
type headBigDir struct{ dirBase }

func (d *headBigDir) Attr(context.Context) (Attr, error) { return d.dirAttr(d.fs.core.Head(), 0) }

func (d *headBigDir) Lookup(ctx context.Context, name string) (Node, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	oid, err := d.fs.parseOid(name)
	if err != nil {
		return nil, err
	}
	d.fs.mu.Lock()
	f := d.fs.heads[oid]
	d.fs.mu.Unlock()
	if f != nil && f.zf.Failure() == nil {
		return f, nil
	}
	zf, err := d.fs.core.Lookup(ctx, oid)
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if err != nil {
		if f != nil && d.fs.heads[oid] == f && errors.Is(err, ErrNotExist) {
			delete(d.fs.heads, oid)
		}
		return nil, interrupted(ctx, err)
	}
	if f := d.fs.heads[oid]; f != nil && (f.zf == zf || f.zf.Failure() == nil) {
		return f, nil // another lookup was faster
	}
	f = &headFile{fileBase: fileBase{d.fs.newNode()}, zf: zf}
	d.fs.heads[oid] = f
	return f, nil
}

func (d *headBigDir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	d.fs.mu.Lock()
	list := make([]Entry, 0, len(d.fs.heads))
	for oid, f := range d.fs.heads {
		list = append(list, Entry{Name: oid.String(), Ino: f.ino})
	}
	d.fs.mu.Unlock()
	return sortEntries(list), nil
}

// bigAttr is the attributes of a bigfile.
func (f *fileBase) bigAttr(a zcore.FileAttr, rev zodb.Tid) Attr {
	return Attr{Ino: f.ino, Perm: 0o444, Size: a.Size, Blksize: a.Blksize, Nlink: 1, Mtime: a.Mtime, Rev: rev}
}

// headFile is /head/bigfile/<oid>.
type headFile struct {
	fileBase
	zf      *zcore.HeadFile
	blksize *static // guard: fs.mu; nil: not asked for
}

func (*headFile) Kind() Kind { return HeadFile }

func (f *headFile) Attr(ctx context.Context) (Attr, error) {
	if err := f.fs.failed(); err != nil {
		return Attr{}, err
	}
	a, err := f.zf.Attr(ctx)
	if err != nil {
		return Attr{}, interrupted(ctx, err)
	}
	return f.bigAttr(a, 0), nil
}

func (f *headFile) Open(_ context.Context, who Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write); err != nil {
		return nil, err
	}
	if f.zf.Failure() != nil {
		return nil, ErrStale
	}
	f.zf.Use(+1)
	return &headHandle{f, who.Domain}, nil
}

type headHandle struct {
	f   *headFile
	dom *zcore.Domain
}

func (h *headHandle) Read(ctx context.Context, size int, off int64) (Data, error) {
	if err := h.f.fs.failed(); err != nil {
		return Data{}, err
	}
	data, err := h.f.zf.Read(ctx, h.dom, size, off)
	return data, interrupted(ctx, err)
}

func (*headHandle) Write(context.Context, []byte, int64) (int, error) { return 0, ErrReadOnly }
func (h *headHandle) Close()                                          { h.f.zf.Use(-1) }

// revFile is /@<rev>/bigfile/<oid> or /base/<rev>/bigfile/<oid>.
type revFile struct {
	fileBase
	snap *snapshot // one reference is held
	oid  zodb.Oid
	zf   bigFile

	refs int // guard: fs.mu; nodes given out and open handles
}

// getFile returns the file with one reference for the caller, or nil if it is not known.
func (s *snapshot) getFile(oid zodb.Oid) *revFile {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	f := s.files[oid]
	if f != nil {
		f.refs++
	}
	return f
}

// loadFile makes the file known, with one reference for the caller.
func (s *snapshot) loadFile(ctx context.Context, oid zodb.Oid) (Node, error) {
	zf, err := s.lookup(ctx, oid)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	f := s.files[oid]
	if f == nil { // else another lookup was faster
		f = &revFile{fileBase: fileBase{s.fs.newNode()}, snap: s, oid: oid, zf: zf}
		s.files[oid] = f
		s.refs++ // the caller holds the directory, so the snapshot is alive
	}
	f.refs++
	return f, nil
}

// bigFile is a bigfile of the core as of a revision, for readers of a domain.
type bigFile interface {
	Attr() zcore.FileAttr
	Read(ctx context.Context, dom *zcore.Domain, size int, off int64) (zcore.Data, error)
}

// anyDomain is a file under @<rev>, which looks the same to all domains.
type anyDomain struct{ *zcore.RevFile }

func (f anyDomain) Read(ctx context.Context, dom *zcore.Domain, size int, off int64) (zcore.Data, error) {
	data, err := f.RevFile.Read(ctx, size, off)
	if err == nil {
		f.NoteRead(dom, data.Size())
	}
	return data, err
}

// lookup finds a file in the core.
func (s *snapshot) lookup(ctx context.Context, oid zodb.Oid) (bigFile, error) {
	if s.key.base {
		return s.fs.core.LookupBase(ctx, s.key.rev, oid)
	}
	f, err := s.fs.core.LookupRev(ctx, s.key.rev, oid)
	return anyDomain{f}, err
}

func (f *revFile) Kind() Kind {
	if f.snap.key.base {
		return BaseFile
	}
	return RevFile
}

// Release gives one reference back; handles hold one too.
func (f *revFile) Release() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.refs--
	if f.refs < 0 {
		panic(fmt.Sprintf("tree: @%s/bigfile/%s released too often", f.snap.key.rev, f.oid))
	}
	if f.refs == 0 {
		delete(f.snap.files, f.oid)
		f.snap.putLocked()
	}
}

func (f *revFile) Attr(context.Context) (Attr, error) {
	if err := f.fs.failed(); err != nil {
		return Attr{}, err
	}
	return f.bigAttr(f.zf.Attr(), f.snap.key.rev), nil
}

func (f *revFile) Open(ctx context.Context, who Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write); err != nil {
		return nil, err
	}
	if !f.snap.key.base {
		f.fs.core.WaitKept(ctx, who.Domain, f.oid)
	}
	f.fs.mu.Lock()
	f.refs++
	f.fs.mu.Unlock()
	return &revHandle{f, who.Domain}, nil
}

type revHandle struct {
	f   *revFile
	dom *zcore.Domain
}

func (h *revHandle) Read(ctx context.Context, size int, off int64) (Data, error) {
	if err := h.f.fs.failed(); err != nil {
		return Data{}, err
	}
	data, err := h.f.zf.Read(ctx, h.dom, size, off)
	return data, interrupted(ctx, err)
}

func (*revHandle) Write(context.Context, []byte, int64) (int, error) { return 0, ErrReadOnly }
func (h *revHandle) Close()                                          { h.f.Release() }
