package qemu

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// Spec says what to boot and what to run in it. It is not changed by Run.
type Spec struct {
	Kernel  Kernel
	Program []string // arguments; the first is a path in the guest
	Env     []string // "NAME=value", all of the program's environment
	Dir     string   // the program's folder; "" is the root

	// HostRoot makes the host's root the guest's: read-only, with fresh /tmp, /run and /dev. Otherwise
	// the guest has the initramfs only: busybox and Files.
	HostRoot bool
	Expose   []string // with HostRoot: what of /tmp, /run and /dev/shm is shown nevertheless, read-only
	Files    []File   // put into the initramfs
	Shares   []Share  // folders of the host, by virtio 9p
	Mounts   []Mount  // other 9P file systems, mounted after the shares
	Net      Net      // user mode network: the guest is 10.0.2.15, the host's loopback 10.0.2.2
	ReadOnly bool     // with HostRoot: nothing in it can be written. Otherwise what is written is kept in memory and vanishes with the guest
	Scratch  string   // with HostRoot: how much of that there may be, as tmpfs takes its size; "": half of the guest's memory
	Hostname string   // "": guest
	Modules  []string // kernel modules to load besides those that the above needs

	Memory int    // MiB; 0: 512
	CPUs   int    // 0: two under KVM, one where emulated
	Accel  Accel  // "": probe
	Append string // more kernel parameters
	GDB    string // address for gdb, as QEMU's -gdb takes it, and wait for it; or ""
	// Display gives the guest a screen, keyboard and tablet, shown in a Window or as QEMU's -display takes
	// it; the program stays on the console. "": none.
	Display string

	QEMU     string   // binary; "": qemu-system-x86_64 of PATH
	QEMUArgs []string // more arguments for it
	User     *User    // who runs the program, with HostRoot only; nil: root

	// Timeout bounds the program's run, from the moment it starts; BootTimeout the time until then.
	// 0: no bound for the program, two minutes for the start.
	Timeout, BootTimeout time.Duration

	// Stdin is the program's input, to the end of file; nil: the terminal, on which nobody types.
	Stdin io.Reader
	// Stdout takes the program's output; nil: it is collected in Result.Output.
	Stdout io.Writer
	// Stderr takes its standard error; nil: that goes where the output goes.
	Stderr io.Writer
	// TTY: Stdin and Stdout are a terminal: echo, signals by keys, size Rows × Cols. Otherwise the program
	// has pipes, and a terminal that it can only open as /dev/tty, on which nothing is seen.
	TTY        bool
	Rows, Cols int
	// KernelLog takes the lines of the kernel's console as they come; nil: the kernel is quiet, and only the end is kept.
	KernelLog io.Writer
	// Verbose makes the kernel say everything on its console.
	Verbose bool
	// CommandLine is told QEMU's arguments before it starts; may be nil.
	CommandLine func(args []string)

	end string // tells the end of the program's output; set by check
}

// User is an account by its numbers.
type User struct {
	UID, GID string
	Groups   []string // all of them
}

// Net tells whether a guest has a network.
type Net int

// Networks.
const (
	NetNone   Net = iota
	NetIfSo       // where the kernel has the driver
	NetNeeded     // without it the guest does not start
)

// streams names what of the program's standard files is not its terminal, in the order of their ports.
func (s *Spec) streams() []string {
	var names []string
	if s.Stdin != nil && !s.TTY {
		names = append(names, "stdin")
	}
	if !s.TTY {
		names = append(names, "stdout")
	}
	if s.Stderr != nil {
		names = append(names, "stderr")
	}
	return names
}

// File is a file in the initramfs.
type File struct {
	Path   string      // in the guest
	Source string      // file of the host; "": Data
	Data   []byte      //
	Mode   fs.FileMode // permission bits
}

