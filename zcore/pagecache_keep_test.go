package zcore

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// newCached is a world with a page cache, of one file whose block 0 has pages a to d and has been read.
// wrap gives what the core is to take for the kernel.
func newCached(t *testing.T, wrap func(*simKernel) PageCache) (w *world, k *simKernel) {
	w = &world{t: t, stor: memstorage.New(), stops: map[Step]*stop{}}
	w.db = zgen.New(w, zgen.Options{})
	tx := w.db.Begin()
	w.f = tx.NewFile(4 * simPage)
	tx.Write(w.f, 0, pages("abcd"), zgen.Blk0)
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var err error
	w.core, err = New(t.Context(), w.stor, Options{Step: w.step, Grace: time.Microsecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.core.pageSize, w.core.smallRead = simPage, simPage
	k = newSimKernel(w.core, w.db)
	w.core.SetPageCache(wrap(k))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.core.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if k.wrong != nil {
			t.Error(k.wrong)
		}
	})
	return w, k
}

func asItIs(k *simKernel) PageCache { return k }

// pages has a page of each letter.
func pages(letters string) []byte {
	var b []byte
	for i := range letters {
		for range simPage {
			b = append(b, letters[i])
		}
	}
	return b
}

func (w *world) readPages(k *simKernel, n int) {
	w.t.Helper()
	f, err := w.core.Lookup(w.t.Context(), w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := k.fault(w.t.Context(), f, 0, n); err != nil {
		w.t.Fatal(err)
	}
}

func (k *simKernel) kept() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.saved
}

// Head moves on while an old block is being copied to its @rev; who opens a file there, and the zhead
// line, which means that all is applied, wait for it.
func TestHeadDoesNotWaitForKeeping(t *testing.T) {
	w, k := newCached(t, asItIs)
	w.readPages(k, 4)
	z := w.core.OpenZhead()
	defer z.Close()
	reached, release := w.stopAt(StepKeep)
	defer release()
	tid := w.tx(func(tx *zgen.Tx) { tx.Write(w.f, 0, pages("efgh"), zgen.Blk0) })
	w.announced(tid)
	w.must("keeping", reached)
	opened := background(func() bool { w.core.WaitKept(t.Context(), w.core.Host(), w.f); return true })
	line := background(func() string { b, _ := z.Read(t.Context(), 100); return string(b) })
	other := background(func() bool { w.core.WaitKept(t.Context(), newDomain("guest", false, 9), w.f); return true })
	<-other
	mustNot(t, "an open under @rev does not wait for what is being kept", opened)
	mustNot(t, "the zhead line comes before the old block is kept", line)
	if n := k.kept(); n != 0 {
		t.Fatalf("%d blocks are kept already", n)
	}
	release()
	<-opened
	if got := <-line; got != tid.String()+"\n" {
		t.Errorf("zhead: %q", got)
	}
	if n := k.kept(); n != 1 {
		t.Errorf("%d blocks were kept, want 1", n)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pages[simKey{w.core.file(w.f), 0}]; p.cached {
		t.Error("the old content is still cached under head")
	}
}

// Where only a part is cached nothing is kept.
func TestPartIsNotKept(t *testing.T) {
	w, k := newCached(t, asItIs)
	w.readPages(k, 4)
	for i, missing := range []int64{0, 3} {
		k.evict(simKey{w.core.file(w.f), missing * simPage})
		tid := w.tx(func(tx *zgen.Tx) { tx.Write(w.f, 0, pages([]string{"efgh", "ijkl"}[i]), zgen.Blk0) })
		w.announced(tid)
		w.core.WaitKept(t.Context(), w.core.Host(), w.f)
		if n := k.kept(); n != 0 {
			t.Fatalf("%d blocks were kept", n)
		}
		w.readPages(k, 4)
	}
}

// hung is a kernel in which no store under @rev returns, as while all pages there are under READ.
type hung struct {
	*simKernel
	release chan struct{}
}

func (h hung) StoreRev(zodb.Tid, zodb.Oid, int64, []byte) error {
	<-h.release
	return nil
}

// Stores that hang hold up neither head nor, for long, those who wait for what is kept.
func TestKeepingHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	w, k := newCached(t, func(k *simKernel) PageCache { return hung{k, release} })
	for i := range keeps + 1 {
		w.readPages(k, 4)
		w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(w.f, 0, pages("abcdefghijklmnopqrstuvwxyz"[i:i+4]), zgen.Blk0) }))
	}
	began := time.Now()
	w.core.WaitKept(t.Context(), w.core.Host(), w.f)
	if took := time.Since(began); took < keepWait || took > 10*keepWait {
		t.Errorf("waited for %s", took)
	}
}

// allCached is a kernel that has every page, of zeros, and notes what is stored under @rev.
type allCached struct {
	recorder
	mu     sync.Mutex
	stored []string // mu
}

func (a *allCached) Retrieve(_ zodb.Oid, _ int64, p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (a *allCached) StoreRev(rev zodb.Tid, _ zodb.Oid, off int64, _ []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = append(a.stored, fmt.Sprintf("#%d @%s", off/testBlksize, rev))
	return nil
}

// wantStored waits for what is being kept.
func (a *allCached) wantStored(w *world, want ...string) {
	w.t.Helper()
	f, err := w.core.Lookup(w.t.Context(), w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	f.waitKept(w.t.Context(), w.t.Context())
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.stored, want) {
		w.t.Fatalf("stored %q, want %q", a.stored, want)
	}
}

// forgetful is a database that reports two commits as a gap.
type forgetful struct {
	*memstorage.Store
	first zodb.Tid
}

func (s *forgetful) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	return s.Store.Follow(ctx, after, func(c zodb.Commit) error {
		if s.first == 0 {
			s.first = c.Tid
			return nil
		}
		return fn(zodb.Commit{Tid: c.Tid, Gap: after})
	})
}

// What a block was before a gap is not what it was inside the gap.
func TestKeptOverAGap(t *testing.T) {
	pc := &allCached{recorder: recorder{make(chan int64, 10)}}
	w := newWorldOver(t, Options{Grace: time.Microsecond}, map[Blk]string{0: "a", 5: "f"},
		func(s *memstorage.Store) zodb.Storage { return &forgetful{Store: s} })
	w.core.pc = pc
	at0 := w.db.Head()
	w.want(3, "")
	w.write(map[Blk]string{3: "d1"})
	w.commit(map[Blk]string{3: "d2"})
	pc.wantStored(w, fmt.Sprintf("#3 @%s", at0))
}

// A hole that is inside the file now may have been past its end at the revision it is since. A page stored there
// would have the kernel take the file for longer.
func TestHolePastTheEndIsNotKept(t *testing.T) {
	pc := &allCached{recorder: recorder{make(chan int64, 10)}}
	w := newWorld(t, Options{Grace: time.Microsecond}, map[Blk]string{0: "a", 2: "c"})
	w.core.pc = pc
	at0 := w.db.Head()
	w.commit(map[Blk]string{5: "f"})
	w.want(1, "")
	w.want(3, "")
	w.commit(map[Blk]string{3: "d"})
	pc.wantStored(w)
	w.commit(map[Blk]string{1: "b"})
	pc.wantStored(w, fmt.Sprintf("#1 @%s", at0))
}
