package neo_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"wcfs/zcore/zodb"
)

// commit makes a transaction; no data deletes, and the announcement does not name what is deleted.
func (f *fake) commit(tid zodb.Tid, objs map[zodb.Oid][]byte) {
	f.transact(fakeTxn{tid: tid, desc: "put"}, func(x *fakeTxn) (named []any) {
		for oid, data := range objs {
			f.revs[oid] = append(f.revs[oid], fakeRev{tid: tid, data: data})
			x.oids = append(x.oids, oid)
			if data != nil {
				named = append(named, oid)
			}
		}
		return named
	})
}

// undo makes a transaction that takes the data of an object from where it was before.
func (f *fake) undo(tid zodb.Tid, oid zodb.Oid, source zodb.Tid) {
	f.transact(fakeTxn{tid: tid, desc: "undo", oids: []zodb.Oid{oid}}, func(*fakeTxn) []any {
		r := fakeRev{tid: tid, source: source}
		for _, old := range f.revs[oid] {
			if old.tid == source {
				r.data = old.data
			}
		}
		f.revs[oid] = append(f.revs[oid], r)
		return []any{oid}
	})
}

// pack is a transaction of no objects. What was not current at to is gone, transactions stay.
func (f *fake) pack(tid, to zodb.Tid) {
	f.transact(fakeTxn{tid: tid, desc: "IStorage.pack"}, func(*fakeTxn) []any {
		for oid, revs := range f.revs {
			current := 0
			for i, r := range revs {
				if r.tid <= to {
					current = i
				}
			}
			if revs[current].tid <= to && revs[current].data == nil {
				current++
			}
			if f.revs[oid] = revs[current:]; current == len(revs) {
				delete(f.revs, oid)
			}
		}
		return nil
	})
}

func (f *fake) transact(x fakeTxn, do func(*fakeTxn) []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	named := do(&x)
	f.txns = append(f.txns, x)
	if named == nil {
		named = []any{}
	}
	for c := range f.told {
		if !f.backup {
			c.notify(0x16, x.tid, named)
		}
	}
}

// cut ends the clients' connections to the master.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.told {
		c.nc.Close()
	}
}

const t0 zodb.Tid = 0x040d58ddc0000000 // some moment of 2026

// TestPackIsTransaction: in protocol 5 a pack is a commit of nothing. What it removed is an error, the rest is there.
func TestPackIsTransaction(t *testing.T) {
	f := startFake(t)
	f.commit(t0+1, map[zodb.Oid][]byte{1: data("a"), 2: data("b")})
	s := open(t, f.url(), options(t))
	fo := follow(t, s, t0+1)
	f.commit(t0+2, map[zodb.Oid][]byte{1: data("c")})
	f.commit(t0+5, map[zodb.Oid][]byte{2: nil})
	f.pack(t0+8, t0+3)
	f.commit(t0+9, map[zodb.Oid][]byte{3: data("d")})
	fo.want(commit(t0+2, 1), commit(t0+5, 2), commit(t0+8), commit(t0+9, 3))
	mustLoad(t, s, 1, t0+9, data("c"), t0+2)
	mustLoad(t, s, 2, t0+4, data("b"), t0+1)
	if _, err := s.LoadAt(t.Context(), 1, t0+1); !errors.Is(err, zodb.ErrNoData) {
		t.Errorf("what was packed away: %v", err)
	}
	if _, err := s.LoadAt(t.Context(), 2, t0+9); !errors.Is(err, zodb.ErrDeleted) {
		t.Errorf("what is deleted: %v", err)
	}
	if h := head(t, s); h != t0+9 {
		t.Errorf("the head is %s", h)
	}
}

// TestGapWithPack: the master is away while objects are changed, deleted, brought back by undo, and packed.
func TestGapWithPack(t *testing.T) {
	f := startFake(t)
	f.commit(t0+1, map[zodb.Oid][]byte{1: data("a"), 2: data("b"), 4: data("x")})
	s := open(t, f.url(), options(t))
	fo := follow(t, s, t0+1)
	f.commit(t0+2, map[zodb.Oid][]byte{4: data("y")})
	fo.want(commit(t0+2, 4))

	f.mu.Lock()
	f.backup = true // nothing is announced
	f.mu.Unlock()
	f.commit(t0+3, map[zodb.Oid][]byte{1: data("c"), 2: nil})
	f.undo(t0+6, 2, t0+1)
	f.commit(t0+7, map[zodb.Oid][]byte{1: data("d"), 3: data("e")})
	f.pack(t0+10, t0+2)
	f.mu.Lock()
	f.backup = false
	f.mu.Unlock()
	f.cut()
	fo.want(commit(t0+3, 1, 2), commit(t0+6, 2), commit(t0+7, 1, 3), commit(t0+10))
	mustLoad(t, s, 2, t0+10, data("b"), t0+6)
	mustLoad(t, s, 1, t0+6, data("c"), t0+3)
}

// TestListOfObjects: storages answer with lists that may be empty before the end.
func TestListOfObjects(t *testing.T) {
	f := startFake(t)
	f.page = 2
	objs, gone := map[zodb.Oid][]byte{}, map[zodb.Oid][]byte{}
	var want []zodb.Oid
	for oid := range zodb.Oid(40) {
		objs[oid] = data("a")
		if oid%20 < 14 {
			gone[oid] = nil
		} else {
			want = append(want, oid)
		}
	}
	f.commit(t0+1, objs)
	f.commit(t0+2, gone)
	s := open(t, f.url(), options(t))
	for at, want := range map[zodb.Tid][]zodb.Oid{t0 + 2: want, t0 + 1: slices.Sorted(maps.Keys(objs))} {
		var got []zodb.Oid
		if err := s.Oids(context.Background(), at, func(oid zodb.Oid) error { got = append(got, oid); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %s: %v, want %v", at, got, want)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked[0x31] < 20 || f.asked[0x22] > 1 {
		t.Errorf("the storage was asked %v", f.asked)
	}
}

// TestReadOnlySession: a cluster that backs up another one lets in who does not want to write, and announces nothing.
func TestReadOnlySession(t *testing.T) {
	f := startFake(t)
	f.backup = true
	f.commit(t0+1, map[zodb.Oid][]byte{1: data("a")})
	s := open(t, f.url(), options(t))
	fo := follow(t, s, t0+1)
	f.commit(t0+2, map[zodb.Oid][]byte{1: data("b")})
	fo.want(commit(t0+2, 1))
	f.commit(t0+3, map[zodb.Oid][]byte{1: nil, 2: data("c")})
	fo.want(commit(t0+3, 1, 2))
	mustLoad(t, s, 2, t0+3, data("c"), t0+3)
}
