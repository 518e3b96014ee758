package fusesrv

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/t/wait"
	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

func TestMain(m *testing.M) {
	Helper()
	testHelpers()
	os.Exit(m.Run())
}

const fakeBlk = 64 << 10 // blksize of fake bigfiles

// fakeTree is a small tree in memory with hooks where tests want to wait.
type fakeTree struct {
	zurl   string
	ids    atomic.Uint64
	live   atomic.Int64 // references to @rev nodes that were not released
	reads  atomic.Int64 // of bigfiles
	dones  atomic.Int64 // Data.Done calls
	opened atomic.Int64 // handles open now

	mu       sync.Mutex
	at       string                                                          // guard: mu; content of head/at
	sizes    map[zodb.Oid]int64                                              // guard: mu; bigfiles
	gen      map[zodb.Oid]byte                                               // guard: mu; mixed into the bytes
	links    []*fakeLink                                                     // guard: mu
	onRead   func(ctx context.Context, oid zodb.Oid, off int64, n int) error // guard: mu
	onLookup func(ctx context.Context, name string) error                    // guard: mu
	onOpen   func(ctx context.Context, kind tree.Kind) error                 // guard: mu
	pieces   func(oid zodb.Oid, gen byte, size int, off int64) []zcore.Piece // guard: mu
	heads    map[zodb.Oid]*fakeNode                                          // guard: mu
	root     *fakeNode
}

type fakeNode struct {
	t     *fakeTree
	kind  tree.Kind
	id    uint64
	perm  uint32
	rev   zodb.Tid
	oid   zodb.Oid
	text  func() string
	names map[string]*fakeNode
	more  func(ctx context.Context, name string) (tree.Node, error)
	freed bool // made per lookup; counts in live
}

func newFakeTree() *fakeTree {
	t := &fakeTree{
		zurl: "file:///tmp/some where,a=b#c\\d.fs", at: "0000000000000010",
		sizes: map[zodb.Oid]int64{1: 64 * fakeBlk, 2: 64 * fakeBlk}, gen: map[zodb.Oid]byte{}, heads: map[zodb.Oid]*fakeNode{},
	}
	t.ids.Store(1 << 40)
	ctl := t.dir(map[string]*fakeNode{
		"zurl":       t.file(tree.Static, 0o444, func() string { return t.zurl }),
		"stats":      t.file(tree.Volatile, 0o444, func() string { return "BigFile\t: 2\npin\t: 7\n" }),
		"pintimeout": t.file(tree.Static, 0o444, func() string { return "30.0" }),
		"zhead":      t.file(tree.Stream, 0o444, nil),
	})
	big := t.dir(nil)
	big.more = t.lookupHead
	head := t.dir(map[string]*fakeNode{
		"at":      t.file(tree.Volatile, 0o444, func() string { t.mu.Lock(); defer t.mu.Unlock(); return t.at }),
		"watch":   t.file(tree.Stream, 0o666, nil),
		"watch9":  t.file(tree.Padded, 0o666, nil),
		"bigfile": big,
	})
	t.root = t.dir(map[string]*fakeNode{".wcfs": ctl, "head": head})
	t.root.more = t.lookupRev
	return t
}

func (t *fakeTree) node(k tree.Kind, perm uint32) *fakeNode {
	return &fakeNode{t: t, kind: k, perm: perm, id: t.ids.Add(1)}
}

func (t *fakeTree) dir(names map[string]*fakeNode) *fakeNode {
	n := t.node(tree.Dir, 0o555)
	n.names = names
	return n
}

func (t *fakeTree) file(k tree.Kind, perm uint32, text func() string) *fakeNode {
	n := t.node(k, perm)
	n.text = text
	return n
}

