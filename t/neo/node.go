package neo

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"wcfs/t/zeo"
)

// Node is a master, a storage or the admin of a cluster: one process at one address, for good.
type Node struct {
	c       *Cluster
	Name    string // M1, S1, A
	Addr    string // host:port
	program string
	args    []string
	log     *os.File
	cmd     *exec.Cmd     // nil while it does not run
	ended   chan struct{} // closed when the process has ended
}

func (c *Cluster) node(program, name string) *Node {
	c.t.Helper()
	n := &Node{c: c, Name: name, Addr: zeo.FreeAddr(c.t), program: program}
	var err error
	if n.log, err = os.Create(filepath.Join(c.dir, name+".log")); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// Start starts the node, for the first time or after it ended.
func (n *Node) Start() {
	t := n.c.t
	t.Helper()
	if n.cmd != nil {
		t.Fatalf("%s runs", n.Name)
	}
	args := append(n.c.tls(true), "-c", n.c.Name, "-m", n.c.masters(" "), "-b", n.Addr)
	n.cmd = n.c.command(context.Background(), n.program, append(args, n.args...)...)
	n.cmd.Dir = n.c.dir
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
}

// Ended tells whether the process has ended by itself.
func (n *Node) Ended() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// Running tells whether it was started and not ended by Kill or Stop.
func (n *Node) Running() bool { return n.cmd != nil }

// Kill ends the node at once, with SIGKILL.
func (n *Node) Kill() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		<-n.ended
		n.cmd = nil
	}
}

// Stop has the node end in due form, with SIGTERM.
func (n *Node) Stop() {
	n.c.t.Helper()
	n.signal(syscall.SIGTERM)
	<-n.ended
	n.cmd = nil
}

// Freeze has the node do nothing, its connections staying, until Thaw.
func (n *Node) Freeze() { n.signal(syscall.SIGSTOP) }

// Thaw has a frozen node go on.
func (n *Node) Thaw() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(sig syscall.Signal) {
	n.c.t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		n.c.t.Fatalf("%s: %v", n.Name, err)
	}
}

// Pid is the number of the process.
func (n *Node) Pid() int { return n.cmd.Process.Pid }
