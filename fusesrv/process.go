package fusesrv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore"
)

// process is a client process held by a pidfd, so that it is never mistaken for a later one of the
// same number.
type process struct {
	pid     int
	uid     uint32
	command string

	mu sync.RWMutex
	fd int // guard: mu; -1 when closed
}

var (
	_ zcore.Process   = (*process)(nil)
	_ zcore.Described = (*process)(nil)
)

// openProcess returns the process of a thread that waits for our answer.
func openProcess(thread uint32) (*process, error) {
	if thread == 0 {
		return nil, errors.New("it runs outside this server's pid namespace")
	}
	st, err := readStatus(thread)
	if err != nil {
		return nil, err
	}
	p, err := holdProcess(st.tgid)
	if err != nil {
		return nil, err
	}
	// The thread is there still, so the process was when the descriptor was made.
	if now, err := readStatus(thread); err != nil || now.tgid != st.tgid {
		p.Close()
		return nil, fmt.Errorf("process %d of thread %d is gone", st.tgid, thread)
	}
	p.uid, p.command = st.uid, st.name
	return p, nil
}

func holdProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open of %d: %w", pid, err)
	}
	return &process{pid: pid, fd: fd}, nil
}

func (p *process) Pid() int { return p.pid }

func (p *process) Describe() (uid uint32, command string) { return p.uid, p.command }

func (p *process) Alive() bool { return !p.ended(0) }

// ended waits at most wait for the process to end; a zombie has ended.
func (p *process) ended(wait time.Duration) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.fd < 0 {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(wait/time.Millisecond))
	return err == nil && n > 0
}

func (p *process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v: not one of this system", sig)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.fd < 0 {
		return fmt.Errorf("signal process %d: %w", p.pid, os.ErrClosed)
	}
	err := unix.PidfdSendSignal(p.fd, s, nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// Wait looks in short steps: it is rare, and a Close must not wait for it.
func (p *process) Wait(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.ended(10 * time.Millisecond) {
			return nil
		}
	}
}

func (p *process) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
