package p9srv

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// fileNode serves ranges of a file, with some bytes of memory before and after.
type fileNode struct {
	*fakeNode
	f *os.File
}

func (n fileNode) Open(context.Context, tree.Caller, bool) (tree.Handle, error) { return n, nil }
func (n fileNode) Close()                                                       {}
func (n fileNode) Write(context.Context, []byte, int64) (int, error)            { return 0, tree.ErrReadOnly }

func (n fileNode) Read(_ context.Context, size int, off int64) (tree.Data, error) {
	if size < 20 {
		return tree.Data{Pieces: []zcore.Piece{{Mem: n.data[off : off+int64(size)]}}}, nil
	}
	end := off + int64(size)
	return tree.Data{Pieces: []zcore.Piece{{Mem: n.data[off : off+10]}, {File: n.f, Off: off + 10, Len: size - 20}, {Mem: n.data[end-10 : end]}}}, nil
}

// fileTree has that node as its only file.
type fileTree struct {
	*fakeTree
	file fileNode
}

type fileRoot struct {
	*fakeNode
	file fileNode
}

func (t fileTree) Root() tree.Node { t.refs.Add(1); return fileRoot{t.root, t.file} }

func (r fileRoot) Lookup(context.Context, string) (tree.Node, error) {
	r.t.refs.Add(1)
	return r.file, nil
}

// TestFilePieces: data that is in a file comes whole through sockets and TLS; when the file is shorter than
// it should be the read fails or the connection ends, and never is anything made up.
func TestFilePieces(t *testing.T) {
	ft := newFakeTree()
	n := ft.add("head/x", tree.RevFile, pattern(4<<20))
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(n.data); err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	ca.issue("server", 1<<40, true)
	ca.issue("guest", 1<<40, false)
	w := serve(t, func(o *Options) {
		o.Tree = fileTree{ft, fileNode{n, f}}
		o.TLSCert, o.TLSKey, o.TLSClientCA = ca.file("server.pem"), ca.file("server.key"), ca.file("ca.pem")
	})
	addrs := []string{w.addr}
	for _, a := range []string{"tcp:127.0.0.1:0", "tls:127.0.0.1:0"} {
		bound, err := w.srv.Listen(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, bound)
	}
	for _, a := range addrs {
		c, err := NewClient(t.Context(), a, "", ca.dial("guest"))
		if err != nil {
			t.Fatal(err)
		}
		file, err := c.Open("x", false)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []struct{ off, n int }{{0, 4 << 20}, {1, 100}, {12345, 70000}, {3 << 20, sendfileFrom + 20}, {3 << 20, sendfileFrom + 19}, {7, 1 << 20}} {
			got := make([]byte, r.n)
			if _, err := file.ReadAt(got, int64(r.off)); err != nil || !bytes.Equal(got, n.data[r.off:r.off+r.n]) {
				t.Errorf("%s: %d bytes at %d: %v", a, r.n, r.off, err)
			}
		}
		var wg sync.WaitGroup // several in flight are sent from sendfileBusy on
		for i := range 64 {
			wg.Go(func() {
				off, size := i*50000, sendfileBusy-32+i
				got := make([]byte, size)
				if _, err := file.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, n.data[off:off+size]) {
					t.Errorf("%s: %d bytes at %d, beside others: %v", a, size, off, err)
				}
			})
		}
		wg.Wait()
		c.Close()
	}
	if err := f.Truncate(2 << 20); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		for _, size := range []int{1000, 600 << 10} {
			c, err := NewClient(t.Context(), a, "", ca.dial("guest"))
			if err != nil {
				t.Fatal(err)
			}
			file, err := c.Open("x", false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.ReadAt(make([]byte, size), 2<<20-500); err == nil {
				t.Errorf("%s: read of %d bytes from a file cut short succeeded", a, size)
			}
			c.Close()
		}
	}
}
