package neo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

// fakes runs a test with a fake cluster of two storages, for both protocols.
func fakes(t *testing.T, fn func(t *testing.T, f *fake)) {
	t.Parallel()
	for _, g := range generations() {
		t.Run(g.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, newFake(t, g, 2))
		})
	}
}

func text(s string) []byte { return []byte("\x80\x02U\x01" + s) }

// reported collects n commits.
func reported(t testing.TB, s *Storage, after zodb.Tid, n int) []zodb.Commit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var l []zodb.Commit
	enough := errors.New("enough")
	err := s.Follow(ctx, after, func(c zodb.Commit) error {
		slices.Sort(c.Oids)
		if l = append(l, c); len(l) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("%d commits of %d, %v", len(l), n, err)
	}
	return l
}

func wantCommits(t testing.TB, got []zodb.Commit, want ...zodb.Commit) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reported %v; want %v", got, want)
	}
}

// A storage whose data is damaged is left for the other; where all are, the read fails, with the object named.
func TestWrongChecksum(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		tid := f.store(map[zodb.Oid][]byte{1: text("a")})
		var damaged atomic.Int32
		damaged.Store(1)
		f.hook = func(n *fakeNode, _ *fakeConn, m message) message {
			q, ok := m.(*askObject)
			if !ok || n.id > damaged.Load() {
				return nil
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			a, ok := f.object(q).(*answerObject)
			if !ok {
				return nil
			}
			a.data = append(slices.Clone(a.data), 'x')
			return a
		}
		s := f.open()
		for range 20 {
			if rec, err := s.LoadAt(context.Background(), 1, tid); err != nil || !bytes.Equal(rec.Data, text("a")) {
				t.Fatalf("%q, %v", rec.Data, err)
			}
		}
		damaged.Store(2)
		_, err := s.LoadAt(context.Background(), 1, tid)
		if zodb.KindOf(err) != zodb.KindAnswer || zodb.IsAbsent(err) || !strings.Contains(err.Error(), "checksum") ||
			!strings.Contains(err.Error(), "0000000000000001@") {
			t.Errorf("both storages damaged: %v", err)
		}
		if _, err := s.LoadAt(context.Background(), 2, tid); !errors.Is(err, zodb.ErrNoObject) {
			t.Errorf("another object: %v", err)
		}
	})
}

// Protocol 5 makes a transaction of a pack; it names no object. Deleted objects are found out, checked ones are not told.
func TestPackCommit(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t0 := f.store(map[zodb.Oid][]byte{1: text("a"), 2: text("b"), 3: text("c")})
		s := f.open()
		pack := f.commit(nil)
		t1 := f.commit(map[zodb.Oid][]byte{1: nil, 2: text("d")}, 3)
		t2 := f.commit(map[zodb.Oid][]byte{2: nil}, 3)
		wantCommits(t, reported(t, s, t0, 3), zodb.Commit{Tid: pack}, zodb.Commit{Tid: t1, Oids: []zodb.Oid{1, 2}},
			zodb.Commit{Tid: t2, Oids: []zodb.Oid{2}})
	})
}

// A storage that has not noticed the end of a transaction yet is asked again: for the transaction, and for lists.
func TestLateUnlock(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t0 := f.store(map[zodb.Oid][]byte{1: text("a"), 2: text("b")})
		var late atomic.Int32
		f.hook = func(_ *fakeNode, _ *fakeConn, m message) message {
			if late.Load() <= 0 {
				return nil
			}
			switch m.(type) {
			case *askTransaction:
				late.Add(-1)
				return &answerError{codeTIDNotFound, nil}
			case *askTIDsFrom:
				late.Add(-1)
				return &answerTIDsFrom{}
			}
			return nil
		}
		s := f.open(func(o *Options) { o.MaxQueue = 3 })
		late.Store(10)
		t1 := f.commit(map[zodb.Oid][]byte{1: nil})
		t2 := f.commit(map[zodb.Oid][]byte{2: text("c")}) // no longer queued
		t3 := f.commit(map[zodb.Oid][]byte{2: text("d")})
		for h := zodb.Tid(0); h < t3; h, _ = s.Head(context.Background()) {
		}
		wantCommits(t, reported(t, s, t0, 3), zodb.Commit{Tid: t1, Oids: []zodb.Oid{1}}, zodb.Commit{Tid: t2, Oids: []zodb.Oid{2}},
			zodb.Commit{Tid: t3, Oids: []zodb.Oid{2}})
	})
}

