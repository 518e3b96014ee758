package fusesrv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// A file becomes known to the kernel when somebody looks at its path. The caller must not be the serving
// process. Killed by SIGKILL in the midst of its own request, it would wait for an answer that nobody is left
// to give and keep the connection open, so that its clients would hang too. So a child of it does that: see
// Helper, and Options.Standalone.

// identity of a file, as stat(2) shows it.
type identity struct {
	Dev   uint64        `json:"dev"`
	Ino   uint64        `json:"ino"`
	Errno syscall.Errno `json:"errno"` // of the stat, 0 if it went well
}

func identify(path string) (id identity) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		if !errors.As(err, &id.Errno) {
			id.Errno = syscall.EIO
		}
		return id
	}
	return identity{Dev: uint64(st.Dev), Ino: st.Ino}
}

// identifyAll is the child: paths come in, identities go out, until the server closes its end.
func identifyAll(in io.Reader, out io.Writer) error {
	paths, ids := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var path string
		if err := paths.Decode(&path); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := ids.Encode(identify(path)); err != nil {
			return err
		}
	}
}

// looker looks at files, through a child if own is false.
type looker struct {
	own bool

	turn  chan struct{} // capacity 1: who may use what follows has put something in
	child *looking      // nil when none runs
}

// looking is a child at work.
type looking struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
	req *json.Encoder
	ans *json.Decoder
}

func newLooker(own bool) *looker { return &looker{own: own, turn: make(chan struct{}, 1)} }

// look returns the device and inode number of a file.
func (l *looker) look(path string) (dev, ino uint64, err error) {
	var id identity
	if l.own {
		id = identify(path)
	} else if id, err = l.ask(path); err != nil {
		return 0, 0, err
	}
	if id.Errno != 0 {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: id.Errno}
	}
	return id.Dev, id.Ino, nil
}

func (l *looker) ask(path string) (id identity, err error) {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.child == nil {
		if l.child, err = startLooking(); err != nil {
			return id, fmt.Errorf("start helper process: %w", err)
		}
	}
	if err = l.child.req.Encode(path); err == nil {
		err = l.child.ans.Decode(&id)
	}
	if err != nil { // somebody killed it; the next one is asked by a new one
		l.child.end()
		l.child = nil
		return id, fmt.Errorf("helper process: %w", err)
	}
	return id, nil
}

// close ends the child.
func (l *looker) close() {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.child != nil {
		l.child.end()
		l.child = nil
	}
}

func startLooking() (*looking, error) {
	cmd, err := helperCommand("wcfs-helper", helperEnv, "")
	if err != nil {
		return nil, err
	}
	c := &looking{cmd: cmd}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the server, which ends it
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.req, c.ans = json.NewEncoder(c.in), json.NewDecoder(c.out)
	return c, nil
}

func (c *looking) end() {
	c.in.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}
