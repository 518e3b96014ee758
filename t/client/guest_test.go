//go:build guests

package client_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/qemu/qemutest"
	"wcfs/t/output"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// TestGuest is TestIsolation for clients in a guest, over native 9P and over virtfs, beside one on the
// host. WCFS_SOAK=1: with more kernels and clients, and a minute each.
func TestGuest(t *testing.T) {
	kernels, long := []string{"6.1"}, 3*time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		kernels, long = []string{"6.1", "6.12"}, time.Minute
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) { guest(t, kernel, long) })
	}
}

// slow is patience with emulated processors.
const slow = 3 * time.Minute

func guest(t *testing.T, kernel string, long time.Duration) {
	qemutest.Turn(t)
	qemutest.Kernel(t, kernel) // fetched before the clock runs
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	w := newWorld(t, 8192, func(tx *zgen.Tx, f zodb.Oid) { tx.Write(f, 12, []byte("last"), zgen.Blk0) }, "--9p=tcp:127.0.0.1:0")
	const native = "/wcfs"
	type place struct{ kind, mnt string }
	places := []place{{"go", native}, {"c", native}, {"py", w.mnt}, {"c", w.mnt}}
	if os.Getenv("WCFS_SOAK") != "" {
		places = append(places, place{"py", native}, place{"go", w.mnt})
	}
	var kinds []string
	for _, p := range places {
		kinds = append(kinds, p.kind)
	}
	procs := startGuest(t, kernel, w.nineAddr(), kinds)
	var stop atomic.Bool
	var looks, pinned atomic.Int64
	var wg sync.WaitGroup
	run := func(u *user) {
		wg.Go(func() {
			for !stop.Load() {
				if err := u.life(&stop); err != nil {
					t.Errorf("%s client at %s: %v", u.p.name, u.mnt, err)
					stop.Store(true)
				}
			}
		})
	}
	for i, p := range procs {
		run(&user{w: w, p: p, mode: "open", mnt: places[i].mnt, rnd: rand.New(rand.NewPCG(seed, uint64(i))), looks: &looks, pinned: &pinned})
	}
	run(&user{w: w, p: start(t, "c"), mode: "open", mnt: w.mnt, rnd: rand.New(rand.NewPCG(seed, 100)), looks: new(atomic.Int64), pinned: new(atomic.Int64)})
	rnd, began, commits := rand.New(rand.NewPCG(seed, 1000)), time.Now(), 0
	enough := func() bool {
		return looks.Load() >= 40 && pinned.Load() > 0 && time.Since(began) > long
	}
	for ; !enough() && !stop.Load() && time.Since(began) < long+slow; commits++ {
		w.commit(func(tx *zgen.Tx) { randomChange(tx, w, rnd) })
		for end := time.Now().Add(slow); int64(commits) > looks.Load()+20 && time.Now().Before(end) && !stop.Load(); {
			time.Sleep(time.Millisecond)
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d commits, %d looks, %d pins seen", commits, looks.Load(), pinned.Load())
	if looks.Load() < 40 || pinned.Load() == 0 {
		t.Error("too little happened to mean anything")
	}
	if n := w.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
}

// startGuest boots a guest in which clients run.
func startGuest(t *testing.T, kernel, addr string, kinds []string) []*proc {
	t.Helper()
	args := []string{"run", "--kernel", kernel, "--9p=" + addr, "--timeout=8m"}
	if strings.HasPrefix(py.Root(), os.TempDir()) { // which is the guest's own
		args = append(args, "--share=repo="+py.Root())
	}
	args = append(args, "--", python(), filepath.Join(py.Root(), "t/client/prog/mux.py"))
	for _, kind := range kinds {
		text, err := json.Marshal(words(kind))
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, string(text))
	}
	cmd := exec.Command(built.wcfs, args...)
	cmd.Dir = built.dir
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	var errs output.Buffer
	cmd.Stderr = &errs
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(served.Patience):
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("guest:\n%s", errs.String())
		}
	})
	var procs []*proc
	var sinks []*io.PipeWriter
	var mu sync.Mutex // one line at a time
	for n, kind := range kinds {
		r, pw := io.Pipe()
		sinks = append(sinks, pw)
		procs = append(procs, &proc{name: kind, in: &muxWriter{n, in, &mu}, out: bufio.NewReader(r), patience: slow})
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			num, text, ok := strings.Cut(strings.TrimRight(lines.Text(), "\r"), " ")
			var n int
			if _, err := fmt.Sscan(num, &n); err != nil || n >= len(sinks) {
				fmt.Fprintln(&errs, lines.Text())
				continue
			}
			if !ok {
				sinks[n].Close()
				continue
			}
			io.WriteString(sinks[n], text+"\n")
		}
		for _, s := range sinks {
			s.Close()
		}
	}()
	return procs
}

// nineAddr returns where the server listens for 9P.
func (w *world) nineAddr() string { return "tcp:" + w.srv.Address("tcp") }

// muxWriter writes whole lines for one client of mux.py.
type muxWriter struct {
	n  int
	w  io.WriteCloser
	mu *sync.Mutex // shared by all
}

func (m *muxWriter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := fmt.Fprintf(m.w, "%d %s", m.n, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *muxWriter) Close() error { return nil }
