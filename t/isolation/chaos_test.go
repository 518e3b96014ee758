package isolation

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/isolation/writerlog"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/t/wait"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

var seedFlag = flag.Uint64("seed", 0, "of TestChaos: what goes wrong, and in which order; 0: by the clock")

const (
	chaosTimeout = 8 * time.Second  // --pintimeout
	chaosOutage  = 2 * time.Second  // the longest
	chaosSlack   = 10 * time.Second // for a machine with much else to do
	chaosBound   = 2*chaosTimeout + chaosOutage + chaosSlack
)

// chaosRun is one server to which everything happens at once that clients, files and the database can do.
type chaosRun struct {
	run
	rnd     *rand.Rand
	zeo     *zeotest.Server
	proxy   *zeotest.Proxy
	nine    string // address
	profile string // URL
	victims *asking

	killed  int // clients that had to be
	longest atomic.Int64
	lag     atomic.Int64 // ns, the largest
	reads   atomic.Int64
	checks  atomic.Int64 // over 9P
	pins    atomic.Int64 // over 9P
	done    map[string]int
}

// TestChaos: errors of one object, outages, deletions, frozen, hostile and slow clients, a helper that is stopped, while Python
// commits over ZEO and ten proper clients in C, Go and Python look, eight over FUSE and two over 9P. No wrong byte, none of them
// killed, no reader waits longer than the documented bound, head goes on, and in the end nothing is left of it all.
func TestChaos(t *testing.T) {
	seconds := 60
	if os.Getenv("WCFS_SOAK") != "" {
		seconds = 600
	}
	if n, err := strconv.Atoi(os.Getenv("WCFS_CHAOS_SECONDS")); err == nil {
		seconds = n
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) >> 1
	}
	t.Logf("go test -run TestChaos ./t/isolation -seed %d", seed)
	c := &chaosRun{rnd: rand.New(rand.NewPCG(seed, 0)), done: map[string]int{}}
	c.run = run{t: t, bin: build(t), gomaxprocs: 2, inC: 4, inGo: 2, inPy: 2, seconds: seconds, blocks: 32, last: 100, pintimeout: chaosTimeout}
	c.start(seed)
	before := c.resources()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	c.others(seed, stop, &wg)
	clients := make(chan map[string]int, 1)
	go func() { clients <- c.clients() }()
	c.misbehave(time.Now().Add(time.Duration(seconds) * time.Second))
	total := <-clients
	close(stop)
	wg.Wait()
	c.settle(before)
	t.Logf("%v; over 9P %d checks, %d pins; %d reads beside them, the longest %v; head %v behind at most; %v",
		total, c.checks.Load(), c.pins.Load(), c.reads.Load(), time.Duration(c.longest.Load()), time.Duration(c.lag.Load()), c.done)
	for name, n := range map[string]int{"checks": total["checks"], "pinned": total["pinned"], "9P": int(c.checks.Load()), "reads": int(c.reads.Load())} {
		if n < 20 {
			t.Errorf("%s: %d, which is no test", name, n)
		}
	}
}

func (c *chaosRun) start(seed uint64) {
	t := c.t
	c.zeo = zeotest.Start(t, zeotest.Config{Version: 5, Queue: 100000})
	c.proxy = c.zeo.Proxy()
	c.mnt, c.log = t.TempDir(), filepath.Join(t.TempDir(), "log")
	c.startWriterTo("zeo:"+c.zeo.Addr, seed)
	cmd := c.command(filepath.Join(c.bin, "wcfs"), "serve", "--mount", c.mnt, "--pintimeout", chaosTimeout.String(),
		"--9p", "tcp:127.0.0.1:0", "--debug-addr", "127.0.0.1:0", c.proxy.URL())
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.server = served.Serve(t, c.mnt, cmd)
	c.nine = "tcp:" + c.server.Address("tcp")
	c.profile = regexp.MustCompile(`http://[^ "]*/debug/pprof/`).FindString(c.server.Log.String())
	host, port, _ := strings.Cut(c.zeo.Addr, ":")
	c.victims = ask(t, py.Command(t, py.Py5, "../isolation/victims.py", host, port, "4096"))
}

