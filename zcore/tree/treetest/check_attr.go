package treetest

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wcfs/zcore/zodb"
)

func checkDirs(e *Env) error {
	m := e.Manifest
	want := map[string]zodb.Tid{"head": m.Head, "head/bigfile": m.Head}
	for _, tid := range m.Tids {
		want["@"+tid.String()] = tid
		want["@"+tid.String()+"/bigfile"] = tid
	}
	for path, tid := range want {
		st, err := e.FS.Stat(path)
		if err != nil {
			return err
		}
		if st.Mode != fs.ModeDir|0o555 {
			return fmt.Errorf("%s: mode is %v, want a directory of 0555", path, st.Mode)
		}
		if e.HeadMoves && strings.HasPrefix(path, "head") {
			continue
		}
		if err := sameTime(path, st.Mtime, tid.Time()); err != nil {
			return err
		}
	}
	return nil
}

func checkAttrs(e *Env) error {
	for _, f := range e.Manifest.Files {
		if last := f.Revs[len(f.Revs)-1]; !e.HeadMoves {
			if err := checkAttr(e, headPath(f.Oid), last); err != nil {
				return err
			}
			if err := checkAttr(e, basePath(e.Manifest.Head, f.Oid), last); !e.NoBase && err != nil {
				return err
			}
		}
		for _, r := range f.Revs {
			if err := checkAttr(e, revPath(r.Tid, f.Oid), r); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBlksize reads the block sizes that .wcfs/blksize has for clients whose kernel does not show them.
func checkBlksize(e *Env) error {
	for _, f := range e.Manifest.Files {
		want := strconv.FormatInt(f.Revs[len(f.Revs)-1].Blksize, 10)
		if err := wantText(e, ".wcfs/blksize/"+f.Oid.String(), want); err != nil {
			return err
		}
	}
	for _, oid := range e.Manifest.NotFiles {
		if err := wantErr(e, ".wcfs/blksize/"+oid.String(), syscall.EINVAL); err != nil {
			return err
		}
	}
	return wantErr(e, ".wcfs/blksize/x", noOid(e))
}

// checkAttr compares what stat shows. The mtime may be older than the revision when a server that has
// just started does not know yet that the file changed then, but not older than the file, nor newer.
func checkAttr(e *Env, path string, r Rev) error {
	st, err := e.FS.Stat(path)
	if err != nil {
		return err
	}
	switch {
	case st.Mode != 0o444:
		return fmt.Errorf("%s: mode is %v, want a file of 0444", path, st.Mode)
	case st.Size != r.Size:
		return fmt.Errorf("%s: size is %d, want %d", path, st.Size, r.Size)
	case st.Blksize != r.Blksize && !e.NoBlksize:
		return fmt.Errorf("%s: st_blksize is %d, want %d", path, st.Blksize, r.Blksize)
	case st.Ino == 0:
		return fmt.Errorf("%s: inode number is 0", path)
	}
	oid, first := path[strings.LastIndexByte(path, '/')+1:], zodb.Tid(0)
	for _, f := range e.Manifest.Files {
		if f.Oid.String() == oid {
			first = f.Revs[0].Tid
		}
	}
	if st.Mtime.Before(first.Time().Add(-time.Microsecond)) || st.Mtime.After(r.Tid.Time().Add(time.Microsecond)) {
		return fmt.Errorf("%s: mtime is %v, want one from %v to %v", path, st.Mtime, first.Time(), r.Tid.Time())
	}
	return nil
}

func checkInos(e *Env) error {
	m := e.Manifest
	seen := make(map[uint64]string)
	paths := []string{"head", "head/bigfile", "head/at", "head/watch", ".wcfs", ".wcfs/zurl"}
	for _, f := range m.Files {
		paths = append(paths, headPath(f.Oid))
	}
	for _, path := range paths {
		st, err := e.FS.Stat(path)
		if err != nil {
			return err
		}
		if other, ok := seen[st.Ino]; ok {
			return fmt.Errorf("%s and %s have the same inode number %d", path, other, st.Ino)
		}
		seen[st.Ino] = path
	}
	for _, f := range m.Files {
		st, err := e.FS.Stat(headPath(f.Oid))
		if err != nil {
			return err
		}
		if seen[st.Ino] != headPath(f.Oid) {
			return fmt.Errorf("%s: inode number changed to %d", headPath(f.Oid), st.Ino)
		}
		// while the file of a revision is open its number stays, and is not that of any other
		rev := revPath(m.Head, f.Oid)
		file, err := e.FS.Open(rev, false)
		if err != nil {
			return err
		}
		a, err1 := e.FS.Stat(rev)
		b, err2 := e.FS.Stat(rev)
		if err := errors.Join(err1, err2, file.Close()); err != nil {
			return err
		}
		if other, ok := seen[a.Ino]; ok || a.Ino != b.Ino {
			return fmt.Errorf("%s: inode number %d, then %d; %q has the first too", rev, a.Ino, b.Ino, other)
		}
	}
	return nil
}

// sameTime compares to the microsecond.
func sameTime(path string, got, want time.Time) error {
	if d := got.Sub(want); d < -time.Microsecond || d > time.Microsecond {
		return fmt.Errorf("%s: mtime is %v, want %v", path, got, want)
	}
	return nil
}
