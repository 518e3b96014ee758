package neo_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/dbisolation"
	"wcfs/t/neo"
	"wcfs/t/served"
	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// TestChaos: random kills of masters and storages, one or all of them, silent storages, partitions that move,
// and packs, beside a writer that commits without a pause and clients at views of their own. Each byte is
// compared with what its revision must hold, and head may be behind the writer no longer than the cluster was not
// operational and a little more. WCFS_SOAK=1: half an hour over each protocol, and 3 s.
func TestChaos(t *testing.T) {
	long, late := 15*time.Second, 30*time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long, late = 30*time.Minute, 3*time.Second
	}
	for _, protocol := range []int{5, 6} {
		cfg := neo.Config{Protocol: protocol, Masters: 2, Storages: 3, Partitions: 6, Replicas: 1}
		t.Run(cfg.String(), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano()) >> 1
			t.Logf("seed %d", seed)
			c := neo.Start(t, cfg)
			w := dbisolation.Start(t, c.Bigfile(), seed, "0.01")
			mnt := t.TempDir()
			m := served.Serve(t, mnt, exec.Command(wcfs, "serve", "--mount", mnt, c.URL()))
			defer m.End()
			x := &chaos{t: t, c: c, hand: c.Writer(), rnd: rand.New(rand.NewPCG(seed, 7)), did: map[string]int{}}
			stop := x.watch(mnt, w, late)
			dbisolation.Check(t, mnt, w, seed, long, x.disturb)
			stop()
			t.Logf("disturbed by %v; head was behind for up to %v of operation", x.did, time.Duration(x.behind.Load()))
		})
	}
}

// chaos does things to a cluster, one at a time.
type chaos struct {
	t      *testing.T
	c      *neo.Cluster
	hand   *neo.Writer
	rnd    *rand.Rand
	did    map[string]int
	behind atomic.Int64 // the longest that head was behind
	heads  []zodb.Tid   // of the end of each disturbance
}

// disturb does one thing and waits until the cluster has got over it.
func (x *chaos) disturb() {
	x.t.Helper()
	c := x.c
	one := c.Storages[x.rnd.IntN(len(c.Storages))]
	pause := time.Duration(x.rnd.IntN(1500)) * time.Millisecond
	acts := []struct {
		name string
		do   func()
	}{
		{"storage killed", func() { x.killed(pause, one) }},
		{"all storages killed", func() { x.killed(pause, c.Storages...) }},
		{"primary killed", func() { x.killed(pause, c.Primary()) }},
		{"all masters killed", func() { x.killed(pause, c.Masters...) }},
		{"master and storage killed", func() { x.killed(pause, c.Primary(), one) }},
		{"storage silent", func() { one.Freeze(); time.Sleep(pause); one.Thaw() }},
		{"tweak", func() { x.tweak(one) }},
		{"pack", x.pack},
	}
	act := acts[x.rnd.IntN(len(acts))]
	x.did[act.name]++
	act.do()
	x.recover()
	x.heads = append(x.heads, x.hand.Head())
}

func (x *chaos) killed(pause time.Duration, nodes ...*neo.Node) {
	for _, n := range nodes {
		n.Kill()
	}
	time.Sleep(pause)
	for _, n := range nodes {
		n.Start()
	}
}

// recover waits until everything is replicated. A cluster that does not start by itself is told to, and a server
// that ended by a fault of its own is started again, as whoever runs servers does.
func (x *chaos) recover() {
	x.t.Helper()
	for end := time.Now().Add(wait.Patience); !x.hand.Operational() || !x.c.Replicated(); time.Sleep(100 * time.Millisecond) {
		for _, n := range slices.Concat(x.c.Masters, x.c.Storages) {
			if n.Ended() {
				x.did["ended by itself"]++
				n.Kill()
				n.Start()
			}
		}
		if time.Until(end) < wait.Patience-10*time.Second && !x.hand.Operational() {
			x.c.TryCtl(x.t.Context(), "start")
		}
		if time.Now().After(end) {
			x.t.Fatal("the cluster does not recover")
		}
	}
}

// tweak moves what one storage has to the others and back.
func (x *chaos) tweak(n *neo.Node) {
	x.t.Helper()
	x.c.Tweak(n)
	time.Sleep(time.Duration(x.rnd.IntN(500)) * time.Millisecond)
	x.c.Tweak()
}

// pack packs to what was head some disturbances ago, and no view is of before.
func (x *chaos) pack() {
	if n := len(x.heads); n >= 10 {
		x.hand.Pack(x.heads[n-10])
	}
}

// watch compares head with what the writer told, until the returned function is called.
func (x *chaos) watch(mnt string, w *dbisolation.Writer, late time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	probe := x.c.Writer()
	go func() {
		defer close(done)
		want, behind, then := w.Last(), time.Duration(0), time.Now()
		for {
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
			operational, now := probe.Operational(), time.Now()
			if at := headAt(x.t, mnt); at >= want {
				want, behind = w.Last(), 0
			} else if operational {
				behind += now.Sub(then)
			}
			x.behind.Store(max(x.behind.Load(), int64(behind)))
			if then = now; behind > late {
				x.t.Errorf("head has not reached %s in %v of operation", want, behind)
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

func headAt(t *testing.T, mnt string) zodb.Tid {
	b, err := os.ReadFile(filepath.Join(mnt, "head/at"))
	if err != nil {
		t.Error(err)
		return 0
	}
	at, err := zodb.ParseTid(string(bytes.TrimSpace(b)))
	if err != nil {
		t.Error(err)
	}
	return at
}
