package tree

import (
	"context"
	"fmt"
	"strings"
	"time"

	"wcfs/zcore/zodb"
)

// momentLink is /@MOMENT, where MOMENT is what zodb.ParseMoment takes, or a tag: a symbolic link to @<tid>, the last
// transaction at or before it. It is resolved each time it is looked at. It is not listed.
type momentLink struct {
	node
	moment string
}

var _ Linker = (*momentLink)(nil)

// lookupAtRev finds "@<tid>" under /, and links to it.
func (fs *FS) lookupAtRev(name string) (Node, error) {
	s, ok := strings.CutPrefix(name, "@")
	rev, err := zodb.ParseTid(s)
	switch {
	case ok && err == nil && rev <= fs.core.Head():
		return fs.getSnap(snapKey{rev, false}).dir, nil
	case ok && err != nil && !fs.opts.OldNames:
		if _, err := fs.parseMoment(s); err == nil {
			return &momentLink{node{fs, fs.arrayIno(0, 'r', []string{name})}, s}, nil
		}
	}
	return nil, fmt.Errorf("lookup %q: %w", name, ErrNotExist)
}

func (fs *FS) parseMoment(s string) (zodb.Tid, error) {
	if fs.opts.Tag != nil {
		if text, ok := fs.opts.Tag(s); ok {
			s = text
		}
	}
	return zodb.ParseMoment(s, time.Now())
}

func (*momentLink) Kind() Kind { return Link }

func (*momentLink) Lookup(context.Context, string) (Node, error)       { return nil, ErrNotDir }
func (*momentLink) ReadDir(context.Context) ([]Entry, error)           { return nil, ErrNotDir }
func (*momentLink) Open(context.Context, Caller, bool) (Handle, error) { return nil, ErrInvalid }

func (l *momentLink) Attr(ctx context.Context) (Attr, error) {
	target, err := l.Readlink(ctx)
	return Attr{Ino: l.ino, Link: true, Perm: 0o777, Size: int64(len(target)), Blksize: 4096, Nlink: 1,
		Mtime: l.fs.core.Head().StatTime(), Fleeting: true}, err
}

func (l *momentLink) Readlink(ctx context.Context) (string, error) {
	if err := l.fs.failed(); err != nil {
		return "", err
	}
	at, err := l.fs.parseMoment(l.moment)
	if err != nil { // a tag that is gone
		return "", fmt.Errorf("lookup %q: %w: %w", "@"+l.moment, ErrNotExist, err)
	}
	tid, err := l.fs.core.LastTid(ctx, at)
	if err != nil {
		return "", interrupted(ctx, err)
	}
	return "@" + tid.String(), nil
}
