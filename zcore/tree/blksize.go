package tree

import (
	"context"
	"strconv"
)

// blksizeDir is /.wcfs/blksize: a file for each bigfile, by oid, that holds its block size in bytes. Clients
// need that number to know which bytes a pin is about, and st_blksize is not it everywhere: over FUSE the
// kernel makes it a power of two, and QEMU's virtfs puts another in its place.
type blksizeDir struct {
	dirBase
	head *headBigDir
}

func (d *blksizeDir) Attr(context.Context) (Attr, error) { return d.dirAttr(d.fs.t0, 0) }

func (d *blksizeDir) Lookup(ctx context.Context, name string) (Node, error) {
	n, err := d.head.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	f := n.(*headFile)
	a, err := f.Attr(ctx)
	if err != nil {
		return nil, err
	}
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if f.blksize == nil {
		f.blksize = d.fs.newStatic(strconv.FormatInt(a.Blksize, 10), fixedTid(d.fs.t0))
		f.blksize.stale = func() bool { return f.zf.Failure() != nil }
	}
	return f.blksize, nil
}

func (d *blksizeDir) ReadDir(context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	var list []Entry
	d.fs.mu.Lock()
	for oid, f := range d.fs.heads {
		if f.blksize != nil {
			list = append(list, Entry{Name: oid.String(), Ino: f.blksize.ino})
		}
	}
	d.fs.mu.Unlock()
	return sortEntries(list), nil
}
