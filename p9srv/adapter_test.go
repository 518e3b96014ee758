package p9srv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb/memstorage"
)

// throughClient is a tree behind 9P as treetest wants to see it.
type throughClient struct{ c *Client }

var _ treetest.FS = throughClient{}

// sysErr makes errors match a syscall.Errno.
func sysErr(err error) error {
	var errno linux.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("%w (%w)", syscall.Errno(errno), err)
	}
	return err
}

func (t throughClient) Stat(path string) (treetest.Info, error) {
	i, err := t.c.Stat(path)
	mode := i.Perm
	if i.Dir {
		mode |= fs.ModeDir
	}
	return treetest.Info{Ino: i.Ino, Mode: mode, Size: i.Size, Blksize: i.Blksize, Mtime: i.Mtime}, sysErr(err)
}

func (t throughClient) ReadDir(path string) ([]string, error) {
	list, err := t.c.List(path)
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names, sysErr(err)
}

func (t throughClient) Open(path string, write bool) (treetest.File, error) {
	f, err := t.c.Open(path, write)
	if err != nil {
		return nil, sysErr(err)
	}
	return throughFile{f}, nil
}

func (t throughClient) OpenStream(path string, write bool) (io.ReadWriteCloser, error) {
	f, err := t.c.Open(path, write)
	if err != nil {
		return nil, sysErr(err)
	}
	return throughStream{f}, nil
}

type throughFile struct{ *File }

func (f throughFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, sysErr(err)
}

func (f throughFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, sysErr(err)
}

type throughStream struct{ f *File }

func (s throughStream) Read(p []byte) (int, error) {
	n, err := s.f.ReadMessage(p)
	return n, sysErr(err)
}
func (s throughStream) Write(p []byte) (int, error) {
	n, err := s.f.WriteAt(p, 0)
	return n, sysErr(err)
}
func (s throughStream) Close() error { return s.f.Close() }

// TestTree runs the suite of the tree through a client, over a Unix socket and over TCP.
func TestTree(t *testing.T) {
	stor := memstorage.New()
	db, err := fixture.Make(stor)
	if err != nil {
		t.Fatal(err)
	}
	core, err := zcore.New(t.Context(), stor, zcore.Options{PinTimeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	served := tree.New(core, tree.Options{BlankEvery: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- core.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		receive(t, "core ends", done)
	})
	srv, err := New(Options{Tree: served, Domain: func(string, string) *zcore.Domain { return core.Host() }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	for _, addr := range []string{"unix:" + filepath.Join(t.TempDir(), "s"), "tcp:127.0.0.1:0"} {
		addr, err := srv.Listen(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewClient(t.Context(), addr, "", DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(addr, ":")
		t.Run(kind, func(t *testing.T) {
			treetest.Run(t, &treetest.Env{FS: throughClient{c}, Manifest: fixture.Manifest(db, core.URL(), "1.5", false)})
		})
		c.Close()
	}
}
