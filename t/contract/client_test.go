package contract

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const clientEnv = "WCFS_CONTRACT_CLIENT"

// clientMain is a client process: it does the commands on stdin, one line each, one after another, and
// answers each by a line. It touches mappings in user mode, as real clients do.
func clientMain() {
	debug.SetGCPercent(-1) // a collection would wait for a thread in a page fault, and all goroutines for it
	debug.SetPanicOnFault(true)
	c := &clientProcess{rest: map[int]string{}}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(c.do(strings.SplitN(in.Text(), " ", 3)))
	}
}

type clientProcess struct {
	rest map[int]string // by descriptor: what was read past a line
	maps [][]byte
}

func (c *clientProcess) do(args []string) (answer string) {
	args = append(args, "", "")
	fd, _ := strconv.Atoi(args[1])
	switch args[0] {
	case "open":
		flags, _ := strconv.Atoi(args[2])
		fd, err := unix.Open(args[1], flags|unix.O_CLOEXEC, 0)
		return answerOf(fd, err)
	case "close":
		return answerOf(0, unix.Close(fd))
	case "write":
		n, err := unix.Write(fd, []byte(args[2]+"\n"))
		return answerOf(n, err)
	case "line":
		return c.line(fd)
	case "stat":
		var st unix.Stat_t
		return answerOf(0, unix.Stat(args[1], &st))
	case "map":
		n, _ := strconv.Atoi(args[2])
		return c.mmap(args[1], n)
	case "byte":
		off, _ := strconv.Atoi(args[2])
		return touch(c.maps[fd], off)
	case "catch": // SIGBUS sent by another process does nothing from now on
		signal.Notify(make(chan os.Signal, 1), syscall.SIGBUS)
		return "0"
	case "exit":
		os.Exit(0)
	}
	return "what is " + args[0] + "?"
}

func answerOf(n int, err error) string {
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(n)
}

func (c *clientProcess) line(fd int) string {
	for {
		if line, after, ok := strings.Cut(c.rest[fd], "\n"); ok {
			c.rest[fd] = after
			return line
		}
		buf := make([]byte, 4096)
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err.Error()
		case n == 0:
			return "EOF"
		default:
			c.rest[fd] += string(buf[:n])
		}
	}
}

func (c *clientProcess) mmap(path string, n int) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		err = unix.Madvise(mem, unix.MADV_RANDOM)
	}
	if err != nil {
		return err.Error()
	}
	c.maps = append(c.maps, mem)
	return strconv.Itoa(len(c.maps) - 1)
}

func touch(mem []byte, off int) (answer string) {
	defer func() {
		if recover() != nil {
			answer = "SIGBUS"
		}
	}()
	return strconv.Itoa(int(mem[off]))
}

// client is a client process as the test sees it.
type client struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan string // answers; closed when the process has ended
	done chan struct{}
	died time.Time // set before done is closed
}

func startClient(t *testing.T) *client {
	t.Helper()
	c := &client{t: t, cmd: exec.Command(os.Args[0]), out: make(chan string, 1000), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), clientEnv+"=1", "GOMAXPROCS=4")
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout = w
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.out <- s.Text()
		}
		close(c.out)
		out.Close()
	}()
	go func() {
		c.cmd.Wait()
		c.died = time.Now()
		close(c.done)
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *client) kill() {
	c.cmd.Process.Kill()
	<-c.done
}

// tell has the client do something, and does not wait for it.
func (c *client) tell(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
}

// answer waits for the answer; "" when the process has ended instead.
func (c *client) answer() string {
	c.t.Helper()
	select {
	case s := <-c.out:
		return s
	case <-time.After(patience):
		c.t.Fatal("the client does not answer")
		return ""
	}
}

func (c *client) do(format string, args ...any) string {
	c.t.Helper()
	c.tell(format, args...)
	return c.answer()
}

// num is do for what answers by a number.
func (c *client) num(format string, args ...any) int {
	c.t.Helper()
	s := c.do(format, args...)
	n, err := strconv.Atoi(s)
	if err != nil {
		c.t.Fatalf("client: "+format+": %s", append(args, s)...)
	}
	return n
}

func (c *client) expect(want, format string, args ...any) {
	c.t.Helper()
	if got := c.do(format, args...); got != want {
		c.t.Fatalf("client: "+format+": %q, want %q", append(args, got, want)...)
	}
}

// ended waits until the process has.
func (c *client) ended() {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatal("the client does not end")
	}
}

func (c *client) signal() syscall.Signal {
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
}

// waits waits until a thread of the client waits for an answer of the server.
func (c *client) waits() {
	c.t.Helper()
	eventually(c.t, "the client to wait for the server", func() bool {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", c.cmd.Process.Pid))
		for _, path := range list {
			if text, _ := os.ReadFile(path); strings.Contains(string(text), "request_wait_answer") || strings.Contains(string(text), "folio_wait") {
				return true
			}
		}
		return false
	})
}
