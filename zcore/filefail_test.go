package zcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// fileChanges are ways in which a bigfile cannot be served any more as what it was. again tells that there is a
// bigfile to be looked up afterwards.
var fileChanges = map[string]struct {
	change func(*world)
	again  bool
}{
	"deleted":        {func(w *world) { w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }) }, false},
	"block size":     {func(w *world) { w.tx(func(tx *zgen.Tx) { tx.GrowBlksize(w.f, 2*testBlksize) }) }, true},
	"table":          {func(w *world) { w.tx(func(tx *zgen.Tx) { tx.ResetFile(w.f, testBlksize) }) }, true},
	"class":          {func(w *world) { w.tx(func(tx *zgen.Tx) { tx.Object(w.f, "x") }) }, false},
	"state":          {func(w *world) { w.raw(w.f, []byte("\x80\x02}q\x01.")) }, false},
	"table deleted":  {func(w *world) { w.raw(w.tableOf(), nil) }, false},
	"table damaged":  {func(w *world) { w.raw(w.tableOf(), []byte("\x80\x02N.")) }, false},
	"deleted in gap": {func(w *world) { w.gapNext = true; w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }) }, false},
}

// raw commits an object as it is given.
func (w *world) raw(oid zodb.Oid, data []byte) {
	w.t.Helper()
	if err := w.stor.Commit(w.db.Head()+1, map[zodb.Oid][]byte{oid: data}); err != nil {
		w.t.Fatal(err)
	}
}

// tableOf returns the root of the block table.
func (w *world) tableOf() zodb.Oid {
	f, err := w.core.Lookup(context.Background(), w.f)
	if err != nil {
		w.t.Fatal(err)
	}
	return f.h.Blktab
}

// readErr reads the beginning of a file.
func readErr(f *HeadFile) error {
	d, err := f.Read(context.Background(), f.c.Host(), 10, 0)
	if d.Done != nil {
		d.Done()
	}
	return err
}

// dropper is a page cache that notes files dropped whole, and head when that was.
type dropper struct {
	recorder
	c    *Core
	what []string
}

func (d *dropper) Drop(oid zodb.Oid) error {
	d.what = append(d.what, fmt.Sprintf("pages of %s at %s", oid, d.c.Head()))
	return nil
}

func (d *dropper) DropName(oid zodb.Oid) error {
	d.what = append(d.what, fmt.Sprintf("name of %s at %s", oid, d.c.Head()))
	return nil
}

func TestFileFailsAlone(t *testing.T) {
	for name, how := range fileChanges {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
			other := w.newFile()
			w.want(0, "a0")
			at := w.db.Head()
			pc := &dropper{recorder: recorder{make(chan int64, 100)}, c: w.core}
			w.core.pc = pc
			f, _ := w.core.Lookup(t.Context(), w.f)
			g, _ := w.core.Lookup(t.Context(), other)
			l := w.link()
			w.wantPins(l.pins(w.f, at), nil)
			w.wantPins(l.pins(other, at), nil)

			how.change(w)
			tid, _ := w.stor.Head(t.Context())
			w.announced(tid)
			if w.core.Err() != nil {
				t.Fatalf("EIO mode: %v", w.core.Err())
			}
			if err := readErr(f); !errors.Is(err, ErrIO) || !strings.Contains(err.Error(), w.f.String()) {
				t.Errorf("read: %v; want an I/O error that names the file", err)
			}
			if _, err := f.Attr(t.Context()); !errors.Is(err, ErrIO) {
				t.Errorf("attributes: %v; want an I/O error", err)
			}
			want := fmt.Sprintf("[pages of %s at %s name of %s at %s]", w.f, at, w.f, at)
			if got := fmt.Sprint(pc.what); got != want {
				t.Errorf("dropped %s; want %s, before head moves", got, want)
			}
			if line := l.recv(); !strings.HasPrefix(line, fmt.Sprintf("0 error: watch f<%s> @%s ended: ", w.f, at)) {
				t.Errorf("the link says %q", line)
			}
			r, err := w.core.LookupRev(t.Context(), at, w.f)
			if err != nil {
				t.Fatal(err)
			}
			if d, err := r.Read(t.Context(), 2, testBlksize); err != nil || dataText(d) != "b0" {
				t.Errorf("as of before: %q, %v", dataText(d), err)
			}
			again, err := w.core.Lookup(t.Context(), w.f)
			if how.again {
				if err != nil || again == f || readErr(again) != nil {
					t.Errorf("looked up again: %v, the same: %v", err, again == f)
				}
			} else if err == nil {
				t.Error("looked up again, a file is found")
			}

			// others go on, on the same link too
			w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(other, 0, []byte("y"), zgen.Blk0) }))
			read := background(func() error { return readErr(g) })
			l.want(fmt.Sprintf("2 pin %s #0 @%s", other, at))
			l.send("2 ack")
			if err := <-read; err != nil {
				t.Errorf("another file: %v", err)
			}
			if s := w.core.Stats(); s.Watch != 1 || s.PinnedBlk != 1 {
				t.Errorf("%+v; want the watch of the other file alone", s)
			}
		})
	}
}

