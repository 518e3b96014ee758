package zcore

import (
	"context"
	"fmt"
	"testing"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

func TestChangedZBigFileIsEIOMode(t *testing.T) {
	for name, change := range map[string]func(*world, *zgen.Tx){
		"blksize": func(w *world, tx *zgen.Tx) { tx.GrowBlksize(w.f, 2*testBlksize) },
		"blktab":  func(w *world, tx *zgen.Tx) { tx.ResetFile(w.f, testBlksize) },
		"deleted": func(w *world, tx *zgen.Tx) { tx.DeleteFile(w.f) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{FileChangeEndsAll: true}, map[Blk]string{0: "a0"})
			w.want(0, "a0")
			// even while a commit waits for a read that nobody will ever answer
			f, _ := w.core.Lookup(context.Background(), w.f)
			d, err := f.Read(context.Background(), w.core.Host(), 10, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Done()
			w.write(map[Blk]string{0: "a1"})
			w.tx(func(tx *zgen.Tx) { change(w, tx) })
			w.must("EIO mode", w.core.Failed())
			if _, err := f.Read(context.Background(), w.core.Host(), 10, 0); err != ErrNotConn {
				t.Fatalf("read in EIO mode: %v", err)
			}
		})
	}
}

func TestStorageFailsForGoodIsEIOMode(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	l := w.link()
	w.stor.FailFollow(fmt.Errorf("broken"))
	w.must("EIO mode", w.core.Failed())
	if _, err := l.l.Read(context.Background(), 10); err != ErrNotConn {
		t.Fatalf("read of a link in EIO mode: %v", err)
	}
}

// A server that ends shows nobody what he must not see: those who wait for a pin get an error.
func TestEndOfTheCoreIsNoAcknowledgement(t *testing.T) {
	for range 20 {
		w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
		at := w.db.Head()
		w.want(0, "a0")
		l := w.link()
		w.wantPins(l.pins(w.f, at), nil)
		w.commit(map[Blk]string{0: "a1"})
		f, _ := w.core.Lookup(context.Background(), w.f)
		read := background(func() error {
			_, err := f.Read(context.Background(), w.core.Host(), 10, 0)
			return err
		})
		l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
		w.cancel()
		if err := <-read; err == nil {
			t.Fatal("a read went well whose pin was not acknowledged")
		}
		if _, err := f.Read(context.Background(), w.core.Host(), 10, 0); err == nil {
			t.Fatal("a read after the end went well")
		}
	}
}

func TestGapKeepsWatchesOutAndServesTheRest(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0", 1: "b0"})
	at0 := w.db.Head()
	w.want(0, "a0")
	w.want(1, "b0")
	l := w.link()
	w.wantPins(l.pins(w.f, at0), nil)
	w.gapNext = true
	w.commit(map[Blk]string{0: "a1"})
	w.want(1, "b0")
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at0))
	l.send("2 ack")
	if s := <-got; s != "a1" {
		t.Fatalf("got %q", s)
	}
	l2 := w.link()
	l2.send("1 watch %s @%s", w.f, at0+1)
	if s := l2.recv(); len(s) < 70 || s[:70] != fmt.Sprintf("1 error setup watch f<%s> @%s: too far away back", w.f, at0+1)[:70] {
		t.Fatalf("got %q", s)
	}
	w.wantPins(l2.pins(w.f, at0), map[Blk]zodb.Tid{0: at0})
}
