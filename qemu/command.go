package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// RunOptions are the options of `wcfs run`, in the form kong reads.
type RunOptions struct {
	Kernel   string        `placeholder:"FILE|DIR|VERSION" help:"Kernel: a bzImage, a build tree, \"host\", or a version like 6.12 or v6.12, which is fetched as a Debian package once and cached. Default: the host's if /boot has it, else Debian's current one."`
	NineP    string        `name:"9p" placeholder:"ADDR" help:"Mount the server at unix:PATH or tcp:127.0.0.1:PORT on /wcfs (cache=none), and on /wcfs-snap for snapshots (cache=loose)."`
	RO       bool          `name:"ro" help:"Make the guest's root read-only. Otherwise what is written to it is kept in memory and vanishes with the guest."`
	RW       []string      `name:"rw" sep:"none" placeholder:"DIR" help:"Let the guest write to this folder of the host. May be repeated."`
	Scratch  string        `placeholder:"SIZE" help:"How much the guest may write to its root, as 512M or 50%, in MiB without a unit. Default: half of its memory."`
	User     string        `placeholder:"NAME" help:"Run the program as this user of the host; default: root."`
	Env      []string      `sep:"none" placeholder:"NAME[=VALUE]" help:"Pass on a variable, or all of them for *. PATH, HOME, TERM and LANG are always passed on. May be repeated."`
	NoNet    bool          `help:"Give the guest no network."`
	QEMU     string        `name:"qemu" placeholder:"BINARY" help:"QEMU to use. Default: qemu-system-x86_64 of PATH."`
	QEMUOpts []string      `name:"qemu-args" short:"o" sep:"none" placeholder:"ARGS" help:"More arguments for QEMU, split at spaces. May be repeated."`
	DryRun   bool          `help:"Print QEMU's command line and start nothing."`
	Share    []string      `sep:"none" placeholder:"TAG=DIR" help:"Make DIR writable in the guest, under the same path, by a virtio 9p device with mount tag TAG. May be repeated."`
	Mem      int           `type:"mib" default:"1024" placeholder:"MIB" help:"Memory, in MiB without a unit, or as 2G."`
	SMP      int           `name:"smp" type:"count" placeholder:"N" help:"Processors. Default: two under KVM, one where emulated."`
	Accel    string        `default:"auto" enum:"auto,kvm,tcg" help:"kvm, tcg (emulation), or auto: KVM if a guest really runs under it."`
	Timeout  time.Duration `placeholder:"TIME" help:"End the guest when the program runs longer, in seconds without a unit. Default: never."`
	Graphics bool          `help:"Open a window with the guest's screen."`
	Display  string        `placeholder:"DISPLAY" help:"Show the guest's screen as QEMU's -display takes it, for example vnc=127.0.0.1:0 or vnc=unix:PATH."`
	GDB      string        `name:"gdb" placeholder:"ADDR" help:"Wait for gdb at ADDR, as QEMU's -gdb takes it, for example tcp:127.0.0.1:1234."`
	Append   string        `placeholder:"PARAMETERS" help:"More parameters for the kernel."`
	Cache    string        `placeholder:"DIR" help:"Where fetched kernels are kept. Default: wcfs in the user's cache folder."`
	Program  []string      `arg:"" passthrough:"" help:"Program and its arguments, after --."`

	// Verbose 1 shows the kernel's console, 2 all it says and QEMU's command line. The caller sets it from its -v.
	Verbose int `kong:"-"`
}

// Statuses RunCommand returns with an error; the program's own status comes without one.
const (
	StatusTimeout = 124 // as of timeout(1)
	StatusFailed  = 125 // no guest, or it ended before the program did
)