func (t *fakeTree) lookupHead(ctx context.Context, name string) (tree.Node, error) {
	oid, err := zodb.ParseOid(name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, tree.ErrInvalid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.sizes[oid]; !ok {
		return nil, fmt.Errorf("%q: %w", name, tree.ErrInvalid)
	}
	n := t.heads[oid]
	if n == nil {
		n = t.node(tree.HeadFile, 0o444)
		n.oid = oid
		t.heads[oid] = n
	}
	return n, nil
}

func (t *fakeTree) lookupRev(ctx context.Context, name string) (tree.Node, error) {
	tid, ok := strings.CutPrefix(name, "@")
	rev, err := zodb.ParseTid(tid)
	if !ok || err != nil {
		return nil, fmt.Errorf("%q: %w", name, tree.ErrNotExist)
	}
	return t.counted(tree.Dir, 0o555, rev, 0), nil
}

// counted makes a node of a revision, counted in live until it is released.
func (t *fakeTree) counted(k tree.Kind, perm uint32, rev zodb.Tid, oid zodb.Oid) *fakeNode {
	t.live.Add(1)
	n := t.node(k, perm)
	n.rev, n.oid, n.freed = rev, oid, true
	if k == tree.Dir {
		n.more = func(ctx context.Context, name string) (tree.Node, error) {
			if name == "bigfile" {
				return t.counted(tree.Dir, 0o555, rev, 0), nil
			}
			oid, err := zodb.ParseOid(name)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", name, tree.ErrInvalid)
			}
			return t.counted(tree.RevFile, 0o444, rev, oid), nil
		}
	}
	return n
}

func (n *fakeNode) Kind() tree.Kind { return n.kind }
func (n *fakeNode) ID() uint64      { return n.id }
func (n *fakeNode) Release() {
	if n.freed && n.t.live.Add(-1) < 0 {
		panic("node released twice")
	}
}

func (n *fakeNode) Attr(ctx context.Context) (tree.Attr, error) {
	a := tree.Attr{Ino: n.id, Dir: n.kind == tree.Dir, Perm: n.perm, Nlink: 1, Blksize: 4096, Rev: n.rev, Mtime: time.Unix(1e9, 123456000)}
	switch n.kind {
	case tree.HeadFile, tree.RevFile:
		n.t.mu.Lock()
		a.Size, a.Blksize = n.t.sizes[n.oid], fakeBlk
		n.t.mu.Unlock()
	default:
		if n.text != nil {
			a.Size = int64(len(n.text()))
		}
	}
	return a, nil
}

func (n *fakeNode) Lookup(ctx context.Context, name string) (tree.Node, error) {
	n.t.mu.Lock()
	hook := n.t.onLookup
	n.t.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, name); err != nil {
			return nil, err
		}
	}
	if c, ok := n.names[name]; ok {
		return c, nil
	}
	if n.more != nil {
		return n.more(ctx, name)
	}
	return nil, fmt.Errorf("%q: %w", name, tree.ErrNotExist)
}

func (n *fakeNode) ReadDir(ctx context.Context) ([]tree.Entry, error) {
	var list []tree.Entry
	for name, c := range n.names {
		list = append(list, tree.Entry{Name: name, Ino: c.id, Dir: c.kind == tree.Dir})
	}
	return list, nil
}

func (n *fakeNode) Open(ctx context.Context, who tree.Caller, write bool) (tree.Handle, error) {
	if write && n.perm&0o222 == 0 {
		return nil, fmt.Errorf("open: %w", tree.ErrReadOnly)
	}
	n.t.mu.Lock()
	hook := n.t.onOpen
	n.t.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, n.kind); err != nil {
			return nil, err
		}
	}
	n.t.opened.Add(1)
	if n.kind == tree.Stream || n.kind == tree.Padded {
		l := &fakeLink{t: n.t, proc: who.Process, msgs: make(chan string, 100)}
		n.t.mu.Lock()
		n.t.links = append(n.t.links, l)
		n.t.mu.Unlock()
		return l, nil
	}
	return &fakeHandle{n}, nil
}

type fakeHandle struct{ n *fakeNode }

func (h *fakeHandle) Close() { h.n.t.opened.Add(-1) }
func (h *fakeHandle) Write(context.Context, []byte, int64) (int, error) {
	return 0, tree.ErrReadOnly
}

// fakeByte is the content of bigfile oid at off.
func fakeByte(oid zodb.Oid, gen byte, off int64) byte {
	return byte(off) ^ byte(off>>12)*31 ^ byte(oid)*17 ^ gen
}

func fakeBytes(oid zodb.Oid, gen byte, off int64, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = fakeByte(oid, gen, off+int64(i))
	}
	return p
}