// A transaction that was finished since the identification, and that no storage lists yet, is not missed.
func TestGapEndsAtAnnounced(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t0 := f.store(map[zodb.Oid][]byte{1: text("a")})
		s := f.open()
		done := make(chan []zodb.Commit)
		go func() { done <- reported(t, s, t0, 2) }()
		var t1, t2 zodb.Tid
		var once sync.Once
		f.hook = func(n *fakeNode, c *fakeConn, m message) message {
			switch m := m.(type) {
			case *askLastTransaction: // announced before the answer
				once.Do(func() { t2 = f.commit(map[zodb.Oid][]byte{1: text("c")}) })
			case *askTIDsFrom:
				f.mu.Lock()
				last := f.tids[len(f.tids)-1]
				f.mu.Unlock()
				if m.to >= last {
					q := *m
					q.to = last - 1
					return n.answer(c, &q)
				}
			}
			return nil
		}
		f.mu.Lock()
		for c := range f.conns {
			delete(f.conns, c)
			c.Close()
		}
		f.mu.Unlock()
		t1 = f.store(map[zodb.Oid][]byte{1: text("b")})
		wantCommits(t, <-done, zodb.Commit{Tid: t1, Oids: []zodb.Oid{1}}, zodb.Commit{Tid: t2, Oids: []zodb.Oid{1}})
	})
}

// Objects are listed in order over all partitions, without the deleted ones, though pages may be empty.
func TestOids(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		objs := map[zodb.Oid][]byte{}
		var want []zodb.Oid
		for i := range zodb.Oid(9000) {
			objs[i*i/7+i] = text("x")
		}
		t0 := f.store(objs)
		gone := map[zodb.Oid][]byte{}
		for oid := range objs {
			if oid%4 < 3 && oid > 1000 && oid < 2_000_000 || oid%5 == 0 {
				gone[oid] = nil
			} else {
				want = append(want, oid)
			}
		}
		slices.Sort(want)
		t1 := f.store(gone)
		f.store(map[zodb.Oid][]byte{1 << 40: text("later")})
		s := f.open()
		for at, n := range map[zodb.Tid]int{t0: len(objs), t1: len(want)} {
			var got []zodb.Oid
			if err := s.Oids(context.Background(), at, func(o zodb.Oid) error { got = append(got, o); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(got) != n || !slices.IsSorted(got) || at == t1 && !slices.Equal(got, want) {
				t.Errorf("%d objects at %s; want %d", len(got), at, n)
			}
		}
		stop := errors.New("stop")
		if err := s.Oids(context.Background(), t1, func(zodb.Oid) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("stopped: %v", err)
		}
	})
}

// Storages that do not know the question close the connection: then transactions are asked.
func TestOidsUnknown(t *testing.T) {
	t.Parallel()
	f := newFake(t, packed, 2)
	f.store(map[zodb.Oid][]byte{1: text("a"), 5: text("b")})
	tid := f.store(map[zodb.Oid][]byte{5: nil, 9: text("c")}, 1)
	f.hook = func(_ *fakeNode, c *fakeConn, m message) message {
		if _, ok := m.(*askOIDsFrom); ok {
			c.Close()
		}
		return nil
	}
	var got []zodb.Oid
	err := f.open().Oids(context.Background(), tid, func(o zodb.Oid) error { got = append(got, o); return nil })
	if err != nil || !slices.Equal(got, []zodb.Oid{1, 9}) {
		t.Errorf("%v, %v", got, err)
	}
}

