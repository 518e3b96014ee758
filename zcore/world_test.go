package zcore

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// world is a core over a database in memory that is being written to.
type world struct {
	t    testing.TB
	stor *memstorage.Store
	db   *zgen.DB
	f    zodb.Oid
	core *Core

	cancel  func()                 // ends the core
	gapNext bool                   // the next commit is reported as a gap
	yield   atomic.Pointer[func()] // called at each step; nil: nothing

	mu    sync.Mutex
	stops map[Step]*stop // mu; one-shot
}

// stop is a place where the server has been told to stop.
type stop struct {
	reached chan struct{}
	release chan struct{}
}

// stopAt makes the next one who comes to a step wait there until release is called.
func (w *world) stopAt(step Step) (reached <-chan struct{}, release func()) {
	s := &stop{make(chan struct{}), make(chan struct{})}
	w.mu.Lock()
	w.stops[step] = s
	w.mu.Unlock()
	return s.reached, sync.OnceFunc(func() { close(s.release) })
}

func (w *world) step(step Step) {
	if y := w.yield.Load(); y != nil {
		(*y)()
	}
	w.mu.Lock()
	s := w.stops[step]
	delete(w.stops, step)
	w.mu.Unlock()
	if s != nil {
		close(s.reached)
		<-s.release
	}
}

// must waits for something to happen.
func (w *world) must(what string, ch <-chan struct{}) {
	w.t.Helper()
	select {
	case <-ch:
	case <-time.After(wait.Patience):
		w.t.Fatalf("%s does not happen", what)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait.Patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// mustNot sees that something does not happen, for a while.
func mustNot[T any](t testing.TB, what string, ch <-chan T) {
	t.Helper()
	select {
	case <-ch:
		t.Fatalf("%s", what)
	case <-time.After(30 * time.Millisecond):
	}
}

// background runs fn and returns what it returns, later.
func background[T any](fn func() T) <-chan T {
	ch := make(chan T, 1)
	go func() { ch <- fn() }()
	return ch
}

const testBlksize = 4096

func newWorld(t testing.TB, opts Options, init map[Blk]string) *world {
	return newWorldOver(t, opts, init, func(s *memstorage.Store) zodb.Storage { return s })
}

// newWorldOver has the core see the database through something.
func newWorldOver(t testing.TB, opts Options, init map[Blk]string, through func(*memstorage.Store) zodb.Storage) *world {
	w := &world{t: t, stor: memstorage.New(), stops: map[Step]*stop{}}
	opts.Step = w.step
	w.db = zgen.New(w, zgen.Options{LeafMax: 3, NodeMax: 3})
	tx := w.db.Begin()
	w.f = tx.NewFile(testBlksize)
	for blk, s := range init {
		tx.Write(w.f, blk, []byte(s), zgen.Blk0)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	w.serve(through(w.stor), opts)
	return w
}

// serve starts a core.
func (w *world) serve(stor zodb.Storage, opts Options) {
	core, err := New(context.Background(), stor, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.core = core
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	done := make(chan struct{})
	go func() { defer close(done); core.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

// startAnew ends the core and starts another one over the same database.
func (w *world) startAnew(opts Options) {
	w.cancel()
	opts.Step = w.step
	w.serve(w.stor, opts)
}

// Commit is what the generator writes to.
func (w *world) Commit(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	if w.gapNext {
		w.gapNext = false
		return w.stor.CommitGap(tid, objs)
	}
	return w.stor.Commit(tid, objs)
}

// commit commits blocks of w.f and waits until that is announced.
func (w *world) commit(blks map[Blk]string) zodb.Tid {
	w.t.Helper()
	tid := w.write(blks)
	w.announced(tid)
	return tid
}

// write commits blocks of w.f.
func (w *world) write(blks map[Blk]string) zodb.Tid {
	w.t.Helper()
	return w.tx(func(tx *zgen.Tx) {
		for blk, s := range blks {
			tx.Write(w.f, blk, []byte(s), zgen.Blk0)
		}
	})
}

// tx makes any commit.
func (w *world) tx(fill func(*zgen.Tx)) zodb.Tid {
	w.t.Helper()
	tx := w.db.Begin()
	fill(tx)
	tid, err := tx.Commit()
	if err != nil {
		w.t.Fatal(err)
	}
	return tid
}

func (w *world) announced(tid zodb.Tid) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	if err := w.core.waitHead(ctx, tid); err != nil {
		w.t.Fatalf("commit %s is not announced: %v", tid, err)
	}
}

func (w *world) read(blk Blk) string {
	w.t.Helper()
	f, err := w.core.Lookup(context.Background(), w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	f.Attr(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	d, err := f.Read(ctx, w.core.Host(), testBlksize, int64(blk)*testBlksize)
	if err != nil {
		w.t.Fatal(err)
	}
	var s strings.Builder
	for _, p := range d.Pieces {
		s.Write(pieceBytes(p))
	}
	if d.Done != nil {
		d.Done()
	}
	return strings.TrimRight(s.String(), "\x00")
}

// testLink is a client of head/watch that acknowledges by hand.
type testLink struct {
	t    testing.TB
	l    *Link
	part string
}

func (w *world) link() *testLink {
	l, err := w.core.OpenLink(w.core.Host(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &testLink{t: w.t, l: l}
}

func (tl *testLink) send(format string, args ...any) {
	tl.l.Write(context.Background(), []byte(fmt.Sprintf(format, args...)+"\n"))
}

func (tl *testLink) recv() string {
	tl.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	for {
		if line, rest, ok := strings.Cut(tl.part, "\n"); ok {
			tl.part = rest
			return line
		}
		p, err := tl.l.Read(ctx, 100)
		if err != nil {
			tl.t.Fatal(err)
		}
		if len(p) == 0 {
			return "EOF"
		}
		tl.part += string(p)
	}
}

func (tl *testLink) want(line string) {
	tl.t.Helper()
	if got := tl.recv(); got != line {
		tl.t.Fatalf("got %q, want %q", got, line)
	}
}

// newFile makes another file with one block, and has it looked up.
func (w *world) newFile() (f zodb.Oid) {
	w.t.Helper()
	w.announced(w.tx(func(tx *zgen.Tx) {
		f = tx.NewFile(testBlksize)
		tx.Write(f, 0, []byte("x"), zgen.Blk0)
	}))
	if _, err := w.core.Lookup(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
	return f
}
