package zcore

import (
	"context"
	"sync"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

func TestChangeOfBlockWithoutKnownHistory(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	w.want(0, "a0")
	w.commit(map[Blk]string{0: "a1"})
	w.want(0, "a1")
}

func TestHoleGetsDataAndDataBecomesAHole(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 5: "f"})
	at0 := w.db.Head()
	w.want(3, "")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.commit(map[Blk]string{3: "d1"})
	w.readPinned(l, 2, 3, at0, "d1")
	w.want(5, "f")
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Punch(w.f, 0) }))
	w.readPinned(l, 4, 0, at0, "")
}

func TestGrowthShrinkRegrowthWithReadsPastTheEnd(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 1: "b"})
	at0 := w.commit(map[Blk]string{4: "e"})
	w.want(4, "e")
	at1 := w.tx(func(tx *zgen.Tx) { tx.Truncate(w.f, 2) })
	w.announced(at1)
	f, _ := w.core.Lookup(context.Background(), w.f)
	if a, _ := f.Attr(context.Background()); a.Size != 2*testBlksize {
		t.Fatalf("size is %d", a.Size)
	}
	// The kernel may still ask for pages inside the size it knew: zeros in full, never a short answer.
	d, err := f.Read(context.Background(), w.core.Host(), 100, 3*testBlksize)
	if err != nil || d.Size() != 100 {
		t.Fatalf("read past the new end: %d bytes, %v", d.Size(), err)
	}
	d.Done()
	l := w.link()
	w.wantPins(l.pins(w.f, at0), map[Blk]zodb.Tid{4: at0}) // block 3 was a hole then too
	at2 := w.commit(map[Blk]string{3: "d2", 4: "e2"})
	w.readPinned(l, 4, 3, w.core.T0(), "d2")
	w.want(4, "e2")
	w.wantPins(w.link().pins(w.f, at1), map[Blk]zodb.Tid{3: w.core.T0(), 4: at1})
	w.wantPins(w.link().pins(w.f, at2), nil)
}

func TestSizeDuringBucketSplit(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a", 1: "b", 2: "c"}) // a bucket has three keys
	reached, release := w.stopAt(StepPublished)
	defer release()
	tid := w.write(map[Blk]string{3: "d", 4: "e", 5: "f"})
	w.must("publish", reached)
	size := background(func() int64 {
		f, err := w.core.Lookup(context.Background(), w.f)
		if err != nil {
			t.Error(err)
			return 0
		}
		a, _ := f.Attr(context.Background())
		return a.Size
	})
	mustNot(t, "a lookup of what a published commit touches is answered before the view has it", size)
	release()
	if got := <-size; got != 6*testBlksize {
		t.Fatalf("size is %d", got)
	}
	w.announced(tid)
}

func TestReadWhileCommitIsBetweenPublishAndView(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 40: "z0"})
	w.want(0, "a0")
	reached, release := w.stopAt(StepDelta)
	defer release()
	at1 := w.write(map[Blk]string{0: "a1"})
	w.must("delta", reached)
	touched := background(func() string { return w.read(0) })
	mustNot(t, "a touched block is answered as of the old view", touched)
	release()
	if s := <-touched; s != "a1" {
		t.Fatalf("got %q", s)
	}
	w.announced(at1)
}

func TestReadDoesNotJoinALoadBegunBeforeTheCommit(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	zblk := w.db.Zblk(w.f, 0, w.db.Head())
	old, loading := make(chan struct{}), make(chan struct{})
	began := sync.OnceFunc(func() { close(loading) })
	w.stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk && at == w.core.T0() {
			began()
			<-old
		}
		return nil
	})
	one := background(func() string { return w.read(0) }) // holds the block: step 3 waits for it
	w.must("the load", loading)
	reached, release := w.stopAt(StepView)
	tid := w.write(map[Blk]string{0: "a1"})
	w.must("view", reached)
	release()
	if s := w.read(0); s != "a1" {
		t.Fatalf("a read at the new view got %q", s)
	}
	close(old)
	if s := <-one; s != "a0" {
		t.Fatalf("a read at the old view got %q", s)
	}
	w.announced(tid)
	w.want(0, "a1")
}

