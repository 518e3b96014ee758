package qemu

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a guest that was started. Its methods may be called from many goroutines; Wait by one.
type Machine struct {
	spec    Spec      // fixed
	accel   Accel     // fixed
	started time.Time // fixed

	console tail
	output  bytes.Buffer // the readers' until they are done, then Wait's
	stderr  tail         // QEMU's own messages
	events  chan event   // from the control line; closed at its end
	broken  chan error   // the first failure to write what the program wrote; has room for it
	tty     net.Conn
	control net.Conn
	qmp     *qmp

	proc    *os.Process
	exited  chan struct{}  // closed when QEMU is gone
	waitErr error          // how it ended; set before exited is closed
	readers sync.WaitGroup // those of console, terminal and control line

	running chan struct{}            // closed when the program has started
	ends    map[string]chan struct{} // by stream, closed when all of it was read; the map is fixed after launch
}

// event is a line of the control line.
type event struct{ word, rest string }

// Run boots a guest, runs its program and returns how that ended. The error is an *Error when the
// guest did not get to an exit status; also then Result has what is known. When ctx ends so does the guest.
func Run(ctx context.Context, spec Spec) (Result, error) {
	m, err := Start(ctx, spec)
	if err != nil {
		return Result{}, err
	}
	defer m.Close()
	return m.Wait(ctx)
}

// Start boots a guest. Close must be called in the end; ctx is for the start only.
func Start(ctx context.Context, spec Spec) (*Machine, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	qemu, err := spec.findQEMU()
	if err != nil {
		return nil, err
	}
	if spec.Display, err = resolveDisplay(ctx, spec.Display, qemu); err != nil {
		return nil, err
	}
	if err := spec.checkConfig(ctx); err != nil {
		return nil, err
	}
	image, err := spec.initramfs(ctx)
	if err != nil {
		return nil, err
	}
	m := &Machine{spec: spec, accel: chooseAccel(ctx, spec.Accel, spec.Kernel, qemu), events: make(chan event, 16), broken: make(chan error, 1),
		exited: make(chan struct{}), running: make(chan struct{}), ends: map[string]chan struct{}{}}
	if m.spec.CPUs == 0 {
		m.spec.CPUs = m.accel.cpus()
	}
	m.console.also = spec.KernelLog
	if err := m.launch(qemu, image); err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Spec) findQEMU() (string, error) {
	const standard = "qemu-system-x86_64"
	qemu, err := exec.LookPath(cmp.Or(s.QEMU, standard))
	if err != nil && s.QEMU == "" {
		return "", missing(standard, "qemu-system-x86")
	}
	return qemu, err
}

// launch starts QEMU with its channels and the goroutines that serve them.
func (m *Machine) launch(qemu string, image []byte) error {
	var ours []net.Conn
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	fail := func(err error) error {
		for _, c := range ours {
			c.Close()
		}
		return fmt.Errorf("qemu: %w", err)
	}
	for range fdStreams + len(m.spec.streams()) - fdConsole {
		c, f, err := socketPair()
		if err != nil {
			return fail(err)
		}
		ours, theirs = append(ours, c), append(theirs, f)
	}
	initrd, err := memFile("initramfs", image)
	if err != nil {
		return fail(err)
	}
	theirs = append(theirs, initrd)
	args := m.spec.args(m.accel, fmt.Sprintf("/proc/self/fd/%d", 3+len(theirs)-1))
	if m.spec.CommandLine != nil {
		m.spec.CommandLine(append([]string{qemu}, args...))
	}
	cmd := exec.Command(qemu, args...)
	cmd.ExtraFiles = theirs
	cmd.Stderr = &m.stderr
	cmd.Stdout = &m.stderr
	// Own process group: keys at the caller's terminal are for the guest, not for QEMU.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.startLocked(cmd); err != nil {
		return fail(err)
	}
	m.tty, m.control, m.qmp = ours[fdTTY-fdConsole], ours[fdControl-fdConsole], newQMP(ours[fdQMP-fdConsole])
	m.serve(ours)
	return nil
}

// startLocked starts QEMU from a thread that lives as long as QEMU does: the parent-death signal
// comes when the thread that forked ends, not the process.
func (m *Machine) startLocked(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		m.started = time.Now()
		err := cmd.Start()
		m.proc = cmd.Process
		started <- err
		if err != nil {
			return
		}
		m.waitErr = cmd.Wait()
		close(m.exited)
	}()
	return <-started
}

