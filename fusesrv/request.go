package fusesrv

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/zcore/tree"
)

// policy says what an interrupt does to a request. The kernel sends one for any signal, and only one
// per request, however many signals follow.
type policy int

const (
	// onAny ends the request at once: reads and writes of streams.
	onAny policy = iota
	// onAnySoon gives the request a moment to end by itself, since a program that takes signals all the
	// time (profilers, Go's scheduler) must still be able to open files: names, attributes, opens.
	onAnySoon
	// onKill ends it only when the caller is being killed: READs of bigfiles, where EINTR answered to a
	// page fault that is tried again is SIGBUS.
	onKill
)

const (
	killPoll = 50 * time.Millisecond  // how often an interrupted request looks whether its caller is being killed
	soon     = 100 * time.Millisecond // see onAnySoon
)

// request is the context of one request. It costs a goroutine only once somebody waits for it.
type request struct {
	fs     *fileSystem
	cancel <-chan struct{} // closed by go-fuse on INTERRUPT and when the connection ends
	thread uint32          // thread id of the caller as this server sees it, 0 when it does not
	policy policy
	always bool // it began after SetDisconnected, and never waits

	watch    sync.Once
	done     chan struct{} // closed when the request is to end
	finished chan struct{} // closed when it has been answered

	mu  sync.Mutex
	err error // guard: mu; not nil once done is closed
}

// begin enters a request; the caller calls finish. After SetDisconnected nobody gets in.
func (fs *fileSystem) begin(cancel <-chan struct{}, h *fuse.InHeader, p policy) (*request, fuse.Status) {
	return fs.beginAt(nil, cancel, h, p)
}

// beginAt is begin for a request about a node: what the tree serves always is let in after SetDisconnected too. The
// tree itself says what of that is an error then.
func (fs *fileSystem) beginAt(in *inode, cancel <-chan struct{}, h *fuse.InHeader, p policy) (*request, fuse.Status) {
	fs.gate.inFlight.Add(1)
	if fs.gate.closed() && in != nil && tree.Always(in.node) {
		fs.gate.inFlight.Add(-1)
		return &request{fs: fs, always: true, cancel: cancel, done: make(chan struct{}), finished: make(chan struct{})}, fuse.OK
	}
	if fs.gate.closed() {
		fs.gate.inFlight.Add(-1)
		return nil, fuse.Status(enotconn)
	}
	return &request{
		fs: fs, cancel: cancel, thread: h.Caller.Pid, policy: p,
		done: make(chan struct{}), finished: make(chan struct{}),
	}, fuse.OK
}

func (r *request) finish() {
	close(r.finished)
	if r.always {
		return
	}
	r.fs.gate.inFlight.Add(-1)
}

// status is the answer for err. A result from before the file system was cut off does not count. EINTR is only
// for callers whose policy lets them be interrupted.
func (r *request) status(err error) fuse.Status {
	if r.always {
		return status(err)
	}
	if r.fs.gate.closed() {
		return fuse.Status(enotconn)
	}
	st := status(err)
	if st == fuse.EINTR {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err == nil {
			r.fs.log.Error("request gave up without having been interrupted", "err", err)
			return fuse.EIO
		}
	}
	return st
}

func (r *request) Deadline() (time.Time, bool) { return time.Time{}, false }
func (r *request) Value(any) any               { return nil }

func (r *request) Done() <-chan struct{} {
	r.watch.Do(func() { go r.wait() })
	return r.done
}

func (r *request) Err() error {
	if r.always {
		return nil
	}
	select {
	case <-r.cancel:
		r.Done() // interrupted with nobody waiting: from now on the policy decides
	case <-r.fs.gate.shut:
		r.Done()
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *request) stop(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
	close(r.done)
}

func (r *request) wait() {
	select {
	case <-r.finished:
		return
	case <-r.fs.gate.shut:
		r.stop(tree.ErrNotConn)
		return
	case <-r.cancel:
	}
	tick := time.NewTicker(killPoll)
	defer tick.Stop()
	for begun := time.Now(); ; {
		if r.policy == onAny || r.policy == onAnySoon && time.Since(begun) >= soon || beingKilled(r.thread) || r.fs.dead() {
			r.stop(fmt.Errorf("interrupted by a signal: %w", tree.ErrInterrupted))
			return
		}
		select {
		case <-r.finished:
			return
		case <-r.fs.gate.shut:
			r.stop(tree.ErrNotConn)
			return
		case <-tick.C:
		}
	}
}

// beingKilled tells whether a thread has SIGKILL pending. The kernel turns every fatal signal and a
// dying process into that. A thread that is gone counts; one out of sight (0) does not.
func beingKilled(thread uint32) bool {
	if thread == 0 {
		return false
	}
	st, err := readStatus(thread)
	if err != nil {
		return os.IsNotExist(err)
	}
	return st.killed()
}

// procStatus is what matters here of /proc/PID/status (proc(5)).
type procStatus struct {
	zombie         bool // it has ended
	tgid           int
	uid            uint32 // effective
	name           string // of the thread that asked
	sigPnd, shdPnd uint64 // signals pending for the thread, for the process
}

func (st procStatus) killed() bool {
	const sigkill = 1 << (9 - 1)
	return (st.sigPnd|st.shdPnd)&sigkill != 0
}

func readStatus(thread uint32) (procStatus, error) {
	var st procStatus
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return st, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(raw)); sc.Scan(); {
		key, val, _ := strings.Cut(sc.Text(), ":")
		val = strings.TrimSpace(val)
		switch key {
		case "State":
			st.zombie = strings.HasPrefix(val, "Z")
		case "Name":
			st.name = val
		case "Uid":
			if ids := strings.Fields(val); len(ids) > 1 {
				var uid uint64
				uid, err = strconv.ParseUint(ids[1], 10, 32)
				st.uid = uint32(uid)
			}
		case "Tgid":
			st.tgid, err = strconv.Atoi(val)
		case "SigPnd":
			st.sigPnd, err = strconv.ParseUint(val, 16, 64)
		case "ShdPnd":
			st.shdPnd, err = strconv.ParseUint(val, 16, 64)
		}
		if err != nil {
			return st, fmt.Errorf("/proc/%d/status: %s: %w", thread, key, err)
		}
	}
	return st, nil
}
