package zcore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// While the database is away a client may be unable to re-map: the clock of its pin stands still, whether a load has failed or
// the driver knows that the connection is lost and loads have not failed yet. Once it is back the clock runs.
func TestPinClocksStandStillInAnOutage(t *testing.T) {
	for name, how := range map[string]struct{ lose, find func(*world, *away) }{
		"loads fail": {
			func(w *world, _ *away) {
				w.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error { return errAway })
			},
			func(w *world, _ *away) { w.stor.SetLoadHook(nil) },
		},
		"connection lost": {
			func(_ *world, a *away) { a.conn.Store(&zodb.Connectivity{Since: time.Now(), Err: errAway}) },
			func(_ *world, a *away) { a.conn.Store(&zodb.Connectivity{Connected: true, Since: time.Now()}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &away{}
			a.conn.Store(&zodb.Connectivity{Connected: true, Since: time.Now()})
			init := map[Blk]string{0: "a0"}
			const timeout = 200 * time.Millisecond
			w := newWorldOver(t, Options{PinTimeout: timeout}, init, func(s *memstorage.Store) zodb.Storage { a.Store = s; return a })
			at := w.db.Head()
			w.want(0, "a0")
			p := newFakeProcess()
			l := w.linkOf(p)
			w.wantPins(l.pins(w.f, at), nil)
			w.commit(map[Blk]string{0: "a1"})
			read := background(func() string { return w.headText(0) })
			l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
			old, err := w.core.LookupRev(t.Context(), at, w.f) // kept in memory for the pin
			if err != nil {
				t.Fatal(err)
			}
			how.lose(w, a)
			for end := time.Now().Add(5 * timeout); time.Now().Before(end); time.Sleep(timeout / 10) {
				w.core.LookupRev(t.Context(), w.db.Head(), w.f) // fails, in the one case
				if d, err := old.Read(t.Context(), 2, 0); err != nil || dataText(d) != "a0" {
					t.Fatalf("what is in memory, which is no answer of the database: %q, %v", dataText(d), err)
				}
			}
			if n := p.signals.Load(); n != 0 {
				t.Fatalf("it got %d signals in an outage", n)
			}
			how.find(w, a)
			w.core.LookupRev(t.Context(), w.db.Head(), w.f) // the database answers
			eventually(t, "an end of patience after the outage", func() bool { return p.signals.Load() > 0 })
			l.l.end()
			<-read
		})
	}
}
