// Package probe holds the kernel probes: small functions, each of which asks the kernel it runs under
// one question about FUSE, v9fs or memory mappings.
//
// A probe owns its servers: toy file systems in the same process, that misbehave on demand. Hence a
// process runs one probe and ends; it runs with garbage collection and preemption by signals turned
// off (see Command), since threads of it are held in page faults that other threads of it must end.
// Who starts it bounds its time.
//
// Each probe can be spoiled: then an option or its server misbehaves such that the answer must be the
// other one. That shows that the probe can tell.
package probe

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"wcfs/fusesrv/kernel"
)

// Probe is one question: a behaviour of the list of package kernel, and how to ask.
type Probe struct {
	kernel.Behaviour
	Run run
}

// run asks. Spoiled it comes to the other answer; where kernels differ, to the other one than Linux 6.1's.
type run func(*Env) (Verdict, error)

// Verdict is an answer with what was seen.
type Verdict struct {
	Yes    bool
	Absent bool // this kernel has nothing to ask about
	Seen   string
}

func (v Verdict) word() string {
	switch {
	case v.Absent:
		return "n/a"
	case v.Yes:
		return "yes"
	}
	return "no"
}

// Env is what a probe runs in.
type Env struct {
	Dir   string // an empty folder, for mounts
	Spoil bool   // misbehave

	atEnd []func() // called when the verdict is told
}

// cleanup has f called when the verdict is told, what was said last first.
func (e *Env) cleanup(f func()) { e.atEnd = append(e.atEnd, f) }

// answer is yes or no by ok.
func answer(ok bool, format string, args ...any) (Verdict, error) {
	return Verdict{Yes: ok, Seen: fmt.Sprintf(format, args...)}, nil
}

func no(format string, args ...any) (Verdict, error) { return answer(false, format, args...) }

// All lists the probes, in the order of the list. Run is nil where there is none, which a test sees.
func All() []Probe {
	runs := fuseRuns()
	maps.Copy(runs, nineRuns())
	maps.Copy(runs, mmRuns())
	var out []Probe
	for _, b := range kernel.All() {
		out = append(out, Probe{b, runs[b.Name]})
	}
	return out
}

// Find returns the probe of that name.
func Find(name string) (Probe, error) {
	for _, p := range All() {
		if p.Name == name {
			return p, nil
		}
	}
	return Probe{}, fmt.Errorf("no probe %q", name)
}

// Command is a process that runs Main of this package in exe, with the settings that probes need.
func Command(exe string, args ...string) *exec.Cmd {
	cmd := exec.Command(exe, append([]string{"probe"}, args...)...)
	cmd.Env = append(os.Environ(), "GOGC=off", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=8")
	return cmd
}

// Main is what such a process does: run a probe (arguments NAME DIR [spoil]), or be the child of one.
func Main(args []string) int {
	if len(args) > 1 && args[0] == "child" {
		return child(args[1:])
	}
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe NAME DIR [spoil]")
		return 2
	}
	p, err := Find(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	e := &Env{Dir: args[1], Spoil: len(args) > 2 && args[2] == "spoil"}
	v, err := p.Run(e)
	defer func() {
		for _, f := range slices.Backward(e.atEnd) {
			f()
		}
	}()
	if err != nil {
		fmt.Printf("verdict error %s\n", oneLine(err.Error()))
		return 1
	}
	fmt.Printf("verdict %s %s\n", v.word(), oneLine(v.Seen))
	return 0
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

const (
	page  = 4096
	soon  = 10 * time.Second       // for what happens, on a busy machine
	quiet = 300 * time.Millisecond // for what must not happen
)

// within runs f and waits for it; ok is false when it took longer than d. f goes on then.
func within(d time.Duration, f func() error) (took time.Duration, ok bool, err error) {
	began := time.Now()
	done := async(f)
	select {
	case err := <-done:
		return time.Since(began), true, err
	case <-time.After(d):
		return d, false, nil
	}
}

// async runs f; the channel gets what it returns.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// given tells whether a channel has a value within d. The value stays in a channel with room for one.
func given(c <-chan error, d time.Duration) bool {
	for deadline := time.Now().Add(d); len(c) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// await waits for a channel to be closed, or to give a value.
func await[T any](what string, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-time.After(soon):
		return errors.New("waited in vain for " + what)
	}
}

// until waits for a condition.
func until(what string, ok func() bool) error {
	for deadline := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("waited in vain for " + what)
		}
	}
	return nil
}
