package p9srv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// fakeTree is a tree in memory that counts what is held of it.
type fakeTree struct {
	root    *fakeNode
	ino     atomic.Uint64
	refs    atomic.Int64 // nodes handed out and not released
	handles atomic.Int64 // open handles
	reads   atomic.Int64 // reads of handles
	waiting atomic.Int64 // reads that wait for a message, for pins or for the database
}

// fakeNode is a file or directory; its fields are immutable once it is in the tree, but for those of streams.
type fakeNode struct {
	t       *fakeTree
	kind    tree.Kind
	ino     uint64
	perm    uint32
	names   map[string]*fakeNode
	data    []byte
	err     error                         // answer of Lookup for it
	hold    chan struct{}                 // reads wait until it is closed
	away    atomic.Pointer[chan struct{}] // everything but Lookup and Read waits until it is closed
	panics  atomic.Bool                   // everything but Lookup and Read panics
	short   bool                          // reads return half of what they should, once
	nothing bool                          // reads return nothing
	who     atomic.Pointer[tree.Caller]

	msgs chan string // of a stream

	mu    sync.Mutex
	wrote bytes.Buffer // guarded by mu
	done  int          // Data.Done calls; guarded by mu
}

func newFakeTree() *fakeTree {
	t := &fakeTree{}
	t.root = t.dir()
	t.root.names["head"] = t.dir()
	t.root.names[".wcfs"] = t.dir()
	t.root.names["@03e5a3342bc5ab22"] = t.dir()
	t.add(".wcfs/zurl", tree.Static, []byte("file:///db"))
	t.add("head/at", tree.Volatile, []byte("03e5a3342bc5ab22"))
	t.add("head/watch", tree.Stream, nil).perm = 0o666
	head := t.at("head")
	head.names["bigfile"] = t.dir()
	t.add("head/bigfile/0000000000000002", tree.HeadFile, pattern(5<<20+100))
	bad := t.add("head/bigfile/0000000000000003", tree.HeadFile, nil)
	bad.err = tree.ErrInvalid
	t.at("@03e5a3342bc5ab22").names["bigfile"] = t.dir()
	t.add("@03e5a3342bc5ab22/bigfile/0000000000000002", tree.RevFile, pattern(3<<20))
	return t
}

// pattern is data in which every 8 bytes differ.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.BigEndian.PutUint64(p[i:], 0xa5a5000000000000|uint64(i))
	}
	return p
}

func (t *fakeTree) node(k tree.Kind) *fakeNode {
	return &fakeNode{t: t, kind: k, ino: t.ino.Add(1) + 1000, perm: 0o444}
}

func (t *fakeTree) dir() *fakeNode {
	n := t.node(tree.Dir)
	n.perm, n.names = 0o555, map[string]*fakeNode{}
	return n
}

func (t *fakeTree) at(path string) *fakeNode {
	n := t.root
	for _, name := range splitPath(path) {
		n = n.names[name]
	}
	return n
}

func splitPath(path string) []string {
	var names []string
	for _, b := range bytes.Split([]byte(path), []byte("/")) {
		names = append(names, string(b))
	}
	return names
}

func (t *fakeTree) add(path string, k tree.Kind, data []byte) *fakeNode {
	names := splitPath(path)
	d := t.root
	for _, name := range names[:len(names)-1] {
		d = d.names[name]
	}
	n := t.node(k)
	n.data = data
	if k == tree.Stream {
		n.msgs = make(chan string, 100)
	}
	d.names[names[len(names)-1]] = n
	return n
}

// Root implements Tree.
func (t *fakeTree) Root() tree.Node {
	t.refs.Add(1)
	return t.root
}

func (n *fakeNode) Kind() tree.Kind { return n.kind }
func (n *fakeNode) ID() uint64      { return n.ino }
func (n *fakeNode) Release()        { n.t.refs.Add(-1) }

func (n *fakeNode) Attr(ctx context.Context) (tree.Attr, error) {
	if err := n.spoil(ctx); err != nil {
		return tree.Attr{}, err
	}
	return tree.Attr{
		Ino: n.ino, Dir: n.kind == tree.Dir, Perm: n.perm, Size: int64(len(n.data)), Blksize: 2 << 20, Nlink: 1,
		Mtime: time.Unix(1600000000, 123456000),
	}, nil
}