func TestManyAppendsAgainstASlowLoad(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	zblk := w.db.Zblk(w.f, 0, w.db.Head())
	w.stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == zblk {
			time.Sleep(200 * time.Millisecond)
		}
		return nil
	})
	got := background(func() string { return w.read(0) })
	for blk := Blk(1); blk < 300; blk++ {
		w.write(map[Blk]string{blk: "x"})
		time.Sleep(500 * time.Microsecond)
	}
	select {
	case s := <-got:
		if s != "a0" {
			t.Fatalf("got %q", s)
		}
	case <-time.After(wait.Patience):
		t.Fatal("the read never ends while others append")
	}
	w.announced(w.db.Head())
}

// recorder is a page cache that notes what is dropped.
type recorder struct{ dropped chan int64 }

func (r *recorder) Retrieve(zodb.Oid, int64, []byte) (int, error)    { return 0, nil }
func (r *recorder) Drop(zodb.Oid) error                              { return nil }
func (r *recorder) DropName(zodb.Oid) error                          { return nil }
func (r *recorder) InvalidateAttr(zodb.Oid) error                    { return nil }
func (r *recorder) Upload(zodb.Oid, int64, []byte) error             { return nil }
func (r *recorder) StoreRev(zodb.Tid, zodb.Oid, int64, []byte) error { return nil }
func (r *recorder) Invalidate(_ zodb.Oid, off, _ int64) error {
	r.dropped <- off / testBlksize
	return nil
}

// A page that is invalidated between the reply to a fault and its retry is read again under mmap_lock.
func TestBlockIsLeftAloneWhileItsReadIsUnderWay(t *testing.T) {
	const grace = 50 * time.Millisecond
	pc := &recorder{make(chan int64, 10)}
	w := newWorld(t, Options{Grace: grace}, map[Blk]string{0: "a0", 1: "b0"})
	w.core.pc = pc
	w.want(1, "b0")
	f, _ := w.core.Lookup(context.Background(), w.f)
	d, err := f.Read(context.Background(), w.core.Host(), testBlksize, 0)
	if err != nil {
		t.Fatal(err)
	}
	tid := w.write(map[Blk]string{0: "a1", 1: "b1"})
	if blk := <-pc.dropped; blk != 1 {
		t.Fatalf("block %d is dropped, whose read is under way", blk)
	}
	mustNot(t, "a block is dropped while its read is under way", pc.dropped)
	answered := time.Now()
	d.Done()
	// reads under the new view do not prolong it
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.read(0)
			}
		}
	}()
	<-pc.dropped
	if took := time.Since(answered); took < grace {
		t.Errorf("dropped %s after the answer", took)
	}
	close(stop)
	w.announced(tid)
}

// A long queue is taken in bounded batches, none of it lost.
func TestBatchesAreBounded(t *testing.T) {
	c := &Core{}
	for i := range zodb.Tid(2*maxBatch + 1) {
		c.queue = append(c.queue, zodb.Commit{Tid: i + 1})
	}
	var last zodb.Tid
	for last < 2*maxBatch+1 {
		batch := c.nextBatch()
		if len(batch) == 0 || len(batch) > maxBatch {
			t.Fatalf("a batch of %d", len(batch))
		}
		for _, com := range batch {
			if last++; com.Tid != last {
				t.Fatalf("%s instead of %s", com.Tid, last)
			}
		}
	}
	if batch := c.nextBatch(); last != 2*maxBatch+1 || len(batch) > 0 {
		t.Fatalf("the last was %s, and %d are left", last, len(batch))
	}
}

// Of READs under different views the older may be answered last: the grace counts from that.
func TestGraceCountsFromTheLastAnswer(t *testing.T) {
	const grace = 300 * time.Millisecond
	w := newWorld(t, Options{Grace: grace}, map[Blk]string{0: "a0"})
	w.want(1, "")
	f, _ := w.core.Lookup(context.Background(), w.f)
	var reads []*read
	for i := range 3 {
		w.commit(map[Blk]string{Blk(5 + i): "x"})
		r, err := f.beginRead(w.core.Host(), 0)
		if err != nil {
			t.Fatal(err)
		}
		reads = append(reads, r)
	}
	quiet := func() <-chan error {
		return background(func() error { return w.core.waitQuiet(t.Context(), f, 0, reads[2].view) })
	}
	reads[1].end()
	time.Sleep(grace)
	reads[0].end()
	mustNot(t, "the answer under the oldest view is forgotten after one under a newer view", quiet())
	reads[2].end()
	q := quiet()
	mustNot(t, "the answer under the oldest view is forgotten as the block is read under the present one", q)
	if err := <-q; err != nil {
		t.Fatal(err)
	}
}