// A file may fail, be found again and fail again; what is looked up is what is there then.
func TestFileFailsTwice(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	for i := range 3 {
		f, err := w.core.Lookup(t.Context(), w.f)
		if err != nil {
			t.Fatal(err)
		}
		w.announced(w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }))
		if _, err := w.core.Lookup(t.Context(), w.f); !errors.Is(err, ErrNotExist) {
			t.Fatalf("look-up of a deleted file: %v; want ErrNotExist", err)
		}
		made := w.tx(func(tx *zgen.Tx) { tx.RestoreFile(w.f) })
		w.announced(made)
		w.want(0, fmt.Sprintf("a%d", i))
		if err := readErr(f); !errors.Is(err, ErrIO) {
			t.Fatalf("read of the old one: %v", err)
		}
		l := w.link()
		l.send("1 watch %s @%s", w.f, made-1)
		if got := l.recv(); !strings.Contains(got, "file epoch detected @"+made.String()) {
			t.Fatalf("a watch from before: %q", got)
		}
		w.commit(map[Blk]string{0: fmt.Sprintf("a%d", i+1)})
		w.want(0, fmt.Sprintf("a%d", i+1))
	}
	if n := w.core.tail.Tracked(); n != 1 {
		t.Errorf("%d blocks are tracked", n)
	}
	// deleted and made again while one batch is waited for
	f, _ := w.core.Lookup(t.Context(), w.f)
	reached, release := w.stopAt(StepPublished)
	w.write(map[Blk]string{1: "x"})
	w.must("commit", reached)
	w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) })
	last := w.tx(func(tx *zgen.Tx) { tx.RestoreFile(w.f) })
	release()
	w.announced(last)
	w.want(1, "x")
	if err := readErr(f); !errors.Is(err, ErrIO) {
		t.Fatalf("read of the old one: %v", err)
	}
}

// A READ that waits for the pin of a client goes on when the client's watch ends with its file, and must not show
// what the client must not see.
func TestReadInFlightOfAFileThatFails(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	at := w.db.Head()
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1"})
	f, _ := w.core.Lookup(t.Context(), w.f)
	read := background(func() error { return readErr(f) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
	w.announced(w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }))
	if err := <-read; !errors.Is(err, ErrIO) {
		t.Fatalf("the READ: %v; want an I/O error", err)
	}
	if got := l.recv(); !strings.HasPrefix(got, "0 error: ") {
		t.Fatalf("the link says %q", got)
	}
	l.send("2 ack") // late, which is no fault
	l.send("3 watch %s -", w.f)
	l.want("3 ok")
}

// The same for a base, whose bytes stay what they are.
func TestBaseOfAFileThatFails(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	base := w.db.Head()
	dom := w.core.NewDomain("guest", true)
	w.want(0, "a0")
	at := w.commit(map[Blk]string{0: "a1"})
	b, err := w.core.LookupBase(t.Context(), base, w.f)
	if err != nil {
		t.Fatal(err)
	}
	ll, err := w.core.OpenLink(dom, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &testLink{t: t, l: ll}
	l.send("1 watch %s @%s base @%s", w.f, at, base)
	l.want("1 ok")
	read := background(func() error { _, err := b.Read(context.Background(), dom, 10, 0); return err })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
	w.announced(w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }))
	if err := <-read; !errors.Is(err, ErrIO) {
		t.Fatalf("the READ: %v; want an I/O error", err)
	}
	if got := l.recv(); !strings.HasPrefix(got, "0 error: ") {
		t.Fatalf("the link says %q", got)
	}
	if _, err := b.Read(t.Context(), dom, 10, testBlksize); !errors.Is(err, ErrIO) {
		t.Fatalf("a READ afterwards: %v; want an I/O error", err)
	}
}

// A watch that is being set up while its file fails is refused, wherever it had got to.
func TestWatchOfAFileThatFails(t *testing.T) {
	for _, step := range []Step{StepWatchHold, StepWatchFile, StepWatchEnter, StepWatchView, StepWatchChanged} {
		t.Run(string(step), func(t *testing.T) {
			w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
			w.want(0, "a0")
			at := w.db.Head()
			l := w.link()
			reached, release := w.stopAt(step)
			l.send("1 watch %s @%s", w.f, at)
			w.must("watch", reached)
			w.announced(w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }))
			release()
			line := l.recv()
			if strings.HasPrefix(line, "0 error: ") {
				line = l.recv()
			}
			if !strings.HasPrefix(line, fmt.Sprintf("1 error setup watch f<%s> @%s: ", w.f, at)) {
				t.Fatalf("got %q", line)
			}
			eventually(t, "the watch to be gone", func() bool { return w.core.Stats().Watch == 0 && w.core.tail.Holds() == 1 })
		})
	}
}

