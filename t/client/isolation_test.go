package client_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/served"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// TestIsolation: clients of all languages, over head and over bases, at revisions of their own, going on,
// ending and beginning at random, while commits come as fast as they can and pages are dropped. Every byte
// of every look must be of its revision, and nobody is killed. WCFS_SOAK=1: for two minutes.
func TestIsolation(t *testing.T) {
	long := 5 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long = 2 * time.Minute
	}
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	w := newWorld(t, 8192, func(tx *zgen.Tx, f zodb.Oid) {
		tx.Write(f, 12, []byte("last"), zgen.Blk0)
	})
	var stop atomic.Bool
	var looks, pinned atomic.Int64
	var wg sync.WaitGroup
	for i, kind := range []string{"go", "go", "c", "c", "calarm", "calarm", "py", "py", "pyread"} {
		mode := []string{"open", "base"}[i%2]
		p := start(t, kind)
		u := &user{w: w, p: p, mode: mode, mnt: w.mnt, rnd: rand.New(rand.NewPCG(seed, uint64(i))), looks: &looks, pinned: &pinned}
		wg.Go(func() {
			for !stop.Load() {
				if err := u.life(&stop); err != nil {
					t.Errorf("%s client, %s: %v", kind, mode, err)
					stop.Store(true)
				}
			}
		})
	}
	head, err := os.Open(filepath.Join(w.mnt, "head/bigfile", w.f.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer head.Close()
	rnd := rand.New(rand.NewPCG(seed, 1000))
	commits := 0
	began := time.Now()
	enough := func() bool { return time.Since(began) > long && looks.Load() >= 200 && pinned.Load() > 0 }
	for ; !enough() && !stop.Load() && time.Since(began) < long+served.Patience; commits++ {
		w.commit(func(tx *zgen.Tx) { randomChange(tx, w, rnd) })
		if rnd.IntN(8) == 0 {
			unix.Fadvise(int(head.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		for end := time.Now().Add(served.Patience); int64(commits) > looks.Load()+50 && time.Now().Before(end) && !stop.Load(); {
			time.Sleep(time.Millisecond) // the clients are to see something of it
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d commits, %d looks, %d pins seen", commits, looks.Load(), pinned.Load())
	if commits < 20 || looks.Load() < 200 || pinned.Load() == 0 {
		t.Error("too little happened to mean anything")
	}
	if n := w.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
}

// randomChange rewrites, punches, and now and then appends; the file never becomes shorter.
func randomChange(tx *zgen.Tx, w *world, rnd *rand.Rand) {
	last := w.db.Size(w.f, w.db.Head())/8192 - 1
	for range 1 + rnd.IntN(3) {
		switch blk := zdata.Blk(rnd.Int64N(last + 1)); {
		case rnd.IntN(8) == 0 && last < 60:
			last += 1 + rnd.Int64N(3)
			fill(tx, w.db, w.f, zdata.Blk(last), fmt.Sprintf("%08x", rnd.Uint32()))
		case rnd.IntN(8) == 0 && int64(blk) != last:
			tx.Punch(w.f, blk)
		default:
			fill(tx, w.db, w.f, blk, fmt.Sprintf("%08x", rnd.Uint32()))
		}
	}
}

// user is one client with its plan.
type user struct {
	w             *world
	p             *proc
	mode          string
	mnt           string // where it sees the mount
	rnd           *rand.Rand
	looks, pinned *atomic.Int64
}

// life is one view from beginning to end.
func (u *user) life(stop *atomic.Bool) error {
	at := u.later(0)
	if _, err := u.ok("%s %s %s %s", u.mode, u.mnt, u.w.f, at); err != nil {
		return err
	}
	for u.rnd.IntN(15) != 0 && !stop.Load() {
		if err := u.look(at); err != nil {
			return err
		}
		if u.rnd.IntN(3) == 0 {
			at = u.later(at)
			if _, err := u.ok("resync %s", at); err != nil {
				return err
			}
		}
	}
	_, err := u.ok("close")
	return err
}

// later picks one of the latest revisions, not before at.
func (u *user) later(at zodb.Tid) zodb.Tid {
	tids := u.w.db.Tids()
	return max(at, tids[max(0, len(tids)-1-u.rnd.IntN(15))], tids[0])
}

func (u *user) look(at zodb.Tid) error {
	how := "read"
	if u.p.name != "go" && u.p.name != "pyread" && u.rnd.IntN(3) != 0 {
		how = "map"
	}
	got, err := u.ok("%s", how)
	if err != nil {
		return err
	}
	if want := u.w.sums(u.w.f, at); got != want {
		return fmt.Errorf("%s @%s:\n got %s\nwant %s", how, at, got, want)
	}
	u.looks.Add(1)
	pins, err := u.ok("pins")
	if u.p.name != "pyread" && pins != "ok 0" {
		u.pinned.Add(1)
	}
	return err
}

func (u *user) ok(format string, args ...any) (string, error) {
	answer, err := u.p.ask(format, args...)
	if err == nil && answer != "ok" && !strings.HasPrefix(answer, "ok ") {
		err = fmt.Errorf("%q is answered %q", fmt.Sprintf(format, args...), answer)
	}
	return answer, err
}

// stat reads a counter of the server's.
func (w *world) stat(name string) (n int) {
	text, err := os.ReadFile(filepath.Join(w.mnt, ".wcfs/stats"))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if key, val, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			if _, err := fmt.Sscan(val, &n); err != nil {
				w.t.Fatalf("stats: %q", line)
			}
			return n
		}
	}
	w.t.Fatalf("no %q in the stats", name)
	return 0
}
