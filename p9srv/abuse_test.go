package p9srv

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// The server and its abuser are processes of their own, made from this test binary.
const (
	roleEnv = "WCFS_P9_ROLE" // server or abuser
	addrEnv = "WCFS_P9_ADDR" // path of the socket
	caseEnv = "WCFS_P9_CASE" // which abuse
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "server":
		abusedServer()
	case "abuser":
		// It stands for another machine: what it computes itself must not slow the honest client.
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
			fmt.Fprintln(os.Stderr, "abuser:", err)
		}
		abuses()[os.Getenv(caseEnv)](&abuser{path: os.Getenv(addrEnv)})
	default:
		os.Exit(m.Run())
	}
}

// usage is what the server says of itself.
type usage struct {
	Stats      Stats
	Goroutines int
	Fds        int
	PeakMem    uint64 // bytes of heap and stacks in use, the most seen since the last question
	Handles    int64
	Refs       int64
}

// abusedServer serves until stdin ends, and answers each line on it with its usage.
func abusedServer() {
	tree := newFakeTree()
	srv, err := New(Options{
		Tree: tree, Log: slog.New(slog.DiscardHandler),
		HandshakeTimeout: time.Second, StallTimeout: time.Second, WriteTimeout: time.Second,
	})
	if err == nil {
		_, err = srv.Listen(context.Background(), "unix:"+os.Getenv(addrEnv))
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	var peak atomic.Uint64
	sample := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak.Store(max(peak.Load(), m.HeapInuse+m.StackInuse))
	}
	go func() {
		for {
			sample()
			time.Sleep(20 * time.Millisecond)
		}
	}()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fds, _ := os.ReadDir("/proc/self/fd")
		text, _ := json.Marshal(usage{srv.Stats(), runtime.NumGoroutine(), len(fds), peak.Swap(0), tree.handles.Load(), tree.refs.Load()})
		fmt.Println(string(text))
	}
	srv.Close()
}

