package fusesrv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// Clients that block or are killed, and servers that are, run in processes of their own: this test
// binary with childEnv set to what to do. A page fault above all must not be taken in the process that
// serves it, since Go's collector would wait for the faulting thread.
const childEnv = "WCFS_TEST_CHILD"

func testHelpers() {
	what, arg, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		return
	}
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1) // not fatal
	fmt.Println("ready")
	var err error
	switch what {
	case "server":
		err = childServer(arg)
	case "stuck":
		err = childStuck(arg)
	case "mount", "mountany":
		err = childMount(arg, what == "mountany")
	case "open":
		_, err = unix.Open(arg, unix.O_RDONLY, 0)
	case "stat":
		var st unix.Stat_t
		err = unix.Stat(arg, &st)
	case "read":
		err = childRead(arg)
	case "fault":
		err = childFault(arg)
	case "hold":
		err = childHold(arg)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("done")
	os.Exit(0)
}

// childRead reads once, without trying again when interrupted.
func childRead(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	fmt.Println("open")
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err == nil {
		fmt.Printf("read %q\n", buf[:min(n, 20)])
	}
	return err
}

// childFault touches the first page of a mapping each time it is told to by a line; MADV_RANDOM has
// the kernel read it while the thread waits.
func childFault(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, fakeBlk, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Madvise(mem, unix.MADV_RANDOM); err != nil {
		return err
	}
	debug.SetPanicOnFault(true)
	defer func() {
		if recover() != nil {
			fmt.Println("SIGBUS")
		}
	}()
	fmt.Println("mapped")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Printf("byte %d\n", mem[0])
	}
	return nil
}

// childHold opens a file, from a thread that is not the main one, and closes it at a line.
func childHold(path string) (err error) {
	var fd int
	flags := unix.O_RDONLY
	if strings.HasSuffix(path, "watch") {
		flags = unix.O_RDWR
	}
	opened := make(chan struct{})
	go func() {
		fd, err = unix.Open(path, flags, 0)
		close(opened)
	}()
	<-opened
	if err != nil {
		return err
	}
	fmt.Println("open")
	bufio.NewReader(os.Stdin).ReadString('\n')
	return unix.Close(fd)
}

func childServer(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	t := newFakeTree()
	s, err := Mount(ctx, t.root, dir, Options{URL: t.zurl, Standalone: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	// storing all the time, so that a signal finds it at that
	go func() {
		for rev := zodb.Tid(1); s.StoreRev(rev, 1, 0, fakeBytes(1, 0, 0, page)) == nil; rev++ {
		}
	}()
	fmt.Println("serving")
	select {
	case <-ctx.Done():
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		return s.Close(ctx)
	case <-s.Done():
		return s.Wait(context.Background())
	}
}

// childStuck is a server that never answers a READ, and invalidates the page that it is for.
func childStuck(dir string) error {
	t := newFakeTree()
	asked := make(chan struct{}, 100)
	t.onRead = func(context.Context, zodb.Oid, int64, int) error {
		asked <- struct{}{}
		select {}
	}
	s, err := Mount(context.Background(), t.root, dir, Options{URL: t.zurl, Standalone: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	fmt.Println("serving")
	<-asked
	fmt.Println("invalidating")
	return s.Invalidate(1, 0, page)
}

// childMount mounts and unmounts, on any kernel or not.
func childMount(dir string, any bool) error {
	t := newFakeTree()
	s, err := Mount(context.Background(), t.root, dir, Options{URL: t.zurl, Standalone: true, AnyKernel: any, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return s.Close(context.Background())
}

type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan error
}

// start runs a child that does what to arg, and waits for its line "ready".
func start(t *testing.T, what, arg string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := command(t, exe, what, arg)
	c.run()
	return c
}

func command(t *testing.T, exe, what, arg string) *child {
	c := &child{t: t, cmd: exec.Command(exe), lines: make(chan string, 100), ended: make(chan error, 1)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+what+" "+arg, "GODEBUG=asyncpreemptoff=1")
	c.cmd.Stderr = t.Output()
	return c
}

func (c *child) run() {
	c.t.Helper()
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		c.in, err = c.cmd.StdinPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			c.lines <- sc.Text()
		}
		close(c.lines)
		c.ended <- c.cmd.Wait()
	}()
	c.t.Cleanup(func() { c.cmd.Process.Kill() })
	c.expect("ready")
}

// line returns the next line the child prints.
func (c *child) line() string {
	c.t.Helper()
	select {
	case l, ok := <-c.lines:
		if !ok {
			return "EOF"
		}
		return l
	case <-time.After(wait.Patience):
		c.t.Fatal("child is silent")
		return ""
	}
}

func (c *child) expect(want string) {
	c.t.Helper()
	if got := c.line(); got != want {
		c.t.Fatalf("child says %q, want %q", got, want)
	}
}

func (c *child) say(line string) { fmt.Fprintln(c.in, line) }

func (c *child) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// diesWithin waits for the end of the child and returns how it ended.
func (c *child) diesWithin(d time.Duration) error {
	c.t.Helper()
	select {
	case err := <-c.ended:
		return err
	case <-time.After(d):
		c.t.Fatalf("child is still there after %v", d)
		return nil
	}
}

// killed tells whether err is the end of a process by sig.
func killed(err error, sig syscall.Signal) bool {
	var ee *exec.ExitError
	return errors.As(err, &ee) && ee.Sys().(syscall.WaitStatus).Signal() == sig
}
