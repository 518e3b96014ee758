// Command kernels asks kernels how their fuse, v9fs and memory mappings behave: the probes of package
// probe, on the running kernel ("host") and in guests.
//
//	go run ./t/kernels [-format text|markdown|json] [-groups fuse,v9fs,mm] KERNEL...
//
// A KERNEL is what qemu.FindKernel takes: a version of a Debian kernel, a bzImage, a build tree; or
// "host". The exit status is 1 when something that wcfs relies on does not hold somewhere, and stderr
// says what breaks.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"wcfs/t/kernels/probe"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		os.Exit(probe.Main(os.Args[2:]))
	}
	format := flag.String("format", "text", "text, markdown or json")
	groups := flag.String("groups", "", "groups of probes, with commas between: fuse, v9fs, mm; default: all that the kernel can be asked")
	spoil := flag.Bool("spoil", false, "let servers and options misbehave: the answers must be the other ones")
	only := flag.String("probes", "", "names of probes, with commas between")
	verbose := flag.Bool("v", false, "show the consoles of guests")
	guest := flag.Bool("in-guest", false, "internal: run here, and print a line a probe")
	both := flag.Bool("both", false, "internal: with -in-guest, run all once more, spoiled")
	flag.Parse()
	ask := question{groups: split(*groups), names: split(*only), spoil: *spoil, verbose: *verbose}
	if *guest {
		runAll(ask, "/proc/self/exe", os.Stdout)
		if *both {
			ask.spoil = true
			runAll(ask, "/proc/self/exe", os.Stdout)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	kernels := flag.Args()
	if len(kernels) == 0 {
		kernels = []string{"host"}
	}
	var reports []report
	for _, k := range kernels {
		r, err := askKernel(ctx, k, ask)
		if err != nil {
			fmt.Fprintf(os.Stderr, "kernels: %s: %v\n", k, err)
			os.Exit(1)
		}
		reports = append(reports, r)
	}
	if err := write(os.Stdout, *format, reports); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(2)
	}
	if bad := broken(reports); len(bad) > 0 {
		fmt.Fprint(os.Stderr, strings.Join(bad, ""))
		os.Exit(1)
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// question selects probes.
type question struct {
	groups, names []string // nil: all
	spoil         bool
	both          bool // as they are, and spoiled
	verbose       bool // show guests' consoles
}

func (q question) probes() []probe.Probe {
	var out []probe.Probe
	for _, p := range probe.All() {
		if (q.groups == nil || slices.Contains(q.groups, p.Group())) && (q.names == nil || slices.Contains(q.names, p.Name)) {
			out = append(out, p)
		}
	}
	return out
}

// report is what one kernel answered.
type report struct {
	Kernel  string   `json:"kernel"`  // as asked for
	Release string   `json:"release"` // as it calls itself
	Answers []answer `json:"answers"`
}

// answer is that to one probe.
type answer struct {
	Probe string `json:"probe"`
	Word  string `json:"answer"` // yes, no, n/a, or error
	Seen  string `json:"seen"`   // figures and such
	// Spoiled: servers or options misbehaved.
	Spoiled bool `json:"spoiled,omitempty"`
}

func (r report) of(name string) (answer, bool) {
	for _, a := range r.Answers {
		if a.Probe == name {
			return a, true
		}
	}
	return answer{}, false
}

// broken says what wcfs relies on and does not hold, or could not be asked.
func broken(reports []report) []string {
	var bad []string
	for _, r := range reports {
		for _, a := range r.Answers {
			p, err := probe.Find(a.Probe)
			if err == nil && !p.Relax && a.Word != "yes" {
				bad = append(bad, fmt.Sprintf("BREAKS wcfs on %s (%s): %s: %s\n    does not hold: %s\n    needed, as %s\n",
					r.Kernel, r.Release, p.Name, a.Seen, p.Says, p.Why))
			}
		}
	}
	return bad
}
