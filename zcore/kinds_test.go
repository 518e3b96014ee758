package zcore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// failLoads makes loads of one object fail as of tids after since.
func (w *world) failLoads(bad zodb.Oid, since zodb.Tid, err error) {
	w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == bad && at > since {
			return err
		}
		return nil
	})
}

// readOf reads the first block of a file under head.
func (w *world) readOf(f zodb.Oid) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	h, err := w.core.Lookup(ctx, f)
	if err != nil {
		return err
	}
	d, err := h.Read(ctx, w.core.Host(), 10, 0)
	if d.Done != nil {
		d.Done()
	}
	return err
}

// One object that the database cannot give (a damaged record behind a ZEO server, a bad sector), while all else is
// answered: the file that needs it fails, head moves on, and the pin clocks of others run.
func TestOneUnreadableNodeFailsItsFileOnly(t *testing.T) {
	for _, cause := range []error{zodb.Answer(errors.New("CorruptedDataError")), errors.New("of unknown kind")} {
		t.Run(cause.Error(), func(t *testing.T) {
			w := newWorld(t, Options{PinTimeout: time.Second}, map[Blk]string{0: "a0"})
			g := w.newFile() // another file
			if err := w.readOf(g); err != nil {
				t.Fatal(err)
			}
			at0 := w.db.Head()
			w.want(0, "a0")
			p := newFakeProcess()
			l := w.linkOf(p)
			w.wantPins(l.pins(w.f, at0), nil)
			w.commit(map[Blk]string{0: "a1"})
			bf, _ := w.db.File(g, w.db.Head())
			w.failLoads(bf.Blktab, w.db.Head(), cause) // its only node
			w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(g, 1, []byte("y"), zgen.Blk0) }))

			if err := w.readOf(g); !errors.Is(err, ErrIO) {
				t.Errorf("read of the file that failed: %v", err)
			}
			got := background(func() error { return w.readOf(w.f) })
			l.recv() // a pin, which is not acknowledged
			if err := <-got; err != nil {
				t.Errorf("read beside a client that does not acknowledge: %v", err)
			}
			if p.signals.Load() == 0 {
				t.Error("the client that does not acknowledge was left alone: its clock stood still")
			}
			if w.core.isFailed() {
				t.Error("the core is in EIO mode")
			}
			w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(g, 1, []byte("z"), zgen.Blk0) })) // the file that failed
			w.commit(map[Blk]string{0: "a2"})
			w.want(0, "a2")
			l2 := w.link()
			l2.send("1 watch %s @%s", g, w.db.Head())
			if s, want := l2.recv(), fmt.Sprintf("1 error setup watch f<%s>", g); len(s) < len(want) || s[:len(want)] != want {
				t.Errorf("watch of the file that failed: %s", s)
			}
		})
	}
}
