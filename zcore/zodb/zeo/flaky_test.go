package zeo_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// known is what was committed so far: the revisions of each object, as bursts made them.
type known struct {
	mu   sync.Mutex
	revs map[zodb.Oid][]revision // guarded by mu; ascending
	all  []zodb.Tid              // guarded by mu; ascending
}

type revision struct {
	tid zodb.Tid
	n   int // its content is zeotest.Content(oid, n, size)
}

func (k *known) add(tids []zodb.Tid, oids []zodb.Oid, seed int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, tid := range tids {
		oid := oids[i%len(oids)]
		k.revs[oid] = append(k.revs[oid], revision{tid, seed + i})
		k.all = append(k.all, tid)
	}
}

// pick returns an object at a transaction where it exists, and what it is there.
func (k *known) pick(rnd *rand.Rand, oids []zodb.Oid) (oid zodb.Oid, at zodb.Tid, rev revision) {
	k.mu.Lock()
	defer k.mu.Unlock()
	oid = oids[rnd.IntN(len(oids))]
	revs := k.revs[oid]
	at = k.all[rnd.IntN(len(k.all))]
	at = max(at, revs[0].tid)
	for _, r := range revs {
		if r.tid <= at {
			rev = r
		}
	}
	return oid, at, rev
}

// A server that disconnects every 50 ms while 8 readers and a writer work: no wrong byte, no missed
// commit, no leak. A soak does it for a minute.
func TestFlaky(t *testing.T) {
	const size = 20000
	dur := 5 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		dur = time.Minute
	}
	before := runtime.NumGoroutine()
	// The server remembers more than is committed between two connections, so that no gap is allowed.
	srv := zeotest.Start(t, zeotest.Config{Version: 6, Msgpack: true, Queue: 5000})
	py, proxy := srv.Client(), srv.Proxy()
	oids := []zodb.Oid{1, 2, 3, 4, 5, 6, 7}
	k := &known{revs: map[zodb.Oid][]revision{}}
	first := py.Burst(len(oids), oids, size, 0)
	k.add(first, oids, 0)
	opt := options(t)
	opt.Timeout = patience // longer than the test: no read may fail
	s := open(t, proxy.URL(), opt)
	f := follow(t, s, first[len(first)-1])

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	background := func(fn func(rnd *rand.Rand)) {
		rnd := rand.New(rand.NewPCG(seed, uint64(len(oids))))
		seed++
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn(rnd)
				}
			}
		})
	}
	var mu sync.Mutex
	cuts, loads, written := 0, 0, len(oids) // by mu
	for range 8 {
		background(func(rnd *rand.Rand) {
			oid, at, want := k.pick(rnd, oids)
			rec, err := s.LoadAt(context.Background(), oid, at)
			if err != nil || rec.Serial != want.tid || !bytes.Equal(rec.Data, zeotest.Content(uint64(oid), want.n, size)) {
				t.Errorf("%s@%s: serial %s, %d bytes, %v; want revision %s", oid, at, rec.Serial, len(rec.Data), err, want.tid)
			}
			mu.Lock()
			loads++
			mu.Unlock()
			time.Sleep(time.Millisecond) // the writer and the reconnects need the machine as well
		})
	}
	background(func(rnd *rand.Rand) {
		tids := py.Burst(3, oids, size, written)
		k.add(tids, oids, written)
		written += len(tids)
		time.Sleep(50 * time.Millisecond) // some 50 commits a second
	})
	background(func(*rand.Rand) {
		time.Sleep(50 * time.Millisecond)
		n := proxy.Cut()
		mu.Lock()
		cuts += n
		mu.Unlock()
	})
	time.Sleep(dur)
	close(stop)
	wg.Wait()

	t.Logf("%d loads, %d commits, %d connections cut", loads, len(k.all), cuts)
	if cuts < 5 || loads < 20 {
		t.Errorf("%d connections cut and %d loads done: that is no test", cuts, loads)
	}
	var want []zodb.Commit
	for _, tid := range k.all[len(first):] {
		for _, oid := range oids {
			for _, r := range k.revs[oid] {
				if r.tid == tid {
					want = append(want, commit(tid, oid))
				}
			}
		}
	}
	f.want(want...)
	s.Close()
	f.ended()
	zeotest.Eventually(t, "all goroutines of the driver end", func() bool { return ours() == "" })
	if t.Failed() {
		t.Logf("%d goroutines before, %d now", before, runtime.NumGoroutine())
	}
}

// ours describes the goroutines that run code of the driver.
func ours() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var list []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "/zcore/zodb/zeo.(*") && !strings.Contains(g, "zeo.(*fake") {
			list = append(list, g)
		}
	}
	return strings.Join(list, "\n")
}

// Everything is given back on Close, and reads in flight fail.
func TestCloseInFlight(t *testing.T) {
	srv := zeotest.Start(t, zeotest.Config{Version: 5})
	py, proxy := srv.Client(), srv.Proxy()
	tid := py.Burst(1, oids, 100, 0)[0]
	s := open(t, proxy.URL(), options(t))
	proxy.Freeze()
	errs := make(chan error)
	for range 100 { // more than the window
		go func() {
			_, err := s.LoadAt(context.Background(), 1, tid)
			errs <- err
		}()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.LoadAt(ctx, 1, tid); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("cancelled read: %v", err)
	}
	s.Close()
	for range 100 {
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "storage is closed") {
			t.Fatalf("read in flight at Close: %v", err)
		}
	}
	if _, err := s.Head(context.Background()); err == nil {
		t.Error("head of a closed storage")
	}
	zeotest.Eventually(t, fmt.Sprintf("all goroutines of the driver end:\n%s", ours()), func() bool { return ours() == "" })
}
