package guestisolation

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/qemu"
	"wcfs/qemu/qemutest"
	"wcfs/t/wait"
)

// transport is how a guest reaches the server.
type transport string

const (
	tcp    transport = "tcp"
	virtfs transport = "virtfs"
	both   transport = "both" // virtfs besides, at /virtfs
)

// guest is a small guest whose program is a shell that takes commands from here.
type guest struct {
	t     *testing.T
	name  string
	spec  qemu.Spec // but for input and output
	m     *qemu.Machine
	at    string // where it has the server
	mount string // options of its mount, without the port
	in    *io.PipeWriter
	lines chan string   // what the shell prints; closed at its end
	ended chan struct{} // closed when the guest has
	n     int           // commands
}

// spec is what a guest is made of. The turn to run guests is the caller's.
type spec struct {
	name   string // its uname
	kernel string
	how    transport
	port   string // for tcp, where the server is reached
	cpus   int
	above  bool // for virtfs: the folder above the server's mount is handed in
}

const memory = 128 // MiB: little, so that pages of mappings go

// boot starts a guest that has the server, at /wcfs if not told otherwise, and the writer's log at /log.
func boot(t *testing.T, s *server, sp spec) *guest {
	t.Helper()
	g := &guest{t: t, name: sp.name, at: "/wcfs"}
	q := qemu.Spec{
		Kernel: qemutest.Kernel(t, sp.kernel), Memory: memory, CPUs: sp.cpus, Net: qemu.NetNeeded, Accel: qemu.TCG,
		Program: []string{"/bin/sh"}, Env: []string{"PATH=/bin:/tools"},
		Files: []qemu.File{
			{Path: "/checker", Source: checker(), Mode: 0o755},
			{Path: "/probes", Source: filepath.Join(built, "probes"), Mode: 0o755},
		},
		Shares: []qemu.Share{
			{Tag: "log", Dir: s.w.logDir(), Mount: "/log", ReadOnly: true},
			{Tag: "tools", Dir: built, Mount: "/tools", ReadOnly: true, Cache: "loose"},
		},
		Timeout: 15 * time.Minute, BootTimeout: wait.Patience,
	}
	g.mount = "trans=tcp,version=9p2000.L,cache=none,access=any,msize=1044504,uname=" + sp.name
	switch {
	case sp.how == both:
		q.Shares = append(q.Shares, qemu.Share{Tag: "wcfs", Dir: s.mnt, Mount: "/virtfs"})
	case sp.above:
		q.Shares = append(q.Shares, qemu.Share{Tag: "wcfs", Dir: filepath.Dir(s.mnt), Mount: "/above"})
		g.at = filepath.Join("/above", filepath.Base(s.mnt))
	case sp.how == virtfs:
		q.Shares = append(q.Shares, qemu.Share{Tag: "wcfs", Dir: s.mnt, Mount: g.at})
	}
	if sp.how != virtfs {
		q.Mounts = []qemu.Mount{{Source: "10.0.2.2", Target: "/wcfs", Options: g.mount + ",port=" + sp.port}}
	}
	g.spec = q
	g.start()
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("console of %s:\n%s", g.name, g.m.Console())
		}
	})
	return g
}

// start switches the guest on.
func (g *guest) start() {
	g.t.Helper()
	in, inWriter := io.Pipe()
	out, outWriter := io.Pipe()
	q := g.spec
	q.Stdin, q.Stdout = in, outWriter
	m, err := qemu.Start(context.Background(), q)
	if err != nil {
		g.t.Fatal(err)
	}
	lines, ended := make(chan string, 1000), make(chan struct{})
	g.m, g.in, g.lines, g.ended = m, inWriter, lines, ended
	go func() { // it follows the guest, to tell when it runs
		_, err := m.Wait(context.Background())
		outWriter.CloseWithError(err)
		close(ended)
	}()
	go func() {
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			lines <- strings.TrimRight(scan.Text(), "\r")
		}
		close(lines)
	}()
}

// running waits until the guest takes commands. Now and then, QEMU's emulated processors lose their way as the kernel changes
// its own code: a guest that has not come to its program is started once more.
func (g *guest) running() {
	g.t.Helper()
	began := time.Now()
	for try := 0; ; try++ {
		select {
		case <-g.m.Running():
			g.sh(2*time.Minute, "true")
			g.t.Logf("%s runs after %v more", g.name, time.Since(began).Round(time.Millisecond))
			return
		case <-g.ended:
			g.t.Logf("%s did not start:\n%s", g.name, g.m.Console())
			if try == 2 {
				g.t.FailNow()
			}
			g.kill()
			g.start()
		}
	}
}

// sh has the shell do something and returns what was printed and the exit status.
func (g *guest) sh(limit time.Duration, format string, args ...any) (string, int) {
	g.t.Helper()
	g.n++
	text := fmt.Sprintf(format, args...)
	go fmt.Fprintf(g.in, "%s\necho -e \"\\n= %d $?\"\n", text, g.n) // its end is seen below; the pipe is closed by kill
	var said strings.Builder
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-g.lines:
			if !ok {
				g.t.Fatalf("%s: %s: the guest ended; it said %q", g.name, text, said.String())
			}
			var n, status int
			if k, _ := fmt.Sscanf(line, "= %d %d", &n, &status); k == 2 && n == g.n {
				return strings.TrimSuffix(said.String(), "\n"), status
			}
			said.WriteString(line + "\n")
		case <-timer.C:
			g.t.Fatalf("%s: %s: not done after %v; it said %q", g.name, text, limit, said.String())
		}
	}
}

// must is sh, whose status must be 0.
func (g *guest) must(limit time.Duration, format string, args ...any) string {
	g.t.Helper()
	said, status := g.sh(limit, format, args...)
	if status != 0 {
		g.t.Errorf("%s: %s: status %d: %s", g.name, fmt.Sprintf(format, args...), status, said)
	}
	return said
}

// remount mounts the server at a port anew.
func (g *guest) remount(port string) {
	g.t.Helper()
	g.must(patience, "umount -l /wcfs; mount -t 9p -o %s,port=%s 10.0.2.2 /wcfs", g.mount, port)
}

// pressure takes pages away until the guest ends.
func (g *guest) pressure() {
	g.t.Helper()
	g.must(patience, "(while :; do echo 1 >/proc/sys/vm/drop_caches; sleep 1; done) & /checker hog 24 & sleep 0")
}

// check starts n checkers; wait gives what each said and its status.
func (g *guest) check(w *writer, n, seconds, seed int) {
	g.t.Helper()
	for i := range n {
		args := strings.Join(checkArgs(w, g.at, "/log/log", seconds, seed+i), " ")
		g.must(patience, "(/checker %s; echo \"exit $?\") >/tmp/said%d 2>&1 & pid%d=$!", args, i, i)
	}
}

// checked waits for the checkers that check started.
func (g *guest) checked(n, seconds int) []outcome {
	g.t.Helper()
	var list []outcome
	for i := range n {
		said, _ := g.sh(time.Duration(seconds)*time.Second+2*time.Minute, "wait $pid%d; cat /tmp/said%d", i, i)
		list = append(list, parse(said))
	}
	return list
}

// kill ends the guest as a power failure does.
func (g *guest) kill() {
	g.m.Close()
	g.in.Close()
}
