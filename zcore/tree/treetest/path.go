package treetest

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Path is a mounted tree.
type Path struct {
	Dir string
	// Pread reads and writes streams by pread and pwrite, as clients behind v9fs must; over FUSE streams have no position.
	Pread bool
}

var _ FS = Path{}

func (p Path) join(name string) string { return filepath.Join(p.Dir, name) }

// Stat follows nothing: there are no links in the tree.
func (p Path) Stat(name string) (Info, error) {
	fi, err := os.Lstat(p.join(name))
	if err != nil {
		return Info{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return Info{st.Ino, fi.Mode(), fi.Size(), int64(st.Blksize), fi.ModTime()}, nil
}

// ReadDir opens the directory anew, so nothing is remembered from an earlier listing.
func (p Path) ReadDir(name string) ([]string, error) {
	d, err := os.Open(p.join(name))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// Open opens for reading, or for reading and writing.
func (p Path) Open(name string, write bool) (File, error) {
	f, err := os.OpenFile(p.join(name), flag(write), 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// OpenStream opens a stream.
func (p Path) OpenStream(name string, write bool) (io.ReadWriteCloser, error) {
	f, err := os.OpenFile(p.join(name), flag(write), 0)
	if err != nil {
		return nil, err
	}
	if p.Pread {
		return preadStream{f}, nil
	}
	return f, nil
}

func flag(write bool) int {
	if write {
		return os.O_RDWR
	}
	return os.O_RDONLY
}

// preadStream has no position: two threads on one descriptor do not wait for each other's.
type preadStream struct{ f *os.File }

func (s preadStream) Read(p []byte) (int, error) {
	n, err := syscall.Pread(int(s.f.Fd()), p, 0)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (s preadStream) Write(p []byte) (int, error) { return syscall.Pwrite(int(s.f.Fd()), p, 0) }
func (s preadStream) Close() error                { return s.f.Close() }
