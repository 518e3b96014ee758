package isolation

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wcfs/t/isolation/dropcaches"
	"wcfs/t/py"
	"wcfs/t/served"
)

const blksize = 16 << 10

// duration of one run, seconds.
func duration() int {
	if os.Getenv("WCFS_SOAK") != "" {
		return 200 // three runs are ten minutes
	}
	return 20
}

// build makes the server, the checkers in Go and C, and the C client as a library.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	client := filepath.Join(py.Root(), "zcore/client/c")
	if err := errors.Join(served.Build(dir, served.Race, ""), served.Build(dir, false, "t/isolation/gochecker")); err != nil {
		t.Fatal(err)
	}
	cflags := []string{"-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", client}
	for _, cmd := range []*exec.Cmd{
		exec.Command("gcc", append(cflags, "checker/checker.c", filepath.Join(client, "wcfs.c"), "-o", filepath.Join(dir, "checker"))...),
		exec.Command("gcc", append(cflags, "-shared", "-fPIC", filepath.Join(client, "wcfs.c"), "-o", filepath.Join(dir, "libwcfs.so"))...),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
		}
	}
	return dir
}

// run is one run of the checker.
type run struct {
	t          *testing.T
	bin        string // where build has put its results
	gomaxprocs int
	inC        int // client processes of each kind
	inGo, inPy int
	seconds    int           // how long
	blocks     int           // files grow up to so many
	last       int           // views are as of one of so many last commits
	pintimeout time.Duration // of the server
	cpu        string        // if not "", everything runs on that processor only

	mnt, log string
	oids     []string
	server   *served.Proc
	writer   *exec.Cmd
}

func TestIsolation(t *testing.T) {
	bin := build(t)
	for _, n := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", n), func(t *testing.T) {
			r := &run{t: t, bin: bin, gomaxprocs: n, inC: 10, inGo: 2, inPy: 4, seconds: duration(), blocks: 48, last: 100, pintimeout: 30 * time.Second}
			r.do()
		})
	}
}

func (r *run) command(name string, args ...string) *exec.Cmd {
	if r.cpu != "" {
		name, args = "taskset", append([]string{"-c", r.cpu, name}, args...)
	}
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (r *run) do() {
	t := r.t
	r.mnt, r.log = t.TempDir(), filepath.Join(t.TempDir(), "log")
	r.startWriter()
	r.startServer()
	pages := new(pages)
	stop := pages.start()
	total := r.clients()
	stop()
	stats := r.stats()
	t.Logf("%v; pins %d, kills %d; caches dropped %d times", total, stats["pin"], stats["pinkill"], pages.drops.Load())
	r.server.End()
	if stats["pinkill"] != 0 {
		t.Errorf("%d clients were killed", stats["pinkill"])
	}
	least := map[string]int{"checks": 100, "pinned": 50, "resyncs": 5, "opens": 16, "kept": 5}
	for name, n := range least {
		if total[name] < n {
			t.Errorf("%s: %d, which is no test", name, total[name])
		}
	}
	if stats["pin"] < 100 || stats["RevHead"] < 2 {
		t.Errorf("no test: %v", stats)
	}
}

func (r *run) startWriter() { r.startWriterTo(r.database(), 1) }

func (r *run) startWriterTo(database string, seed uint64) {
	r.t.Helper()
	cmd := py.Command(r.t, py.Py5, "../isolation/writer.py", database, r.log, strconv.Itoa(blksize), fmt.Sprint(seed), strconv.Itoa(r.blocks), r.mnt)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	r.writer = cmd
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		r.t.Fatal("the writer did not start")
	}
	r.oids = strings.Fields(lines.Text())
}

func (r *run) database() string { return filepath.Join(filepath.Dir(r.log), "Data.fs") }

func (r *run) startServer() {
	r.t.Helper()
	cmd := r.command(filepath.Join(r.bin, "wcfs"), "-pintimeout="+r.pintimeout.String(), "file://"+r.database(), r.mnt)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", r.gomaxprocs), "GORACE=atexit_sleep_ms=0")
	r.server = served.Serve(r.t, r.mnt, cmd)
}

// clients runs the checkers and adds up what they say.
func (r *run) clients() map[string]int {
	type client struct {
		cmd      *exec.Cmd
		out, err bytes.Buffer
	}
	var cs []*client
	for i := range r.inC + r.inGo + r.inPy {
		args := append([]string{r.mnt, r.log, strconv.Itoa(r.seconds), strconv.Itoa(i + 1), strconv.Itoa(r.last)}, r.oids...)
		c := &client{}
		switch {
		case i < r.inC:
			c.cmd = r.command(filepath.Join(r.bin, "checker"), args...)
		case i < r.inC+r.inGo:
			c.cmd = r.command(filepath.Join(r.bin, "gochecker"), args...)
			c.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", r.gomaxprocs))
		default:
			c.cmd = py.Command(r.t, py.Py5, "../isolation/checker.py", append([]string{filepath.Join(r.bin, "libwcfs.so")}, args...)...)
		}
		c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
		if err := c.cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		cs = append(cs, c)
	}
	total := map[string]int{}
	late := time.Now().Add(time.Duration(r.seconds)*time.Second + 2*time.Minute)
	for i, c := range cs {
		guard := time.AfterFunc(time.Until(late), func() { c.cmd.Process.Kill() })
		if err := c.cmd.Wait(); err != nil {
			r.t.Errorf("client %d: %v: %s", i, err, c.err.String())
		}
		guard.Stop()
		f := strings.Fields(c.out.String())
		for j := 0; j+1 < len(f); j += 2 {
			n, _ := strconv.Atoi(f[j+1])
			total[f[j]] += n
		}
	}
	return total
}

func (r *run) stats() map[string]int {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.mnt, ".wcfs/stats"))
	if err != nil {
		r.t.Fatal(err)
	}
	stats := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, val, _ := strings.Cut(line, "\t: ")
		stats[name], _ = strconv.Atoi(strings.TrimSpace(val))
	}
	return stats
}

// pages drops clean pages of the whole machine now and then.
type pages struct{ drops atomic.Int64 }

func (p *pages) start() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(2 * time.Second):
				if dropcaches.Drop(dropcaches.Pages) == nil {
					p.drops.Add(1)
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}
