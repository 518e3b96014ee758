// Package kernel is the list of what wcfs relies on in a Linux kernel, and what it knows that kernels
// differ in.
//
// The list is one: the probes of t/kernels ask a kernel whether each behaviour holds, and a server that
// starts checks, without asking, that the kernel offers what gives the behaviour: a flag or a protocol
// version, as agreed on when the mount is made, or else the kernel's release. Behaviour that no flag, version
// or release tells about is left to the probes; so is that of v9fs, which is a guest's and not that of the
// kernel a server runs on.
//
// The package owns the list and the comparison; it talks to no kernel and imports nothing of wcfs.
package kernel

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Groups of behaviours: the part of the kernel, and what asking needs.
const (
	FUSE = "fuse" // /dev/fuse and the right to mount
	V9FS = "v9fs" // module 9p, the right to mount
	MM   = "mm"   // nothing
)

// Behaviour is one thing that a kernel does or does not do.
type Behaviour struct {
	Name  string // group and a word: "fuse-stream"
	Says  string // what holds when the answer is yes
	Why   string // what it means for wcfs
	Relax bool   // wcfs does not rely on a yes: it is prepared for either
	Needs Needs  // what gives it
}

// Group is the part of the kernel.
func (b Behaviour) Group() string {
	g, _, _ := strings.Cut(b.Name, "-")
	return g
}

// Needs is what a kernel must have to show a behaviour. The first of Flag, Minor and Linux that is set is
// what is checked; what is set besides is for messages. Zero: no kernel is known that lacks it.
type Needs struct {
	What  string  // its name; "": the flag's
	Flag  Flag    // of INIT, agreed on by both sides
	Minor uint32  // of FUSE protocol version 7 (change log in linux/fuse.h)
	Linux Release // the first release with it
}

// Flag is a flag of FUSE's INIT request, by its value in linux/fuse.h.
type Flag uint64

// Flags that wcfs needs.
const (
	AsyncRead         Flag = 1 << 0
	MaxPages          Flag = 1 << 22
	ExplicitInvalData Flag = 1 << 25
)

func (f Flag) String() string {
	switch f {
	case AsyncRead:
		return "FUSE_ASYNC_READ"
	case MaxPages:
		return "FUSE_MAX_PAGES"
	case ExplicitInvalData:
		return "FUSE_EXPLICIT_INVAL_DATA"
	}
	return fmt.Sprintf("FUSE flag %#x", uint64(f))
}

// Release is major and minor number of a Linux release; zero: unknown.
type Release struct{ Major, Minor int }

// ParseRelease reads what `uname -r` shows; ok is false when it does not begin with two numbers.
func ParseRelease(s string) (r Release, ok bool) {
	major, rest, _ := strings.Cut(s, ".")
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	var err1, err2 error
	r.Major, err1 = strconv.Atoi(major)
	r.Minor, err2 = strconv.Atoi(rest)
	return r, err1 == nil && err2 == nil
}

// Less compares releases.
func (r Release) Less(o Release) bool {
	return r.Major < o.Major || r.Major == o.Major && r.Minor < o.Minor
}

func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }

func (n Needs) String() string {
	var parts []string
	if n.What != "" || n.Flag != 0 {
		parts = append(parts, n.name())
	}
	if n.Minor != 0 {
		parts = append(parts, fmt.Sprintf("FUSE protocol 7.%d", n.Minor))
	}
	if n.Linux != (Release{}) {
		parts = append(parts, "Linux "+n.Linux.String())
	}
	return strings.Join(parts, ", ")
}

// Answer is what a kernel says about itself when a file system is mounted.
type Answer struct {
	Flags        Flag   // agreed on
	Major, Minor uint32 // of the FUSE protocol, the kernel's
	Release      string // as `uname -r`; "": not to be looked at
}

// ErrLacks is of a kernel that lacks what wcfs relies on.
var ErrLacks = errors.New("this kernel lacks what wcfs needs")

// Check returns nil, or an error in one line that wraps ErrLacks: what is missing, what would break, and
// which Linux has it.
func (a Answer) Check() error {
	var missing []string
	var enough Release
	byRelease := true // nothing but the release speaks against this kernel
	for _, b := range All() {
		if b.Relax || b.Group() == V9FS || a.has(b.Needs) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s (for %s: %s)", b.Needs, b.Name, b.Why))
		byRelease = byRelease && b.Needs.Flag == 0 && b.Needs.Minor == 0
		if enough.Less(b.Needs.Linux) {
			enough = b.Needs.Linux
		}
	}
	if missing == nil {
		return nil
	}
	hint := ""
	if byRelease {
		hint = "; if its makers have put that into it, as `make kernels` tells, use --any-kernel"
	}
	return fmt.Errorf("%w: %s; it is %s with FUSE protocol %d.%d, and Linux %v has all%s",
		ErrLacks, strings.Join(missing, "; "), a.linux(), a.Major, a.Minor, enough, hint)
}

// has tells whether the kernel offers what is needed, as far as its answer tells.
func (a Answer) has(n Needs) bool {
	switch {
	case n.Flag != 0:
		return a.Flags&n.Flag != 0
	case n.Minor != 0:
		return a.Major > 7 || a.Major == 7 && a.Minor >= n.Minor
	case n.Linux != (Release{}):
		r, ok := ParseRelease(a.Release)
		return !ok || !r.Less(n.Linux)
	}
	return true
}

func (n Needs) name() string {
	if n.What == "" {
		return n.Flag.String()
	}
	return n.What
}

func (a Answer) linux() string {
	if a.Release == "" {
		return "a kernel of any release"
	}
	return "Linux " + a.Release
}