// others starts what runs beside the clients: guests, readers without a watch, a look at health.
func (c *chaosRun) others(seed uint64, stop <-chan struct{}, wg *sync.WaitGroup) {
	log, err := writerlog.Open(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range 2 {
		n := &nineClient{
			addr: c.nine, name: fmt.Sprintf("guest%d", i), log: log, oids: c.oids, rnd: rand.New(rand.NewPCG(seed, uint64(1+i))),
			checks: &c.checks, pins: &c.pins,
		}
		wg.Go(func() {
			if err := n.until(stop); err != nil {
				c.t.Error(err)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 10))
	repeat := func(pause time.Duration, fn func() error) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if err := fn(); err != nil {
					c.t.Error(err)
					return
				}
			}
		})
	}
	repeat(5*time.Millisecond, func() error { return c.bystander(rnd) })
	repeat(300*time.Millisecond, c.health)
	wg.Go(func() { // pages go now and then
		end := new(pages).start()
		<-stop
		end()
	})
}

// bystander reads a block of head, which nobody may keep from it for long.
func (c *chaosRun) bystander(rnd *rand.Rand) error {
	f, err := os.Open(filepath.Join(c.mnt, "head/bigfile", c.oids[rnd.IntN(len(c.oids))]))
	if err != nil {
		return fmt.Errorf("bystander: %w", err)
	}
	defer f.Close()
	off := rnd.Int64N(6) * blksize
	unix.Fadvise(int(f.Fd()), off, blksize, unix.FADV_DONTNEED)
	began := time.Now()
	if _, err := f.ReadAt(make([]byte, blksize), off); err != nil {
		return fmt.Errorf("bystander: %w", err)
	}
	took := time.Since(began)
	c.longest.Store(max(c.longest.Load(), int64(took)))
	c.reads.Add(1)
	if took > chaosBound {
		return fmt.Errorf("a read took %v, the bound is %v", took, chaosBound)
	}
	return nil
}

func (c *chaosRun) health() error {
	text, err := os.ReadFile(filepath.Join(c.mnt, ".wcfs/health"))
	if err != nil {
		return err
	}
	var h struct {
		State, Why string
		Head       struct {
			Lag float64 `json:"lag_s"`
		}
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	lag := time.Duration(h.Head.Lag * float64(time.Second))
	c.lag.Store(max(c.lag.Load(), int64(lag)))
	if h.State == "failed" || lag > chaosBound {
		return fmt.Errorf("health is %s: %s; head is %v behind, the bound is %v", h.State, h.Why, lag, chaosBound)
	}
	return nil
}

// misbehave has one thing after another go wrong, in any order, each at least once.
func (c *chaosRun) misbehave(end time.Time) {
	deeds := map[string]func(){
		"outage": c.outage, "half-open": c.halfOpen, "frozen": func() { c.faulty("frozen") }, "silent": func() { c.faulty("silent") },
		"slow": c.slow, "flood": c.flood, "no 9P": c.garbage, "helper": c.helper, "restored": c.restored,
	}
	for _, how := range []string{"deleted", "blksize", "table", "state", "block"} {
		deeds[how] = func() { c.spoil(how) }
	}
	var names []string
	for name := range deeds {
		names = append(names, name)
	}
	for first := true; first || time.Now().Before(end); first = false {
		slices.Sort(names)
		c.rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			if !first && time.Now().After(end) {
				return
			}
			began := time.Now()
			deeds[name]()
			c.done[name]++
			c.t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
		}
	}
}

func (c *chaosRun) moment(most time.Duration) { time.Sleep(time.Duration(c.rnd.Int64N(int64(most)))) }

// outage has the server lose its database, and find it again.
func (c *chaosRun) outage() {
	c.proxy.Refuse(true)
	c.proxy.Cut()
	c.moment(chaosOutage)
	c.proxy.Refuse(false)
}

// halfOpen leaves the connection there, and nothing passes.
func (c *chaosRun) halfOpen() {
	c.proxy.Freeze()
	c.moment(chaosOutage)
	c.proxy.Cut()
}

