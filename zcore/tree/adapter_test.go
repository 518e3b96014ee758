package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/tree/treetest"
)

// inProcess is a tree as treetest wants to see it: what a front does, without a wire.
type inProcess struct {
	fs  *tree.FS
	who tree.Caller
}

var _ treetest.FS = inProcess{}

// errnos is the table that each front has.
var errnos = []struct {
	kind error
	no   syscall.Errno
}{
	{tree.ErrNotExist, syscall.ENOENT}, {tree.ErrInvalid, syscall.EINVAL}, {tree.ErrReadOnly, syscall.EROFS},
	{tree.ErrPermission, syscall.EPERM}, {tree.ErrNotDir, syscall.ENOTDIR}, {tree.ErrIsDir, syscall.EISDIR},
	{tree.ErrNotConn, syscall.ENOTCONN}, {tree.ErrInterrupted, syscall.EINTR},
}

func errno(err error) error {
	if err == nil {
		return nil
	}
	for _, e := range errnos {
		if errors.Is(err, e.kind) {
			return fmt.Errorf("%w (%w)", e.no, err)
		}
	}
	return fmt.Errorf("%w (%w)", syscall.EIO, err)
}

// walk finds a node; the caller releases it.
func (p inProcess) walk(path string) (tree.Node, error) {
	node := p.fs.Root()
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, err := node.Lookup(context.Background(), name)
		node.Release()
		if err != nil {
			return nil, errno(err)
		}
		node = next
	}
	return node, nil
}

func (p inProcess) Stat(path string) (treetest.Info, error) {
	node, err := p.walk(path)
	if err != nil {
		return treetest.Info{}, err
	}
	defer node.Release()
	a, err := node.Attr(context.Background())
	if err == nil && (a.Ino != node.ID() || a.Dir != (node.Kind() == tree.Dir)) {
		return treetest.Info{}, fmt.Errorf("%s: attributes %+v do not fit node %d of kind %d", path, a, node.ID(), node.Kind())
	}
	mode := fs.FileMode(a.Perm)
	if a.Dir {
		mode |= fs.ModeDir
	}
	return treetest.Info{Ino: a.Ino, Mode: mode, Size: a.Size, Blksize: a.Blksize, Mtime: a.Mtime}, errno(err)
}

func (p inProcess) ReadDir(path string) ([]string, error) {
	node, err := p.walk(path)
	if err != nil {
		return nil, err
	}
	defer node.Release()
	list, err := node.ReadDir(context.Background())
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names, errno(err)
}

func (p inProcess) Open(path string, write bool) (treetest.File, error) {
	node, err := p.walk(path)
	if err != nil {
		return nil, err
	}
	defer node.Release() // the handle keeps the file known
	h, err := node.Open(context.Background(), p.who, write)
	if err != nil {
		return nil, errno(err)
	}
	return file{h}, nil
}

func (p inProcess) OpenStream(path string, write bool) (io.ReadWriteCloser, error) {
	f, err := p.Open(path, write)
	if err != nil {
		return nil, err
	}
	return stream{f.(file)}, nil
}

type file struct{ h tree.Handle }

func (f file) ReadAt(p []byte, off int64) (int, error) {
	return read(context.Background(), f.h, p, off)
}

func (f file) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.h.Write(context.Background(), p, off)
	return n, errno(err)
}

func (f file) Close() error {
	f.h.Close()
	return nil
}

// read is ReadAt with a context.
func read(ctx context.Context, h tree.Handle, p []byte, off int64) (int, error) {
	data, err := h.Read(ctx, len(p), off)
	if err != nil {
		return 0, errno(err)
	}
	n := copyData(p, data)
	if data.Done != nil {
		data.Done()
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func copyData(p []byte, data zcore.Data) int {
	n := 0
	for _, piece := range data.Pieces {
		if piece.File != nil {
			m, _ := piece.File.ReadAt(p[n:n+piece.Len], piece.Off)
			n += m
		} else {
			n += copy(p[n:], piece.Mem)
		}
	}
	return n
}

type stream struct{ file }

func (s stream) Read(p []byte) (int, error) {
	n, err := s.ReadAt(p, 0)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

func (s stream) Write(p []byte) (int, error) { return s.WriteAt(p, 0) }