func (n *fakeNode) Lookup(ctx context.Context, name string) (tree.Node, error) {
	c := n.names[name]
	switch {
	case n.kind != tree.Dir:
		return nil, tree.ErrNotDir
	case c == nil:
		return nil, fmt.Errorf("lookup %q: %w", name, tree.ErrNotExist)
	case c.err != nil:
		return nil, c.err
	}
	if c.kind == tree.Dir && c.hold != nil {
		if err := n.wait(ctx, c.hold); err != nil {
			return nil, err
		}
	}
	n.t.refs.Add(1)
	return c, nil
}

// wait waits for a channel to be closed, as reads wait for pins.
func (n *fakeNode) wait(ctx context.Context, c <-chan struct{}) error {
	n.t.waiting.Add(1)
	defer n.t.waiting.Add(-1)
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait: %w", tree.ErrInterrupted)
	}
}

// spoil does what away and panics say.
func (n *fakeNode) spoil(ctx context.Context) error {
	if n.panics.Load() {
		panic("as the test wants it")
	}
	if away := n.away.Load(); away != nil {
		return n.wait(ctx, *away)
	}
	return nil
}

func (n *fakeNode) ReadDir(ctx context.Context) ([]tree.Entry, error) {
	if err := n.spoil(ctx); err != nil {
		return nil, err
	}
	var list []tree.Entry
	for _, name := range slices.Collect(maps.Keys(n.names)) {
		c := n.names[name]
		list = append(list, tree.Entry{Name: name, Ino: c.ino, Dir: c.kind == tree.Dir})
	}
	return list, nil
}

func (n *fakeNode) Open(ctx context.Context, who tree.Caller, write bool) (tree.Handle, error) {
	if err := n.spoil(ctx); err != nil {
		return nil, err
	}
	if write && n.kind != tree.Stream {
		return nil, tree.ErrReadOnly
	}
	n.who.Store(&who)
	n.t.handles.Add(1)
	return &fakeHandle{n: n, pad: who.Padded}, nil
}

type fakeHandle struct {
	n    *fakeNode
	pad  bool
	rest []byte // of a message that did not fit; one reader at a time
}

func (h *fakeHandle) Read(ctx context.Context, size int, off int64) (tree.Data, error) {
	n := h.n
	n.t.reads.Add(1)
	if n.kind == tree.Stream {
		return h.readStream(ctx, size)
	}
	if n.hold != nil {
		if err := n.wait(ctx, n.hold); err != nil {
			return tree.Data{}, err
		}
	}
	if off >= int64(len(n.data)) || n.nothing {
		return tree.Data{}, nil
	}
	p := n.data[off:min(off+int64(size), int64(len(n.data)))]
	if n.short && len(p) > 1 {
		p = p[:len(p)/2]
	}
	half := len(p) / 2
	return tree.Data{Pieces: []zcore.Piece{{Mem: p[:half]}, {Mem: p[half:]}}, Done: func() {
		n.mu.Lock()
		n.done++
		n.mu.Unlock()
	}}, nil
}

func (h *fakeHandle) readStream(ctx context.Context, size int) (tree.Data, error) {
	if len(h.rest) == 0 {
		h.n.t.waiting.Add(1)
		defer h.n.t.waiting.Add(-1)
		select {
		case m := <-h.n.msgs:
			h.rest = []byte(m)
		case <-ctx.Done():
			return tree.Data{}, fmt.Errorf("read: %w", tree.ErrInterrupted)
		}
	}
	k := min(size, len(h.rest))
	p := append([]byte(nil), h.rest[:k]...)
	h.rest = h.rest[k:]
	for h.pad && len(p) < size {
		p = append(p, '\n')
	}
	return tree.Data{Pieces: []zcore.Piece{{Mem: p}}}, nil
}

func (h *fakeHandle) Write(ctx context.Context, p []byte, _ int64) (int, error) {
	if err := h.n.spoil(ctx); err != nil {
		return 0, err
	}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	return h.n.wrote.Write(p)
}

// written is what was written to a stream.
func (n *fakeNode) written() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wrote.String()
}

func (h *fakeHandle) Close() { h.n.t.handles.Add(-1) }

// patience is how long tests wait for what must come.
var patience = wait.Patience

// receive takes what comes from c.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("did not happen: %s", what)
	}
	return v
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}