// spoil has one file, or one block of it, go, and sees that its readers are told so.
func (c *chaosRun) spoil(how string) {
	t := c.t
	oid, made, _ := strings.Cut(c.victims.line(t, "new"), " ")
	wait.Until(t, "a new file", func() bool { return c.file("head/at") >= made })
	f, err := os.Open(filepath.Join(c.mnt, "head/bigfile", oid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	if _, err := f.ReadAt(buf, 0); err != nil {
		t.Errorf("%s: before: %v", how, err)
	}
	link, err := os.OpenFile(filepath.Join(c.mnt, "head/watch"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	at := strings.TrimSpace(c.file("head/at"))
	fmt.Fprintf(link, "1 watch %s @%s\n", oid, at)
	lines := bufio.NewReader(link)
	next := func() string {
		for {
			line, err := lines.ReadString('\n')
			if stream, msg, _ := strings.Cut(line, " "); strings.HasPrefix(msg, "pin ") {
				fmt.Fprintf(link, "%s ack\n", stream)
				continue
			}
			if err != nil {
				return err.Error()
			}
			return strings.TrimSpace(line)
		}
	}
	if line := next(); line != "1 ok" {
		t.Fatalf("%s: watch: %q", how, line)
	}
	tid := c.victims.line(t, how+" "+oid)
	wait.Until(t, "head at "+tid, func() bool { return c.file("head/at") >= tid })
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if how != "block" {
		if line := next(); !strings.HasPrefix(line, "0 error: watch f<"+oid+"> @"+at+" ended: ") {
			t.Errorf("%s: the link says %q", how, line)
		}
	} else {
		go next() // acknowledges
	}
	if _, err := f.ReadAt(buf, 0); err == nil {
		t.Errorf("%s: it is read as if nothing had happened", how)
	}
	if _, err := f.ReadAt(buf, 4096); (err == nil) != (how == "block") {
		t.Errorf("%s: its other block: %v", how, err)
	}
	fmt.Fprintf(link, "3 bye\n")
}

func (c *chaosRun) file(name string) string {
	text, err := os.ReadFile(filepath.Join(c.mnt, name))
	if err != nil {
		c.t.Error(err)
	}
	return string(text)
}

// rogue starts a client that watches the first file.
func (c *chaosRun) rogue(mode string) *asking {
	log, err := writerlog.Open(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	var at zodb.Tid
	wait.Until(c.t, "a commit", func() bool {
		at, err = log.Pick(0, 5)
		return err == nil && at != 0
	})
	return ask(c.t, py.Command(c.t, py.Py5, "../isolation/rogue.py", mode, c.mnt, c.oids[0], at.String()))
}

// faulty is a client that does not acknowledge: it is killed, and others go on.
func (c *chaosRun) faulty(mode string) {
	r := c.rogue(mode)
	if line := r.next(c.t); line != "ready" {
		c.t.Errorf("%s: %q", mode, line)
	}
	wait.Until(c.t, "the end of a client that is "+mode, func() bool {
		select {
		case <-r.ended:
			return true
		default:
			return false
		}
	})
	c.killed++
	if s, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() {
		c.t.Errorf("%s: it ended by %v", mode, r.cmd.ProcessState)
	}
}

// slow is a client that does what it should, late.
func (c *chaosRun) slow() {
	r := c.rogue("slow")
	if line := r.next(c.t); line != "ready" {
		c.t.Errorf("slow: %q", line)
	}
	c.moment(3 * time.Second)
	r.in.Close()
	if line := r.next(c.t); !strings.HasPrefix(line, "pins ") || !strings.HasSuffix(line, " 1 ok") {
		c.t.Errorf("slow: %q", line)
	}
	<-r.ended
	if !r.cmd.ProcessState.Success() {
		c.t.Errorf("slow: %v", r.cmd.ProcessState)
	}
}

// flood is a client that asks for more than it may have.
func (c *chaosRun) flood() {
	r := c.rogue("flood")
	if line := r.next(c.t); line != "refused 1" {
		c.t.Errorf("flood: %q", line)
	}
	r.in.Close()
	<-r.ended
}

// garbage is what is no 9P at all.
func (c *chaosRun) garbage() {
	for range 20 {
		nc, err := net.Dial("tcp", strings.TrimPrefix(c.nine, "tcp:"))
		if err != nil {
			c.t.Error(err)
			return
		}
		b := make([]byte, c.rnd.IntN(4096))
		for i := range b {
			b[i] = byte(c.rnd.Uint32())
		}
		nc.Write(b)
		nc.Close()
	}
}

// helper has what the server started beside itself stand still.
func (c *chaosRun) helper() {
	pid := strconv.Itoa(c.server.Cmd.Process.Pid)
	lists, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
	n := 0
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(text)) {
			id, _ := strconv.Atoi(child)
			if syscall.Kill(id, syscall.SIGSTOP) == nil {
				n++
				defer syscall.Kill(id, syscall.SIGCONT)
			}
		}
	}
	if n == 0 {
		c.t.Error("the server has no helper")
	}
	c.moment(2 * time.Second)
}

// restored has a server of its own whose file becomes another database: it ends at once and for good.
func (c *chaosRun) restored() {
	t := c.t
	dir, mnt := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "Data.fs")
	for i, name := range []string{"Data.fs", "other.fs"} {
		db := strings.NewReplacer("DIR", dir, "NAME", name, "N", strconv.Itoa(3+i)).Replace(
			`import transaction, ZODB, ZODB.FileStorage as F
d = ZODB.DB(F.FileStorage("DIR/NAME")); r = d.open().root()
for i in range(N): r["x"] = i; transaction.commit()
d.close()`)
		cmd := py.Command(t, py.Py5, "")
		cmd.Args = []string{cmd.Args[0], "-c", db}
		if out, err := cmd.Output(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s := served.Serve(t, mnt, exec.Command(filepath.Join(c.bin, "wcfs"), "serve", "--on-failure=exit", "--mount", mnt, "file://"+path))
	if out, err := exec.Command("cp", filepath.Join(dir, "other.fs"), path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code := s.Wait(); code != 1 {
		t.Errorf("a server whose database was replaced ends with %d", code)
	}
}

// resources are what the server has, when it is asked to give back what it can.
func (c *chaosRun) resources() (r struct{ goroutines, heap int }) {
	get := func(what, re string) int {
		resp, err := http.Get(c.profile + what)
		if err != nil {
			c.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		m := regexp.MustCompile(re).FindSubmatch(text)
		if err != nil || m == nil {
			c.t.Fatalf("%s: %v: %.200s", what, err, text)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	r.goroutines = get("goroutine?debug=1", `total (\d+)`)
	r.heap = get("heap?debug=1&gc=1", `# HeapAlloc = (\d+)`)
	return r
}

// settle sees that head gets to the end, and that nothing is left.
func (c *chaosRun) settle(before struct{ goroutines, heap int }) {
	t := c.t
	c.writer.Process.Signal(syscall.SIGKILL)
	log, err := writerlog.Open(c.log)
	if err != nil {
		t.Fatal(err)
	}
	last, err := log.Pick(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "head at the last commit", func() bool { return c.file("head/at") >= last.String() })
	wait.Until(t, "the state of clients to be gone", func() bool {
		s := c.stats()
		return s["WatchLink"] == 0 && s["Watch"] == 0 && s["PinnedBlk"] == 0
	})
	stats := c.stats()
	if stats["pinkill"] != c.killed {
		t.Errorf("%d clients were killed, %d should have been", stats["pinkill"], c.killed)
	}
	const caches = 64<<20 + 64<<20 // of nodes and blocks, by default
	var after struct{ goroutines, heap int }
	for end := time.Now().Add(wait.Patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if after = c.resources(); after.goroutines <= before.goroutines+20 {
			break
		}
	}
	t.Logf("goroutines %d, then %d; heap %d MiB, then %d", before.goroutines, after.goroutines, before.heap>>20, after.heap>>20)
	if after.goroutines > before.goroutines+20 {
		t.Errorf("%d goroutines, %d at the start", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+caches+64<<20 {
		t.Errorf("%d MiB of memory are in use, %d at the start", after.heap>>20, before.heap>>20)
	}
	c.server.End()
}

// asking is a program that says lines, and is told some.
type asking struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan struct{}
}

func ask(t *testing.T, cmd *exec.Cmd) *asking {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &asking{cmd: cmd, in: in, lines: make(chan string, 100), ended: make(chan struct{})}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			a.lines <- s.Text()
		}
		close(a.lines)
		cmd.Wait()
		close(a.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-a.ended
	})
	return a
}

// next is what it says next, "" at its end.
func (a *asking) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-a.lines:
		return line
	case <-time.After(wait.Patience):
		t.Fatalf("%q says nothing", a.cmd.Args)
	}
	return ""
}

func (a *asking) line(t *testing.T, what string) string {
	t.Helper()
	fmt.Fprintln(a.in, what)
	line := a.next(t)
	if line == "" {
		t.Fatalf("%q has ended", a.cmd.Args)
	}
	return line
}
