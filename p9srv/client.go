package p9srv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
)

// Client is a connection to a 9P server, attached to a subtree. Its methods may be called from many
// goroutines; when ctx of NewClient is done the connection closes and they fail.
type Client struct {
	lib  *p9.Client
	root p9.File
	stop func() bool
}

// NewClient connects and attaches to aname; "" is the whole tree.
func NewClient(ctx context.Context, addr, aname string, o DialOptions) (*Client, error) {
	c, err := newClient(ctx, addr, aname, o, false)
	if errors.As(err, new(versionError)) {
		c, err = newClient(ctx, addr, aname, o, true)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// versionError is a server's answer to a Tversion that it does not like.
type versionError struct{ error }

func (e versionError) Unwrap() error { return e.error }

func newClient(ctx context.Context, addr, aname string, o DialOptions, plain bool) (*Client, error) {
	raw, err := o.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	msize := o.Msize
	if msize == 0 {
		msize = capMsize
	}
	conn := &introduced{Conn: raw, attach: newFrame(tAttach, noTag).u32(1).u32(noFid).str(o.Uname).str(aname).u32(uint32(os.Getuid())).done(0)}
	if plain {
		conn.version = newFrame(tVersion, noTag).u32(msize).str(version9P).done(0)
	}
	lib, err := p9.NewClient(conn, p9.WithMessageSize(msize))
	if err == nil {
		var root p9.File
		if root, err = lib.Attach(aname); err == nil {
			return &Client{lib: lib, root: root, stop: stop}, nil
		}
	} else if errors.As(err, new(linux.Errno)) {
		err = versionError{err}
	}
	stop()
	conn.Close()
	return nil, fmt.Errorf("%s: attach %q: %w", addr, aname, err)
}

// Close closes the connection.
func (c *Client) Close() error {
	c.stop()
	return c.lib.Close()
}

// Info is what Stat and List tell of a file.
type Info struct {
	Name    string
	Ino     uint64
	Dir     bool
	Link    bool
	Perm    os.FileMode
	Size    int64
	Blksize int64
	Mtime   time.Time
}

// walk returns a new file for name, a path from where the client is attached.
func (c *Client) walk(op, name string) (p9.File, error) {
	names := strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
	f := c.root
	for first := true; first || len(names) > 0; first = false {
		n := min(len(names), maxNames)
		qids, next, err := f.Walk(names[:n])
		if err == nil && len(qids) < n {
			next.Close() // of a fid that the server did not make
			err = whyNot(f, names[:n], len(qids))
		}
		if !first {
			f.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", op, name, err)
		}
		f, names = next, names[n:]
	}
	return f, nil
}

// whyNot returns the error of a walk that got to some of the names only, which the server tells for the first name.
func whyNot(from p9.File, names []string, got int) error {
	_, at, err := from.Walk(names[:got])
	if err != nil {
		return err
	}
	defer at.Close()
	_, next, err := at.Walk(names[got : got+1])
	if err != nil {
		return err
	}
	next.Close()
	return linux.ENOENT // as it was before
}

// Stat returns the attributes of a file.
func (c *Client) Stat(name string) (Info, error) {
	f, err := c.walk("stat", name)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	info, err := stat(f)
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", name, err)
	}
	info.Name = path.Base("/" + name)
	return info, nil
}

func stat(f p9.File) (Info, error) {
	q, _, a, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return Info{}, err
	}
	return Info{
		Ino: q.Path, Dir: a.Mode.IsDir(), Link: a.Mode.IsSymlink(), Perm: os.FileMode(a.Mode & 0o777), Size: int64(a.Size), Blksize: int64(a.BlockSize),
		Mtime: time.Unix(int64(a.MTimeSeconds), int64(a.MTimeNanoSeconds)),
	}, nil
}

// Readlink returns the target of a symbolic link.
func (c *Client) Readlink(name string) (string, error) {
	f, err := c.walk("readlink", name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target, err := f.Readlink()
	if err != nil {
		return "", fmt.Errorf("readlink %s: %w", name, err)
	}
	return target, nil
}

// List returns the names in a directory, without "." and "..", in the server's order. Only Name, Ino
// and Dir are set.
func (c *Client) List(name string) ([]Info, error) {
	f, err := c.walk("list", name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := list(f)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return list, nil
}

func list(f p9.File) ([]Info, error) {
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return nil, err
	}
	var all []Info
	for off := uint64(0); ; {
		ents, err := f.Readdir(off, 32<<10)
		if err != nil {
			return nil, err
		}
		if len(ents) == 0 {
			return all, nil
		}
		for _, e := range ents {
			off = e.Offset
			if e.Name != "." && e.Name != ".." {
				all = append(all, Info{Name: e.Name, Ino: e.QID.Path, Dir: e.QID.Type == p9.TypeDir, Link: e.QID.Type == p9.TypeSymlink})
			}
		}
	}
}

// File is an open file of a Client.
type File struct {
	f    p9.File
	name string
}

var (
	_ io.ReaderAt = (*File)(nil)
	_ io.WriterAt = (*File)(nil)
)

// Open opens a file to be read, and written when write is set.
func (c *Client) Open(name string, write bool) (*File, error) {
	f, err := c.walk("open", name)
	if err != nil {
		return nil, err
	}
	mode := p9.ReadOnly
	if write {
		mode = p9.ReadWrite
	}
	if _, _, err := f.Open(mode); err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &File{f: f, name: name}, nil
}

// ReadAt reads until p is full or the file ends (io.EOF then).
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; ; {
		m, err := f.f.ReadAt(p[n:], off+int64(n))
		n += m
		switch {
		case n == len(p):
			return n, nil
		case err == io.EOF || err == nil && m == 0:
			return n, io.EOF
		case err != nil:
			return n, fmt.Errorf("read %s: %w", f.name, err)
		}
	}
}

// ReadMessage reads once from a watch file or another stream: it waits for a message, and what it
// returns may have blank lines, which mean nothing. p must be at most 4096 bytes. At the end: io.EOF.
func (f *File) ReadMessage(p []byte) (int, error) {
	n, err := f.f.ReadAt(p[:min(len(p), 4096)], 0)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read %s: %w", f.name, err)
	}
	return n, err
}

// WriteAt writes to a watch file; off is ignored by the server.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.f.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", f.name, err)
	}
	return n, nil
}

// Stat returns the attributes of the open file.
func (f *File) Stat() (Info, error) {
	info, err := stat(f.f)
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", f.name, err)
	}
	info.Name = path.Base("/" + f.name)
	return info, nil
}

// Close closes the file on the server.
func (f *File) Close() error { return f.f.Close() }