// We ask for reading only, with the node id of before; storages are told what the master gave us.
func TestIdentification(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		tid := f.store(map[zodb.Oid][]byte{1: text("a")})
		s := f.open()
		f.cut()
		var toMaster []*requestIdentification
		for end := time.Now().Add(time.Minute); len(toMaster) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := s.LoadAt(context.Background(), 1, tid); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			toMaster = nil
			for _, m := range f.asked {
				if q, ok := m.(*requestIdentification); ok && q.stamp == noStamp {
					toMaster = append(toMaster, q)
				}
			}
			f.mu.Unlock()
		}
		if len(toMaster) < 2 || toMaster[0].node != 0 || toMaster[1].node != -536870911 {
			t.Errorf("identified as %+v", toMaster)
		}
		for _, q := range toMaster {
			if q.readOnly != (f.gen == packed) || string(q.cluster) != "fake" || q.kind != typeClient || q.addr != (address{}) {
				t.Errorf("identified as %+v", q)
			}
		}
	})
}

// Storages say no in all ways: another is asked, or the same again, and the read succeeds.
func TestStoragesRefuse(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		tid := f.store(map[zodb.Oid][]byte{1: text("a")})
		var n atomic.Int32
		f.hook = func(node *fakeNode, c *fakeConn, m message) message {
			_, load := m.(*askObject)
			_, ident := m.(*requestIdentification)
			if node.id < 0 || !load && !ident {
				return nil
			}
			switch n.Add(1) % 8 {
			case 0:
				return &answerError{codeNotReady, []byte("Retry Later")}
			case 1:
				defer c.Close()
				return &answerError{codeProtocolError, []byte("already connected")}
			case 2:
				c.Close()
			case 3:
				if load {
					return &answerError{codeNonReadableCell, nil}
				}
			case 4:
				c.notify(&flushLog{})
				c.Write(bytes.Repeat([]byte{0xff}, 20)) // neither protocol
			}
			return nil
		}
		s := f.open()
		for range 30 {
			if rec, err := s.LoadAt(context.Background(), 1, tid); err != nil || !bytes.Equal(rec.Data, text("a")) {
				t.Fatalf("%q, %v", rec.Data, err)
			}
		}
	})
}

// A storage that hangs is not waited for where another has the same, also when the master is connected to anew.
func TestHangingStorage(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t0 := f.store(map[zodb.Oid][]byte{1: text("a")})
		s := f.open(func(o *Options) { o.Timeout = 15 * time.Second })
		gate := make(chan struct{})
		defer close(gate)
		f.hook = func(n *fakeNode, _ *fakeConn, m message) message {
			if n.id == 1 {
				<-gate
			}
			return nil
		}
		start := time.Now()
		done := make(chan []zodb.Commit)
		go func() { done <- reported(t, s, t0, 2) }()
		t1 := f.commit(map[zodb.Oid][]byte{1: text("b")})
		for range 8 {
			if _, err := s.LoadAt(context.Background(), 1, t0); err != nil {
				t.Fatal(err)
			}
		}
		f.cut()
		t2 := f.store(map[zodb.Oid][]byte{1: text("c")})
		wantCommits(t, <-done, zodb.Commit{Tid: t1, Oids: []zodb.Oid{1}}, zodb.Commit{Tid: t2, Oids: []zodb.Oid{1}})
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("that took %v", took)
		} else {
			t.Logf("that took %v", took)
		}
	})
}

// The master breaks the protocol in all ways: the connection is made anew, reads succeed, no commit is missed.
func TestHostileMaster(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		t0 := f.store(map[zodb.Oid][]byte{1: text("a")})
		s := f.open()
		acts := []func(){
			func() { f.tell(&invalidateObjects{t0, nil}) },                                           // out of order
			func() { f.tell(&partitionTable{id: 9}) },                                                // no partitions
			func() { f.tell(&partitionChanges{9, 0, []cellChange{{99, cellInfo{1, 1}}}}) },           // beyond
			func() { f.tell(&stopOperation{}) },                                                      //
			func() { f.tell(&notPrimaryMaster{0, []address{{"127.0.0.1", 1}, f.nodes[0].addr}}) },    // no longer
			func() { f.tell(&pong{}) },                                                               // not asked for
			func() { f.raw([]byte("\x94\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")) }, // garbage
			func() { f.tell(&closeClient{}); f.tell(&clusterInformation{clusterRunning}); f.cut() },  //
			func() { f.tell(&ping{}); f.tell(&acceptIdentification{}) },                              //
		}
		done := make(chan []zodb.Commit)
		go func() { done <- reported(t, s, t0, len(acts)) }()
		var want []zodb.Commit
		for _, act := range acts {
			act()
			want = append(want, zodb.Commit{Tid: f.commit(map[zodb.Oid][]byte{1: text("b")}), Oids: []zodb.Oid{1}})
			if _, err := s.LoadAt(context.Background(), 1, t0); err != nil {
				t.Error(err)
			}
			waitIdentified(t, f)
		}
		wantCommits(t, <-done, want...)
	})
}

