package memstorage_test

import (
	"context"
	"errors"
	"testing"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
	"wcfs/zcore/zodb/storagetest"
)

// backend gives the suite one store, and readers of it.
type backend struct{ *memstorage.Store }

func (b *backend) Open(testing.TB) zodb.Storage {
	ctx, cancel := context.WithCancel(context.Background())
	return &reader{b.Store, ctx, cancel}
}

// reader is a store whose Close leaves it open to other readers.
type reader struct {
	*memstorage.Store
	ctx    context.Context
	cancel context.CancelFunc
}

func (r *reader) Close() error { r.cancel(); return nil }

func (r *reader) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	if err := r.ctx.Err(); err != nil {
		return zodb.Record{}, err
	}
	return r.Store.LoadAt(ctx, oid, at)
}

func (r *reader) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	return r.Store.Follow(ctx, after, fn)
}

func (b *backend) Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid {
	head, err := b.Head(context.Background())
	if err == nil {
		err = b.Store.Commit(head+3, objs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return head + 3
}

func (b *backend) Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid {
	objs := map[zodb.Oid][]byte{}
	for _, oid := range oids {
		objs[oid] = nil
	}
	return b.Commit(t, objs)
}

func TestStorage(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storagetest.Backend { return &backend{memstorage.New()} })
}

// TestInjection: the hook, the gap and the failure that tests of the core use.
func TestInjection(t *testing.T) {
	ctx := context.Background()
	s := memstorage.New()
	for tid := zodb.Tid(1); tid <= 3; tid++ {
		if err := s.Commit(tid, map[zodb.Oid][]byte{1: {byte(tid)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(3, nil); err == nil {
		t.Error("a tid was committed twice")
	}
	if err := s.CommitGap(9, map[zodb.Oid][]byte{1: {9}}); err != nil {
		t.Fatal(err)
	}

	boom := errors.New("boom")
	s.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
		if oid == 1 && at == 2 {
			return boom
		}
		return nil
	})
	if _, err := s.LoadAt(ctx, 1, 2); !errors.Is(err, boom) || zodb.IsAbsent(err) {
		t.Errorf("the hook's error: %v", err)
	}
	if rec, err := s.LoadAt(ctx, 1, 8); err != nil || rec.Serial != 3 || rec.Until != 9 || s.Loads() != 2 {
		t.Errorf("%+v %v, %d loads", rec, err, s.Loads())
	}

	s.FailFollow(boom)
	var got []zodb.Commit
	err := s.Follow(ctx, 1, func(c zodb.Commit) error { got = append(got, c); return nil })
	if !errors.Is(err, boom) || len(got) != 3 || got[1].Tid != 3 || got[2].Gap != 3 || got[2].Tid != 9 || got[2].Oids != nil {
		t.Errorf("followed %+v: %v", got, err)
	}
}

// TestClose: the store itself can be closed too.
func TestClose(t *testing.T) {
	s := memstorage.New()
	if err := s.Commit(1, map[zodb.Oid][]byte{1: {1}}); err != nil {
		t.Fatal(err)
	}
	followed := make(chan error)
	go func() { followed <- s.Follow(context.Background(), 0, func(zodb.Commit) error { return s.Close() }) }()
	if err := <-followed; err == nil {
		t.Error("Follow of a closed store succeeded")
	}
	if _, err := s.LoadAt(context.Background(), 1, 1); err == nil || zodb.IsAbsent(err) {
		t.Errorf("load from a closed store: %v", err)
	}
}
