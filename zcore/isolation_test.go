package zcore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run the simulation of this seed only")
	simsFlag = flag.Int("sims", 60, "how many simulations to run")
)

// TestIsolation runs clients at different revisions against a simulated kernel and a writer that
// commits as fast as it can. Every byte a client sees must be of its own revision.
func TestIsolation(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	n := soaked(*simsFlag)
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	saved, puts, failures := 0, 0, int64(0)
	for i := range n {
		s := newSim(t, base+uint64(i))
		if err := s.run(); err != nil {
			t.Fatalf("go test -run TestIsolation -seed %d: %v", s.seed, err)
		}
		s.k.mu.Lock() // uploads may still be under way
		saved, puts = saved+s.k.saved, puts+s.k.puts
		s.k.mu.Unlock()
		failures += s.failures.Load()
	}
	t.Logf("%d blocks kept under @rev, %d uploads", saved, puts)
	if *seedFlag == 0 && (saved == 0 || puts == 0 || failures == 0) {
		t.Errorf("nothing was kept under @rev (%d) or uploaded (%d), or no file failed that was in use (%d)", saved, puts, failures)
	}
}

// soaked is how often to do what is done n times by default.
func soaked(n int) int {
	if os.Getenv("WCFS_SOAK") != "" {
		return 50 * n
	}
	return n
}

// simPinTimeout is more than a client of a simulation ever needs.
const simPinTimeout = 20 * time.Second

type sim struct {
	t    *testing.T
	seed uint64
	stor *memstorage.Store
	ext  *extents // nil: blocks are in memory
	db   *zgen.DB
	core *Core
	k    *simKernel

	epochs   bool         // files are deleted, made again, given other tables
	gone     []zodb.Oid   // deleted
	failures atomic.Int64 // clients whose file failed

	rough   bool // there are gaps, and what happened is forgotten soon
	failing bool // loads fail now and then

	rmu sync.Mutex
	rng *rand.Rand // rmu; for steps
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, seed: seed, stor: memstorage.New(), rng: rand.New(rand.NewPCG(seed, 9))}
	data := database(s.stor)
	if s.rough = seed%5 < 2; s.rough {
		data = &gappy{s.stor, rand.New(rand.NewPCG(seed, 8))}
	}
	stor := zodb.Storage(data)
	if seed%2 == 0 {
		s.ext = newExtents(t, data, 20)
		stor = s.ext
	}
	s.db = zgen.New(s.stor, zgen.Options{LeafMax: 3, NodeMax: 3, ChunkSize: 16})
	for range 1 + s.rng.IntN(6) {
		if _, err := s.db.Random(s.rng, zgen.Mix{MaxFiles: 2, MaxBlk: 12}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	memory := 0 // enough for all
	if seed%3 == 0 {
		memory = 1
	}
	retention := time.Duration(0) // for ever
	if s.rough {
		retention = time.Millisecond
	}
	s.core, err = New(context.Background(), stor, Options{
		BlockBytes: memory, Retention: retention, Grace: 20 * time.Microsecond, PinTimeout: simPinTimeout, Step: s.step,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.epochs = seed%3 == 1
	s.core.pageSize, s.core.smallRead = simPage, simPage
	s.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error { s.step(StepReceived); return nil })
	s.k = newSimKernel(s.core, s.db)
	s.core.SetPageCache(s.k)
	return s
}

// oldest is the first tid at which a watch may begin; the server started in the middle of the history.
func (s *sim) oldest() zodb.Tid {
	oldest, _ := s.core.tail.Bounds()
	return oldest
}

// step is where the simulation lets others run.
func (s *sim) step(Step) {
	s.rmu.Lock()
	r := s.rng.IntN(100)
	s.rmu.Unlock()
	switch {
	case r < 30:
		runtime.Gosched()
	case r < 36:
		time.Sleep(time.Duration(r) * time.Microsecond)
	}
}

func (s *sim) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.core.Run(ctx) }()
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	stop := make(chan struct{})
	for i := range 5 {
		rng := rand.New(rand.NewPCG(s.seed, uint64(100+i)))
		once := func() error { return s.client(ctx, rng, stop) }
		if i == 4 {
			once = func() error { return s.past(ctx, rng) }
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := once(); err != nil {
					errs <- fmt.Errorf("client %d: %w", i, err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(s.seed, 50))
	mix := zgen.Mix{MaxFiles: 2, MaxBlk: 12}
	if s.rough {
		mix.MaxBlk = 40 // so that there is always one that nobody has read yet
	}
	for i := range 40 {
		if _, err := s.db.Random(rng, mix); err != nil {
			return err
		}
		if s.epochs && i%4 == 3 {
			if err := s.epoch(rng); err != nil {
				return err
			}
		}
		s.step(StepReceived)
		time.Sleep(time.Duration(rng.IntN(500)) * time.Microsecond)
	}
	close(stop)
	wg.Wait()
	var err error
	select {
	case err = <-errs:
	default:
		err = s.freshWatch(ctx, rng)
	}
	cancel()
	err = errors.Join(err, <-served)
	if s.ext != nil {
		err = errors.Join(err, s.ext.check())
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return errors.Join(err, s.k.wrong)
}

// epoch has a file be another one from now on, or none.
func (s *sim) epoch(rng *rand.Rand) error {
	now := s.db.Files(s.db.Head())
	f := now[rng.IntN(len(now))]
	tx := s.db.Begin()
	switch {
	case rng.IntN(2) == 0:
		tx.ResetFile(f, simPage*int64(1+rng.IntN(6)))
	case len(now) > 1:
		tx.DeleteFile(f)
		s.gone = append(s.gone, f)
	}
	if len(s.gone) > 0 && rng.IntN(2) == 0 && s.gone[0] != f {
		tx.RestoreFile(s.gone[0])
		s.gone = s.gone[1:]
	}
	_, err := tx.Commit()
	return err
}

// freshWatch sets up a watch when all is quiet, and compares its pins with the model.
func (s *sim) freshWatch(ctx context.Context, rng *rand.Rand) error {
	if err := s.core.waitHead(ctx, s.db.Head()); err != nil {
		return fmt.Errorf("head @%s is not announced: %w", s.db.Head(), err)
	}
	for _, oid := range s.core.HeadFiles() {
		f, err := s.k.lookup(ctx, oid)
		if err != nil {
			return err
		}
		tids := s.db.Tids()
		at := tids[rng.IntN(len(tids))]
		if at < max(s.oldest(), f.h.Epoch) {
			continue
		}
		c := &simClient{s: s, f: f, rng: rng, pins: map[Blk]zodb.Tid{}, got: make(chan string, 1)}
		c.link, _ = s.core.OpenLink(s.core.Host(), nil)
		go c.pinner(ctx)
		err = c.watch(ctx, at)
		if err != nil {
			return err
		}
		if c.at != at {
			continue
		}
		want := map[Blk]zodb.Tid{}
		for blk := range s.k.seen[oid] {
			if s.db.BlkRevAt(oid, blk, s.db.Head()) > at {
				want[blk] = max(s.db.BlkRevAt(oid, blk, at), s.core.tail.Floor(f.h, at))
			}
		}
		if s.rough || s.failing { // what changed in a gap, and when, is not known as well
			err = c.touches(ctx)
		} else if fmt.Sprint(c.pins) != fmt.Sprint(want) {
			err = fmt.Errorf("watch f<%s> @%s pins %v, want %v", oid, at, c.pins, want)
		}
		if err != nil {
			return err
		}
		c.link.end()
		c.link.Close()
	}
	return nil
}