// RunCommand is `wcfs run`: it runs the program in a guest on the host's root and returns its exit
// status. If stdin and stdout are terminals the guest's console is one: keys, Ctrl-C and Ctrl-Z
// included, go to it, and Ctrl-] followed by q ends it. Otherwise SIGINT is passed on as Ctrl-C.
// SIGTERM, SIGQUIT and SIGHUP end the guest.
func RunCommand(ctx context.Context, o RunOptions, stdin, stdout, stderr *os.File) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGWINCH)
	defer signal.Stop(signals)

	spec, err := o.spec(ctx, stderr)
	if err != nil {
		return StatusFailed, err
	}
	if o.DryRun {
		return 0, o.dryRun(ctx, spec, stdout)
	}
	stop, err := o.server(ctx, &spec)
	if err != nil {
		return StatusFailed, err
	}
	defer stop()
	spec.Stdin, spec.Stdout = stdin, stdout
	if !sameFile(stdout, stderr) { // else one stream, so that the order of what is written is kept
		spec.Stderr = stderr
	}
	if isTerminal(stdin) && isTerminal(stdout) {
		spec.TTY = true
		spec.Rows, spec.Cols = windowSize(stdout)
		spec.Stdin = &escapeReader{r: stdin, quit: func() { cancel(errors.New("ended by Ctrl-] q")) }}
	}
	for {
		status, err := runOnce(ctx, spec, signals, stdin, stdout, cancel)
		if !errors.Is(err, ErrBoot) && !errors.Is(err, errNoFolder) {
			return status, err
		}
		n, mounted := len(spec.Shares), wcfsMounts()
		spec.Shares = slices.DeleteFunc(spec.Shares, func(sh Share) bool { return isWcfsMount(sh) && !slices.Contains(mounted, sh.Dir) })
		if len(spec.Shares) == n {
			return status, err
		} // a wcfs was unmounted between our look and QEMU's: without it, then
	}
}

// runOnce boots the guest and follows it to its end.
func runOnce(ctx context.Context, spec Spec, signals <-chan os.Signal, stdin, stdout *os.File, cancel context.CancelCauseFunc) (int, error) {
	m, err := Start(ctx, spec)
	if err != nil {
		return StatusFailed, err
	}
	defer m.Close()
	if spec.TTY {
		restore, err := rawTerminal(stdin)
		if err != nil {
			return StatusFailed, err
		}
		defer restore()
	}
	done := make(chan struct{})
	defer close(done)
	go handleSignals(m, signals, stdout, cancel, done)
	res, err := m.Wait(ctx)
	switch {
	case errors.Is(err, ErrTimeout):
		return StatusTimeout, err
	case err != nil:
		return StatusFailed, err
	}
	return res.Status, nil
}

// handleSignals passes window sizes and Ctrl-C on, and ends the guest for other signals.
func handleSignals(m *Machine, signals <-chan os.Signal, stdout *os.File, cancel context.CancelCauseFunc, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			switch s {
			case syscall.SIGWINCH:
				_ = m.Resize(windowSize(stdout)) // a guest that is going away has no window
				continue
			case syscall.SIGINT:
				select {
				case <-m.Running():
					_ = m.Type("\x03")
					continue
				default: // nobody is there yet to handle it
				}
			}
			cancel(fmt.Errorf("ended by signal: %v", s))
		}
	}
}

// spec turns options into what is to be booted.
func (o *RunOptions) spec(ctx context.Context, stderr *os.File) (Spec, error) {
	s := Spec{HostRoot: true, ReadOnly: o.RO, Scratch: tmpfsSize(o.Scratch), Net: NetIfSo, Memory: o.Mem, CPUs: o.SMP, Append: o.Append,
		GDB: o.GDB, Display: o.Display, Timeout: o.Timeout, QEMU: o.QEMU}
	for _, args := range o.QEMUOpts {
		s.QEMUArgs = append(s.QEMUArgs, strings.Fields(args)...)
	}
	s.Hostname, _ = os.Hostname() // the name that the host's /etc/hosts knows, for sudo and the like
	switch {
	case o.NoNet && o.NineP != "":
		return s, errors.New("--no-net: the server of --9p is reached by the network")
	case o.NoNet:
		s.Net = NetNone
	case o.NineP != "":
		s.Net = NetNeeded
	}
	if o.Graphics && s.Display == "" {
		s.Display = Window
	}
	var err error
	if s.Accel, err = ParseAccel(o.Accel); err != nil {
		return s, err
	}
	if err := o.program(&s); err != nil {
		return s, err
	}
	if err := o.shares(&s, sayTo(stderr)); err != nil {
		return s, err
	}
	if o.Verbose > 0 {
		s.KernelLog = stderr
	}
	if o.Verbose > 1 {
		s.Verbose = true
		s.CommandLine = func(args []string) {
			fmt.Fprintln(stderr, shellLine(args))
		}
	}
	cache := o.Cache
	if cache == "" {
		cache = DefaultCache()
	}
	say := sayTo(stderr)
	s.Kernel, err = FindKernel(ctx, o.Kernel, cache, say)
	if err == nil && o.Kernel == "" {
		say("kernel %s (%s)", s.Kernel.Release, s.Kernel.Image)
	}
	if err == nil && o.GDB != "" {
		say("the guest waits for gdb at %s: gdb vmlinux -ex 'target remote %s'", o.GDB, strings.TrimPrefix(o.GDB, "tcp:"))
	}
	return s, err
}