// child starts this binary in a role.
func child(t *testing.T, role, path, what string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, addrEnv+"="+path, caseEnv+"="+what, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// prisoner is the abused server seen from the test.
type prisoner struct {
	t    *testing.T
	path string
	ask  func() usage
}

func startAbused(t *testing.T) *prisoner {
	t.Helper()
	p := &prisoner{t: t, path: filepath.Join(t.TempDir(), "s")}
	cmd := child(t, "server", p.path, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("server: %q", lines.Text())
	}
	p.ask = func() (u usage) {
		fmt.Fprintln(in, "?")
		if !lines.Scan() {
			t.Fatal("the server has died")
		}
		if err := json.Unmarshal(lines.Bytes(), &u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return p
}

// honest is the client that must not notice.
type honest struct{ *rawClient }

func (p *prisoner) honest() honest {
	w := &world{t: p.t, addr: "unix:" + p.path}
	c := w.client()
	c.open(1, bigPath, 0)
	return honest{c}
}

// reads times n reads.
func (h honest) reads(n int) (all []time.Duration) {
	for i := range n {
		start := time.Now()
		if r := h.ok(readFrame(5, 1, uint64(i)*4096, 4096), tRead+1); len(r.data()) != 4096 {
			h.t.Fatalf("honest client got %v", r)
		}
		all = append(all, time.Since(start))
	}
	return all
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// maxPeak is what the server may have in use at any time while one client abuses it, with default limits.
const maxPeak = 256 << 20

// TestAbuse runs every abuse beside an honest client, whose median latency must not double.
func TestAbuse(t *testing.T) {
	p := startAbused(t)
	h := p.honest()
	h.reads(200) // warm up
	before := p.ask()
	for _, name := range slices.Sorted(mapKeys(abuses())) {
		t.Run(name, func(t *testing.T) {
			p.abused(t, h, name)
			var now usage
			defer func() {
				if t.Failed() {
					t.Logf("server: %+v", now)
				}
			}()
			eventually(t, "server as before", func() bool {
				now = p.ask()
				return now.Stats.Conns == 1 && now.Stats.Fids == 2 && now.Stats.Requests == 0 && now.Stats.Bytes == 0 &&
					now.Handles == 1 && now.Goroutines <= before.Goroutines+2 && now.Fds <= before.Fds
			})
		})
	}
}

// Rounds of an abuse: one, and more while fewer reads were made beside it than that, or while the ratio
// is too high, which may be others' doing on a machine that is not ours alone.
const (
	maxRounds  = 10
	quietReads = 300 // before and after each round
	minBeside  = 2000
)

// abused compares the honest client's reads beside the abuse with those before and after it, over all
// rounds: what is slow for another reason slows both, and no round is left out.
func (p *prisoner) abused(t *testing.T, h honest, name string) {
	t.Helper()
	var quiet, beside []time.Duration
	quiet = append(quiet, h.reads(quietReads)...)
	start, ratio, rounds, peak := time.Now(), 0.0, 0, uint64(0)
	for ; rounds < maxRounds && (len(beside) < minBeside || ratio > 2); rounds++ {
		beside = append(beside, p.abuse(t, h, name)...)
		quiet = append(quiet, h.reads(quietReads)...)
		ratio = float64(median(beside)) / float64(median(quiet))
		peak = max(peak, p.ask().PeakMem)
	}
	t.Logf("%-9s %d rounds, %6d reads beside it: median %v, else %v (%.2f); peak memory %d MiB; %.1f s",
		name, rounds, len(beside), median(beside), median(quiet), ratio, peak>>20, time.Since(start).Seconds())
	if ratio > 2 {
		t.Errorf("median latency of the honest client rose %.1f times", ratio)
	}
	if peak > maxPeak {
		t.Errorf("%s: server had %d MiB in use", name, peak>>20)
	}
}

// abuse returns how long reads of the honest client took while the abuser ran.
func (p *prisoner) abuse(t *testing.T, h honest, name string) (beside []time.Duration) {
	t.Helper()
	cmd := child(t, "abuser", p.path, name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("abuser: %v", err)
			}
			return beside
		default:
			beside = append(beside, h.reads(20)...)
		}
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// abuser is a client that means no good. Its replies are read and thrown away unless said otherwise.
type abuser struct{ path string }

func (a *abuser) dial() net.Conn {
	for {
		c, err := net.Dial("unix", a.path)
		if err == nil {
			return c
		}
		if !strings.Contains(err.Error(), syscall.EAGAIN.Error()) { // the backlog is full
			a.fail("%v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// session is a connection after Tversion and an attach as fid 0, whose replies nobody reads yet.
func (a *abuser) session() net.Conn {
	c := a.dial()
	a.send(c, newFrame(tVersion, noTag).u32(1<<20).str(version9P))
	a.send(c, newFrame(tAttach, 1).u32(0).u32(noFid).str("x").str("").u32(noFid))
	a.wellAnswered(c, 2)
	return c
}

// open is a session in which path is open as fid 1.
func (a *abuser) open(path string, flags uint32) net.Conn {
	c := a.session()
	a.send(c, walkFrame(1, 0, 1, splitPath(path)...))
	a.wellAnswered(c, 1)
	a.send(c, openFrame(1, 1, flags))
	a.wellAnswered(c, 1)
	return c
}

// wellAnswered takes n replies, none of them an error: an abuse that has not begun well is none.
func (a *abuser) wellAnswered(c net.Conn, n int) {
	r := &rawClient{c: c}
	for range n {
		if m, err := r.recvErr(); err != nil || m.errno() != linux.Errno(0) {
			a.fail("%v, %v instead of a good reply", m, err)
		}
	}
	c.SetReadDeadline(time.Time{})
}

func (a *abuser) fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "abuser: "+format+"\n", args...)
	os.Exit(1)
}

// send reports whether the connection still takes something.
func (a *abuser) send(c net.Conn, fs ...frame) bool {
	var all frame
	for _, f := range fs {
		all = append(all, f.done(0)...)
	}
	_, err := c.Write(all)
	return err == nil
}
