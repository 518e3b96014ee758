// Command gotest runs `go test -json` with the arguments it gets, prints a line a package and the output of
// what failed, and ends with a summary. It fails when a test fails, when a test is skipped (what a test
// needs is installed by t/setup, so a skip hides something), and when no test ran.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is what `go test -json` and `go build -json` write, a line each.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// key names a test, or a package when test is "".
type key struct{ pkg, test string }

type report struct {
	out                     io.Writer
	output                  map[key]*bytes.Buffer // of what has not ended yet
	passed, failed, skipped int
	bad                     []string // names of what failed or was skipped
	slow                    []string
}

func main() {
	r := &report{out: os.Stdout, output: map[key]*bytes.Buffer{}}
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	began := time.Now()
	r.read(pipe)
	err = cmd.Wait()
	r.summary(time.Since(began))
	if err != nil || r.failed+r.skipped > 0 || r.passed == 0 {
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "gotest:", err)
		}
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) {
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			fmt.Fprintln(r.out, scan.Text()) // not from the test runner
			continue
		}
		r.event(e)
	}
}

func (r *report) event(e event) {
	if e.Package == "" {
		e.Package = e.ImportPath
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		if r.output[k] == nil {
			r.output[k] = new(bytes.Buffer)
		}
		r.output[k].WriteString(e.Output)
		return
	case "pass":
		if e.Test != "" {
			r.passed++
		}
	case "skip":
		if e.Test != "" { // a package without tests is reported as skipped too
			r.skipped++
			r.tell(k, "SKIP")
		}
	case "fail":
		if e.Test != "" {
			r.failed++
		} else {
			r.unfinished(e.Package)
		}
		r.tell(k, "FAIL")
	case "build-fail":
		r.failed++
		r.tell(k, "BUILD")
	default:
		return
	}
	if e.Test == "" && e.Action != "build-fail" {
		fmt.Fprintf(r.out, "%-5s %-45s %6.1fs\n", e.Action, e.Package, e.Elapsed)
	} else if e.Elapsed > 20 && !strings.Contains(e.Test, "/") {
		r.slow = append(r.slow, fmt.Sprintf("%6.1fs %s %s", e.Elapsed, e.Package, e.Test))
	}
	delete(r.output, k)
}

// unfinished tells of tests that were running when their package ended: a timeout, a crash.
func (r *report) unfinished(pkg string) {
	for k := range r.output {
		if k.pkg == pkg && k.test != "" {
			r.failed++
			r.tell(k, "UNFINISHED")
			delete(r.output, k)
		}
	}
}

// tell prints what a test, or package, has written.
func (r *report) tell(k key, what string) {
	r.bad = append(r.bad, strings.TrimSpace(what+" "+k.pkg+" "+k.test))
	if out := r.output[k]; out != nil {
		fmt.Fprintf(r.out, "----- %s %s %s\n%s", what, k.pkg, k.test, out)
	}
}

func (r *report) summary(took time.Duration) {
	slices.SortFunc(r.slow, func(a, b string) int { return strings.Compare(b, a) })
	for _, s := range r.slow {
		fmt.Fprintln(r.out, "slow ", s)
	}
	for _, b := range r.bad {
		fmt.Fprintln(r.out, b)
	}
	fmt.Fprintf(r.out, "in %v\n%d passed, %d failed, %d skipped\n", took.Round(time.Second), r.passed, r.failed, r.skipped)
}