// No pin of a watch comes after the line that says that it has ended.
func TestNoPinAfterAWatchEndedWithItsFile(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	at := w.db.Head()
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1"})
	f, _ := w.core.Lookup(t.Context(), w.f)
	asking, ask := w.stopAt(StepPinSend)
	read := background(func() error { return readErr(f) })
	w.must("pin", asking)
	ending, end := w.stopAt(StepWatchDropped)
	tid := w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) })
	w.must("end of the watch", ending)
	ask()
	for range 30 { // a moment for a pin that is sent
		l.l.mu.Lock()
		asked := len(l.l.asked)
		l.l.mu.Unlock()
		if asked > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	end()
	w.announced(tid)
	if err := <-read; !errors.Is(err, ErrIO) {
		t.Errorf("read: %v", err)
	}
	if line := l.recv(); !strings.HasPrefix(line, "0 error: ") {
		t.Errorf("got %q", line)
	}
	l.send("3 watch %s -", w.f)
	if line := l.recv(); !strings.HasPrefix(line, "3 ") {
		t.Errorf("got %q", line)
	}
}

// A client that watches again while its file fails is not sent back to head, where nothing is any more.
func TestWatchAgainOfAFileThatFails(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	at := w.db.Head()
	later := w.commit(map[Blk]string{0: "a1"})
	w.commit(map[Blk]string{0: "a2"})
	l := w.link()
	w.wantPins(l.pins(w.f, at), map[Blk]zodb.Tid{0: at})
	watched, goOn := w.stopAt(StepWatchView)
	l.send("1 watch %s @%s", w.f, later)
	w.must("watch", watched)
	lost, end := w.stopAt(StepFileLost)
	tid := w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) })
	w.must("failure", lost)
	goOn()
	if line := l.recv(); !strings.HasPrefix(line, "1 error ") {
		t.Errorf("got %q", line)
	}
	end()
	w.announced(tid)
	if line := l.recv(); !strings.HasPrefix(line, "0 error: ") {
		t.Errorf("got %q", line)
	}
	if l.l.pushOK(&watchOnLink{}, 1) {
		t.Error("ok is said of a watch that is gone")
	}
}

// A READ that was answered but has not reached the client is waited for before its page is dropped.
func TestReadUnderWayOfAFileThatFails(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.core.pc = &recorder{make(chan int64, 100)}
	f, _ := w.core.Lookup(t.Context(), w.f)
	d, err := f.Read(t.Context(), w.core.Host(), testBlksize, 0)
	if err != nil {
		t.Fatal(err)
	}
	tid := w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) })
	done := background(func() error { return w.core.waitHead(context.Background(), tid) })
	mustNot(t, "head moves before an answer is there", done)
	d.Done()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What is being uploaded when a file fails is dropped with the rest.
func TestUploadToAFileThatFails(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: strings.Repeat("a", testBlksize)})
	pc := &uploads2{dropper: dropper{recorder: recorder{make(chan int64, 100)}, c: w.core}}
	w.core.pc = pc
	f, _ := w.core.Lookup(t.Context(), w.f)
	f.Attr(t.Context())
	reached, release := w.stopAt(StepUpload)
	if err := readErr(f); err != nil {
		t.Fatal(err)
	}
	w.must("upload", reached)
	tid := w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) })
	done := background(func() error { return w.core.waitHead(context.Background(), tid) })
	mustNot(t, "head moves before what is being uploaded is there and dropped", done)
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(pc.what); !strings.HasPrefix(got, "[upload pages of ") {
		t.Errorf("events: %s", got)
	}
}

type uploads2 struct{ dropper }

func (u *uploads2) Upload(zodb.Oid, int64, []byte) error {
	u.what = append(u.what, "upload")
	return nil
}

// A block that is damaged fails alone; its file and others do not.
func TestBlockFailsAlone(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	w.want(0, "a0")
	w.want(1, "b0")
	f, _ := w.core.Lookup(t.Context(), w.f)
	w.raw(w.db.Zblk(w.f, 0, w.db.Head()), []byte("\x80\x02N."))
	tid, _ := w.stor.Head(t.Context())
	w.announced(tid)
	if err := readErr(f); !errors.Is(err, ErrIO) {
		t.Errorf("read of the damaged block: %v", err)
	}
	w.want(1, "b0")
	w.commit(map[Blk]string{0: "a2"})
	w.want(0, "a2")
}
