package main

import (
	"context"

	"wcfs/p9srv"
	"wcfs/zcore/tree"
)

func isNineScheme(scheme string) bool {
	return scheme == "unix" || scheme == "tcp" || scheme == "tls"
}

// nineTarget is the tree behind a 9P address.
type nineTarget struct{ c *p9srv.Client }

// dialTarget connects. A mistake in the address or its options is wrong use.
func dialTarget(ctx context.Context, addr, aname string, o p9srv.DialOptions) (target, error) {
	if err := o.Check(addr); err != nil {
		return nil, usagef("%v", err)
	}
	c, err := p9srv.NewClient(ctx, addr, aname, o)
	if err != nil {
		return nil, err
	}
	return nineTarget{c}, nil
}

func (n nineTarget) stat(_ context.Context, path string) (tree.Attr, error) {
	i, err := n.c.Stat(path)
	return tree.Attr{Ino: i.Ino, Dir: i.Dir, Link: i.Link, Perm: uint32(i.Perm), Size: i.Size, Blksize: i.Blksize, Mtime: i.Mtime}, err
}

func (n nineTarget) list(_ context.Context, path string) ([]tree.Entry, error) {
	infos, err := n.c.List(path)
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for _, i := range infos {
		entries = append(entries, tree.Entry{Name: i.Name, Ino: i.Ino, Dir: i.Dir, Link: i.Link})
	}
	return entries, nil
}

func (n nineTarget) readlink(_ context.Context, path string) (string, error) {
	return n.c.Readlink(path)
}

func (n nineTarget) open(_ context.Context, path string) (readAtCloser, error) {
	f, err := n.c.Open(path, false)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (n nineTarget) close() { n.c.Close() }