// tmpfsSize makes a size one that tmpfs takes: it knows no units of two letters, and without one takes bytes.
func tmpfsSize(s string) string {
	short := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i")
	if short != "" && strings.Trim(short, "0123456789") == "" {
		return short + "m"
	}
	return short
}

// sayTo writes lines for somebody who watches: none where stderr is no terminal.
func sayTo(stderr *os.File) Progress {
	return func(format string, args ...any) {
		if isTerminal(stderr) {
			fmt.Fprintf(stderr, "wcfs run: "+format+"\n", args...)
		}
	}
}

// dryRun prints what would be started.
func (o *RunOptions) dryRun(ctx context.Context, s Spec, stdout *os.File) error {
	if err := s.check(); err != nil {
		return err
	}
	qemu, err := s.findQEMU()
	if err != nil {
		return err
	}
	accel := chooseAccel(ctx, s.Accel, s.Kernel, qemu)
	if s.CPUs == 0 {
		s.CPUs = accel.cpus()
	}
	_, err = fmt.Fprintln(stdout, shellLine(append([]string{qemu}, s.args(accel, "INITRAMFS")...)))
	return err
}

// shellLine writes arguments as a shell takes them.
func shellLine(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = shellWord(a)
	}
	return strings.Join(words, " ")
}

// program finds the program, and takes the caller's folder and the variables that make sense there.
func (o *RunOptions) program(s *Spec) error {
	args := o.Program
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("no program given: wcfs run [OPTIONS] -- PROGRAM [ARGUMENTS]")
	}
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	if s.Dir, err = os.Getwd(); err != nil {
		return err
	}
	s.Program = append([]string{path}, args[1:]...)
	s.Expose = exposed(s.Dir, path)
	s.Env = o.environment()
	return o.asUser(s)
}

// environment is what the program gets: some variables always, and those of --env, of which the last counts.
func (o *RunOptions) environment() []string {
	var env []string
	for _, name := range append([]string{"PATH", "HOME", "TERM", "LANG"}, o.Env...) {
		if name == "*" {
			env = append(env, os.Environ()...)
		} else if strings.Contains(name, "=") {
			env = append(env, name)
		} else if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// asUser settles who the program runs as.
func (o *RunOptions) asUser(s *Spec) error {
	if o.User == "" || o.User == "root" {
		return nil
	}
	u, err := user.Lookup(o.User)
	if err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("--user %s: %w", o.User, err)
	}
	s.User = &User{UID: u.Uid, GID: u.Gid, Groups: groups}
	s.Env = append(s.Env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	return nil
}

// exposed lists what of folder and program the fresh folders would hide. A program in the folder comes with it.
func exposed(dir, program string) []string {
	hidden := func(p string) bool {
		return slices.ContainsFunc([]string{"/tmp", "/run", "/dev/shm"}, func(fresh string) bool { return strings.HasPrefix(p, fresh+"/") })
	}
	var out []string
	if hidden(dir) {
		out = append(out, dir)
	}
	if hidden(program) && (!hidden(dir) || !strings.HasPrefix(program, dir+"/")) {
		out = append(out, program)
	}
	return out
}

// shellWord quotes what a shell would take apart.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, tagBytes+"/,=:@+%") == "" {
		return s
	}
	return shellQuote(s)
}