func (h *fakeHandle) Read(ctx context.Context, size int, off int64) (tree.Data, error) {
	n := h.n
	if n.text != nil {
		p := []byte(n.text())
		p = p[min(off, int64(len(p))):]
		return tree.Data{Pieces: []zcore.Piece{{Mem: p[:min(size, len(p))]}}}, nil
	}
	t := n.t
	t.reads.Add(1)
	t.mu.Lock()
	hook, pieces, fsize, gen := t.onRead, t.pieces, t.sizes[n.oid], t.gen[n.oid]
	t.mu.Unlock()
	size = int(max(0, min(int64(size), fsize-off)))
	done := func() { t.dones.Add(1) }
	if hook != nil {
		if err := hook(ctx, n.oid, off, size); err != nil {
			return tree.Data{Done: done}, err
		}
	}
	if pieces != nil {
		return tree.Data{Pieces: pieces(n.oid, gen, size, off), Done: done}, nil
	}
	return tree.Data{Pieces: []zcore.Piece{{Mem: fakeBytes(n.oid, gen, off, size)}}, Done: done}, nil
}

// fakeLink is an open stream: what is written to it comes back in upper case.
type fakeLink struct {
	t    *fakeTree
	proc zcore.Process
	msgs chan string
}

func (l *fakeLink) Read(ctx context.Context, size int, off int64) (tree.Data, error) {
	select {
	case m := <-l.msgs:
		return tree.Data{Pieces: []zcore.Piece{{Mem: []byte(m)}}}, nil
	case <-ctx.Done():
		return tree.Data{}, ctx.Err()
	}
}

func (l *fakeLink) Write(ctx context.Context, p []byte, off int64) (int, error) {
	l.msgs <- strings.ToUpper(string(p))
	return len(p), nil
}

func (l *fakeLink) Close() { l.t.opened.Add(-1) } // proc is closed at the end of the test

// lastLink returns the stream opened last.
func (t *fakeTree) lastLink() *fakeLink {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.links[len(t.links)-1]
}

// set changes hooks and contents under the lock.
func (t *fakeTree) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guard: mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type fixture struct {
	*testing.T
	tree *fakeTree
	srv  *Server
	dir  string
	log  *syncBuffer
}

// mountFake mounts a fake tree; at the end of the test everything must be gone.
func mountFake(t *testing.T, change func(*fakeTree, *Options)) *fixture {
	t.Helper()
	f := &fixture{T: t, tree: newFakeTree(), dir: t.TempDir(), log: &syncBuffer{}}
	opts := Options{URL: f.tree.zurl, Access: Public(), Log: slog.New(slog.NewTextHandler(io.MultiWriter(f.log, t.Output()), nil))}
	if change != nil {
		change(f.tree, &opts)
	}
	var err error
	f.srv, err = Mount(t.Context(), f.tree.root, f.dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.end)
	return f
}

func (f *fixture) end() {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	if err := f.srv.Close(ctx); err != nil {
		f.Error(err)
		detach(f.dir)
		return
	}
	if err := f.srv.Wait(ctx); err != nil && !strings.Contains(err.Error(), ErrAborted.Error()) {
		f.Errorf("serving did not end: %v", err)
	}
	for _, l := range f.tree.links {
		if l.proc != nil {
			l.proc.Close()
		}
	}
	if n := f.tree.live.Load(); n != 0 {
		f.Errorf("%d nodes were not released", n)
	}
	if n := f.tree.opened.Load(); n != 0 {
		f.Errorf("%d handles were not closed", n)
	}
}

func (f *fixture) path(name string) string { return f.dir + "/" + name }

// until waits for cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(wait.Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func failRead(context.Context, zodb.Oid, int64, int) error {
	return fmt.Errorf("load: %w", tree.ErrIO)
}

// tooMuch answers more than was asked for.
func tooMuch(_ zodb.Oid, _ byte, size int, _ int64) []zcore.Piece {
	return []zcore.Piece{{Mem: make([]byte, size+1)}}
}

// mincore is mincore(2), which package unix does not have.
func mincore(mem, vec []byte) error {
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&vec[0])))
	if e != 0 {
		return e
	}
	return nil
}
