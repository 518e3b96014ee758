package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
)

// readers runs n readers that load random objects at random moments until stop is called, and
// returns the first wrong answer at a moment not before floor.
func (e *env) readers(stor zodb.Storage, n int, floor *atomic.Uint64) (stop func() error) {
	var wg sync.WaitGroup
	var done atomic.Bool
	errc := make(chan error, n)
	for i := range n {
		rnd := rand.New(rand.NewPCG(e.rnd.Uint64(), uint64(i)))
		wg.Go(func() {
			for !done.Load() {
				oids, moments := e.model.oids(), e.model.moments()
				for range 20 {
					oid, at := oids[rnd.IntN(len(oids))], moments[rnd.IntN(len(moments))]
					if head, err := stor.Head(context.Background()); err == nil && at > min(head, e.model.last()) {
						continue // what is beyond may still change
					}
					if err := e.check(stor, oid, at); err != nil && at >= zodb.Tid(floor.Load()) {
						errc <- err
						return
					}
				}
			}
		})
	}
	return func() error {
		done.Store(true)
		wg.Wait()
		select {
		case err := <-errc:
			return err
		default:
			return nil
		}
	}
}

// testConcurrent: 16 readers while a writer commits.
func testConcurrent(e *env) {
	oids := oidRange(0x1000, 16)
	for range 10 {
		e.step(oids)
	}
	stor := e.open()
	e.waitHead(stor, e.model.last())
	last := e.model.last()
	f := e.follow(stor, last)
	stop := e.readers(stor, 16, new(atomic.Uint64))
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		tid := e.step(oids)
		if err := e.expect(stor, f, last, tid, false); err != nil {
			e.Error(err)
			break
		}
		last = tid
	}
	if err := stop(); err != nil {
		e.Fatal(err)
	}
}

// testCancel: a context that is done ends a load with its error.
func testCancel(e *env) {
	tid := e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	stor := e.open()
	e.waitHead(stor, tid)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := stor.LoadAt(ctx, 0x1000, tid); !errors.Is(err, context.Canceled) {
		e.Fatalf("LoadAt under a cancelled context: %v", err)
	}
	if err := e.check(stor, 0x1000, tid); err != nil {
		e.Fatalf("after a cancelled load: %v", err)
	}
}

// testClose: loads in flight end, later ones fail, and not as if the object were absent.
func testClose(e *env) {
	tid := e.commit(map[zodb.Oid][]byte{0x1000: randomRecord(e.rnd, 1<<20)})
	stor := e.open()
	e.waitHead(stor, tid)
	var wg sync.WaitGroup
	var loads atomic.Int64
	errc := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			for {
				rec, err := stor.LoadAt(context.Background(), 0x1000, tid)
				if err != nil {
					if zodb.KindOf(err) != zodb.KindOutage {
						errc <- err
					}
					return
				}
				if rec.Serial != tid {
					errc <- fmt.Errorf("serial %s; want %s", rec.Serial, tid)
				}
				loads.Add(1)
			}
		})
	}
	for end := time.Now().Add(Patience); loads.Load() < 16 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := stor.Close(); err != nil {
		e.Errorf("close: %v", err)
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	e.wait("loads in flight at Close", ended)
	select {
	case err := <-errc:
		e.Fatal(err)
	default:
	}
	_, err := stor.LoadAt(e.ctx(), 0x1000, tid)
	WantKind(e, "LoadAt after Close", err, zodb.KindOutage)
	stor.Close() // must not panic
}

// testPack: the database is packed, twice, while it is read and followed. From the pack's tid on
// every answer stays as it was; before it a revision may be gone, but none is wrong.
func testPack(e *env, b PackBackend) {
	e.loose = true // a deletion may be packed away: the object is absent then, the kind may differ
	oids := oidRange(0x1000, 12)
	for range 30 {
		e.step(oids)
	}
	stor := e.open()
	e.waitHead(stor, e.model.last())
	after := e.model.last()
	f := e.follow(stor, after)
	var floor atomic.Uint64 // moments from here on must be answered rightly
	for range 2 {
		stop := e.readers(stor, 4, &floor)
		txns := e.model.after(0)
		at := txns[len(txns)*2/3].Tid
		floor.Store(uint64(at))
		e.packed.Store(uint64(at))
		b.Pack(e.T, at)
		for range 20 {
			e.step(oids)
		}
		if err := e.expect(stor, f, after, e.model.last(), false); err != nil {
			e.Fatal(err)
		}
		after = e.model.last()
		if err := stop(); err != nil {
			e.Fatal(err)
		}
		e.checkPacked(stor, at)
		e.checkPacked(e.open(), at)
	}
}

// checkPacked checks all moments after a pack to at.
func (e *env) checkPacked(stor zodb.Storage, at zodb.Tid) {
	e.waitHead(stor, e.model.last())
	for _, m := range e.model.moments() {
		for _, oid := range e.model.oids() {
			if m < at {
				rec, err := stor.LoadAt(e.ctx(), oid, m)
				want, _ := e.model.at(oid, m)
				if err == nil && (rec.Serial != want.tid || string(rec.Data) != string(want.data)) {
					e.Fatalf("packed to %s: %s@%s is revision %s; want %s or an error", at, oid, m, rec.Serial, want.tid)
				}
				continue
			}
			if err := e.check(stor, oid, m); err != nil {
				e.Fatalf("packed to %s: %v", at, err)
			}
		}
	}
}