// serve copies between the caller and the guest's channels until QEMU ends, which closes them.
func (m *Machine) serve(conns []net.Conn) {
	terminal, in := m.spec.Stdout, m.tty.(*net.UnixConn)
	if terminal == nil {
		terminal = &m.output
	}
	m.readers.Go(func() { _, _ = io.Copy(&m.console, conns[0]) })
	for i, name := range m.spec.streams() {
		c := conns[fdStreams-fdConsole+i].(*net.UnixConn)
		switch name {
		case "stdin":
			in = c
		case "stdout":
			m.stream(name, terminal, c)
			terminal = io.Discard
		case "stderr":
			m.stream(name, m.spec.Stderr, c)
		}
	}
	m.readers.Go(func() { copyStream(terminal, m.tty, m.spec.end, make(chan struct{}), m.outputFailed("terminal")) })
	m.readers.Go(m.readControl)
	if m.spec.Stdin != nil {
		go m.input(in) // not waited for: nothing ends a read of the caller's input
	}
	go func() {
		<-m.exited
		m.readers.Wait()
		for _, c := range conns {
			c.Close()
		}
	}()
}

// stream starts to copy what the program writes.
func (m *Machine) stream(name string, w io.Writer, c net.Conn) {
	ended := make(chan struct{})
	m.ends[name] = ended
	m.readers.Go(func() { copyStream(w, c, m.spec.end, ended, m.outputFailed(name)) })
}

// outputFailed is told that what the program wrote could not be written here. Only the first such error is kept.
func (m *Machine) outputFailed(stream string) func(error) {
	return func(err error) {
		select {
		case m.broken <- fmt.Errorf("%s: %w", stream, err):
		default:
		}
	}
}

// input copies the caller's input to the program.
func (m *Machine) input(c *net.UnixConn) {
	select {
	case <-m.running:
	case <-m.exited:
		return
	}
	_, _ = io.Copy(c, m.spec.Stdin)
	if !m.spec.TTY {
		_ = c.CloseWrite()
	}
}

// readControl turns the lines of the control line into events.
func (m *Machine) readControl() {
	defer close(m.events)
	var line []byte
	buf := make([]byte, 512)
	for {
		n, err := m.control.Read(buf)
		for _, c := range buf[:n] {
			if c != '\n' {
				if len(line) < 512 {
					line = append(line, c)
				}
				continue
			}
			word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
			line = line[:0]
			select {
			case m.events <- event{word, rest}:
			case <-m.exited:
			}
		}
		if err != nil {
			return
		}
	}
}

// Running is closed when the program has been started.
func (m *Machine) Running() <-chan struct{} { return m.running }

// Console is the end of the kernel's console so far.
func (m *Machine) Console() string { return m.console.text() }

// Type sends bytes to the program's terminal as if they were typed.
func (m *Machine) Type(keys string) error {
	_, err := io.WriteString(m.tty, keys)
	return err
}

// Resize tells the terminal's size; its foreground process group gets SIGWINCH.
func (m *Machine) Resize(rows, cols int) error {
	_, err := fmt.Fprintf(m.control, "size %d %d\n", rows, cols)
	return err
}

// Pause stops the guest's processors, Resume lets them go on.
func (m *Machine) Pause(ctx context.Context) error { return m.qmp.command(ctx, "stop", nil) }

// Resume undoes Pause.
func (m *Machine) Resume(ctx context.Context) error { return m.qmp.command(ctx, "cont", nil) }

// Quit makes QEMU end by itself. Close is the sure way.
func (m *Machine) Quit(ctx context.Context) error { return m.qmp.command(ctx, "quit", nil) }

// Pid is QEMU's process.
func (m *Machine) Pid() int { return m.proc.Pid }

// Close kills the guest if it still runs, and waits until QEMU is gone.
func (m *Machine) Close() {
	select {
	case <-m.exited:
	default:
		_ = m.proc.Kill()
	}
	<-m.exited
	m.readers.Wait()
}

// socketPair makes a connection between us and a descriptor for QEMU.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "guest")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// memFile makes a file that exists only as a descriptor.
func memFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
