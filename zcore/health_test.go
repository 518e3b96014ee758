package zcore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// healthy waits until health is state, for a reason that has why in it.
func (w *world) healthy(state, why string) (h Health) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("health to be %s because of %q", state, why), func() bool {
		h = w.core.Health()
		return h.State == state && strings.Contains(h.Why, why) && (state != HealthOK || h.Why == "")
	})
	if h.Since.IsZero() || time.Since(h.Since) < 0 || time.Since(h.Since) > time.Minute {
		w.t.Errorf("%s since %v", h.State, h.Since)
	}
	return h
}

func TestHealthOfFiles(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	w.healthy(HealthOK, "")
	f, _ := w.core.Lookup(t.Context(), w.f)
	f.Use(+1)
	w.announced(w.tx(func(tx *zgen.Tx) { tx.DeleteFile(w.f) }))
	h := w.healthy(HealthDegraded, w.f.String())
	if h.Files.Failed != 1 || h.Files.Total != 1 || len(h.Files.List) != 1 {
		t.Errorf("%+v", h.Files)
	}
	w.announced(w.tx(func(tx *zgen.Tx) { tx.RestoreFile(w.f) }))
	w.want(0, "a0")
	w.healthy(HealthDegraded, w.f.String()) // somebody has the old one open
	f.Use(-1)
	if h := w.healthy(HealthOK, ""); h.Files.Failed != 0 || h.Files.Total != 1 {
		t.Errorf("%+v", h.Files)
	}
}

func TestHealthOfLoads(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	f, _ := w.core.Lookup(t.Context(), w.f)
	var fail atomic.Pointer[error]
	w.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error {
		if err := fail.Load(); err != nil {
			return *err
		}
		return nil
	})
	away := zodb.Outage(errors.New("nobody is there"))
	fail.Store(&away)
	if err := readErr(f); err == nil {
		t.Fatal("a load went well")
	}
	h := w.healthy(HealthDegraded, "nobody is there")
	if h.Loads.Failed != 1 || h.Loads.Last.IsZero() || !strings.Contains(h.Loads.Error, "nobody is there") {
		t.Errorf("%+v", h.Loads)
	}
	if again := w.healthy(HealthDegraded, ""); !again.Since.Equal(h.Since) {
		t.Errorf("since %v, then since %v", h.Since, again.Since)
	}
}

// away is a database whose connection comes and goes.
type away struct {
	*memstorage.Store
	conn atomic.Pointer[zodb.Connectivity]
}

func (a *away) Connectivity() (zodb.Connectivity, bool) { return *a.conn.Load(), true }

func TestHealthOfStorage(t *testing.T) {
	a := &away{}
	began := time.Now().Add(-20 * time.Second)
	a.conn.Store(&zodb.Connectivity{Connected: true, Since: began})
	w := newWorldOver(t, Options{}, nil, func(s *memstorage.Store) zodb.Storage { a.Store = s; return a })
	if h := w.healthy(HealthOK, ""); !h.Storage.Connected || !h.Storage.Since.Equal(began) {
		t.Errorf("%+v", h.Storage)
	}
	lost := time.Now().Add(-10 * time.Second)
	a.conn.Store(&zodb.Connectivity{Since: lost, Err: errors.New("connection refused")})
	h := w.healthy(HealthDegraded, "connection refused")
	if h.Storage.Connected || !h.Storage.Since.Equal(lost) || !h.Since.Equal(lost) || h.Storage.Error != "connection refused" {
		t.Errorf("%+v", h)
	}
	a.conn.Store(&zodb.Connectivity{Connected: true, Since: time.Now()})
	w.healthy(HealthOK, "")
}

func TestHealthOfHead(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	reached, release := w.stopAt(StepPublished)
	tid := w.write(map[Blk]string{0: "a1"})
	w.must("commit", reached)
	if h := w.healthy(HealthDegraded, "head is "); h.Head.Behind != 1 || h.Head.Lag < healthLag.Seconds() || h.Head.At == tid.String() {
		t.Errorf("%+v", h.Head)
	}
	release()
	w.announced(tid)
	if h := w.healthy(HealthOK, ""); h.Head.Behind != 0 || h.Head.Lag != 0 || h.Head.At != tid.String() {
		t.Errorf("%+v", h.Head)
	}
}

func TestHealthOfPins(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.want(0, "a0")
	at := w.db.Head()
	l := w.linkOf(newFakeProcess())
	w.wantPins(l.pins(w.f, at), nil)
	w.commit(map[Blk]string{0: "a1"})
	got := background(func() string { return w.read(0) })
	l.want(fmt.Sprintf("2 pin %s #0 @%s", w.f, at))
	if h := w.healthy(HealthDegraded, "owe"); h.Pins.Clients != 1 || h.Pins.Owed != 1 || h.Pins.Who != "pid 1" || h.Pins.Oldest < healthOwed.Seconds() {
		t.Errorf("%+v", h.Pins)
	}
	l.send("2 ack")
	<-got
	if h := w.healthy(HealthOK, ""); !reflect.DeepEqual(h.Pins, PinHealth{}) {
		t.Errorf("%+v", h.Pins)
	}
	l.l.end()
	l.l.Close()
	eventually(t, "the link to be forgotten", func() bool {
		w.core.mu.Lock()
		defer w.core.mu.Unlock()
		return len(w.core.links) == 0
	})
}

func TestHealthInEIOMode(t *testing.T) {
	w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
	w.stor.FailFollow(errors.New("broken on purpose"))
	w.must("EIO mode", w.core.Failed())
	w.healthy(HealthFailed, "broken on purpose")
}