// raw sends bytes to all clients.
func (f *fake) raw(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Write(b)
	}
}

func waitIdentified(t testing.TB, f *fake) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		f.mu.Lock()
		n := len(f.conns)
		f.mu.Unlock()
		if n == 1 {
			return
		}
	}
	t.Fatal("the client does not come back")
}

// Codes and node states that are not known, and a server's requests with numbers of ours, do no harm.
func TestUnknownMessages(t *testing.T) {
	t.Parallel()
	f := newFake(t, packed, 1)
	tid := f.store(map[zodb.Oid][]byte{1: text("a")})
	f.hook = func(_ *fakeNode, c *fakeConn, m message) message {
		if _, ok := m.(*askObject); ok {
			for id := range uint32(4) {
				c.send(id, &ping{})
				c.Write([]byte{0x93, byte(id), 0x77, 0x91, 0x81, 0xa1, 'k', 0xd4, 9, 9})
			}
		}
		return nil
	}
	s := f.open()
	f.tell(&nodeInformation{noStamp, []nodeInfo{{9, address{"x", 1}, 77, 9, noStamp}}})
	for range 5 {
		if _, err := s.LoadAt(context.Background(), 1, tid); err != nil {
			t.Fatal(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.asked, func(m message) bool { _, ok := m.(*pong); return ok }) {
		t.Error("a server's ping is not answered")
	}
	if n := len(f.conns); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// No oid and no tid that a storage could end at is sent.
func TestNoSuchOid(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		tid := f.store(map[zodb.Oid][]byte{1: text("a")})
		s := f.open()
		for _, oid := range []zodb.Oid{1 << 63, none} {
			if _, err := s.LoadAt(context.Background(), oid, tid); !errors.Is(err, zodb.ErrNoObject) {
				t.Errorf("load of %s: %v", oid, err)
			}
			if _, _, err := s.SerialAt(context.Background(), oid, tid); !errors.Is(err, zodb.ErrNoObject) {
				t.Errorf("serial of %s: %v", oid, err)
			}
		}
		for _, at := range []zodb.Tid{zodb.TidMax - 1, zodb.TidMax, none} {
			if rec, err := s.LoadAt(context.Background(), 1, at); err != nil || rec.Serial != tid {
				t.Errorf("load at %s: %v, %v", at, rec.Serial, err)
			}
		}
		if _, err := s.LoadAt(context.Background(), 1, 0); !errors.Is(err, zodb.ErrNoData) {
			t.Errorf("load at 0: %v", err)
		}
	})
}

// A batch asks all storages at once, and is answered right whatever the order.
func TestBatch(t *testing.T) {
	fakes(t, func(t *testing.T, f *fake) {
		objs := map[zodb.Oid][]byte{}
		var oids []zodb.Oid
		for i := range zodb.Oid(500) {
			objs[i] = text(fmt.Sprint(i))
			oids = append(oids, i)
		}
		tid := f.store(objs)
		oids = append(oids, 501)
		s := f.open()
		got := map[int]bool{}
		err := s.LoadBatch(context.Background(), oids, tid, func(i int, rec zodb.Record, err error) error {
			if got[i] || oids[i] == 501 && !errors.Is(err, zodb.ErrNoObject) || oids[i] != 501 && !bytes.Equal(rec.Data, objs[oids[i]]) {
				t.Errorf("%d: %q, %v", i, rec.Data, err)
			}
			got[i] = true
			return nil
		})
		if err != nil || len(got) != len(oids) {
			t.Errorf("%d of %d, %v", len(got), len(oids), err)
		}
		stop := errors.New("stop")
		if err := s.LoadBatch(context.Background(), oids, tid, func(int, zodb.Record, error) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("stopped: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.LoadBatch(ctx, oids, tid, func(int, zodb.Record, error) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