// Share is a folder of the host, given to the guest as a virtio 9p device and mounted.
type Share struct {
	Tag      string // mount tag: at most 31 letters, digits, '-', '_', '.'
	Dir      string // on the host
	Mount    string // in the guest
	ReadOnly bool
	Cache    string // v9fs cache mode; "": none
}

func (s Share) cache() string {
	if s.Cache == "" {
		return "none"
	}
	return s.Cache
}

// Mount is a 9P mount in the guest: `mount -t 9p -o Options Source Target`.
type Mount struct{ Source, Target, Options string }

// Result is what a guest that ran its program to the end leaves.
type Result struct {
	Status  int           // the program's exit status; 128+n for signal n
	Output  []byte        // what it wrote, when Spec.Stdout is nil
	Console string        // end of the kernel's console
	Accel   Accel         // what it ran on
	Boot    time.Duration // from the start of QEMU to the start of the program
	Run     time.Duration // from there to the program's end
}

// check refuses what cannot work and fills in defaults.
func (s *Spec) check() error {
	if s.Kernel.Image == "" {
		return errors.New("qemu: no kernel given")
	}
	if len(s.Program) == 0 {
		return errors.New("qemu: no program given")
	}
	s.end = "\x1e" + rand.Text()
	if s.Memory == 0 {
		s.Memory = 512
	}
	if s.BootTimeout == 0 {
		s.BootTimeout = 2 * time.Minute
	}
	if s.GDB != "" {
		s.BootTimeout = 24 * time.Hour // somebody steps through the start
	}
	if s.TTY && (s.Rows <= 0 || s.Cols <= 0) {
		s.Rows, s.Cols = 24, 80
	}
	if s.Memory < 64 || s.CPUs < 0 || s.CPUs > 255 {
		return fmt.Errorf("qemu: cannot give a guest %d MiB and %d processors", s.Memory, s.CPUs)
	}
	for _, a := range append([]string{s.Dir}, append(append([]string{}, s.Program...), s.Env...)...) {
		if strings.ContainsRune(a, 0) {
			return errors.New("qemu: program, environment and folder cannot hold a zero byte")
		}
	}
	if len(s.Shares) > maxShares {
		return fmt.Errorf("qemu: %d shares, a guest takes at most %d", len(s.Shares), maxShares)
	}
	tags := map[string]bool{}
	for _, sh := range s.Shares {
		if tags[sh.Tag] {
			return fmt.Errorf("qemu: two shares have the tag %q", sh.Tag)
		}
		tags[sh.Tag] = true
		if sh.Tag == "" || len(sh.Tag) > 31 || strings.Trim(sh.Tag, tagBytes) != "" || sh.Tag == rootTag {
			return fmt.Errorf("qemu: %q is no tag for a share: 1 to 31 letters, digits, '-', '_', '.'", sh.Tag)
		}
		if !isDir(sh.Dir) {
			return fmt.Errorf("qemu: share %s: %s %w", sh.Tag, sh.Dir, errNoFolder)
		}
		if !filepath.IsAbs(sh.Mount) {
			return fmt.Errorf("qemu: share %s: its place in the guest, %q, is not absolute", sh.Tag, sh.Mount)
		}
		if why := reserved(sh.Mount); why != "" {
			return fmt.Errorf("qemu: share %s: %s cannot be shared: %s", sh.Tag, sh.Mount, why)
		}
	}
	return nil
}

// reserved tells why nothing can be mounted at a folder of the guest; "" if it can.
func reserved(dir string) string {
	dir = filepath.Clean(dir)
	if dir == "/" {
		return "the guest's root is the host's already; give the folders below it that are to be writable"
	}
	for _, own := range []string{"/proc", "/sys", "/dev", "/run/wcfs"} {
		if dir == own || strings.HasPrefix(dir, own+"/") && dir != "/dev/shm" {
			return "the guest has a " + own + " of its own"
		}
	}
	return ""
}

const (
	rootTag  = "wcfsroot"
	tagBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
)
