package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/wait"
)

var (
	allFlag  = flag.Bool("all", os.Getenv("WCFS_SOAK") != "", "run every mutant, not only a random tenth")
	seedFlag = flag.Uint64("seed", 0, "of the random tenth; 0: by the clock")
)

// budget is how much CPU time the random tenth may take.
const budget = 2 * time.Minute

// root is the module, as seen from here.
const root = "../.."

// mutant is one defect.
type mutant struct {
	name  string
	why   string // what it breaks
	file  string // below root
	edits []edit // all of them together
	pkg   string // whose tests must notice
	run   string // which tests, as -run takes them
	args  []string
	limit time.Duration // when a test that hangs is ended
	hangs bool          // a test that hangs has noticed
	cheap bool          // part of make test, now and then
}

// edit replaces text that is in the file exactly once.
type edit struct{ old, new string }

// TestMutants applies one mutant at a time; each must be caught.
func TestMutants(t *testing.T) {
	seen := map[string]bool{}
	chosen := tenth(t)
	for _, m := range table() {
		if seen[m.name] {
			t.Errorf("two mutants are called %s", m.name)
		}
		seen[m.name] = true
		t.Run(m.name, func(t *testing.T) {
			overlay := m.overlay(t)
			switch {
			case *allFlag:
				m.mustBeCaught(t, overlay)
			case chosen[m.name] && spent() > budget:
				t.Log("not run: the tenth has had its time")
			case chosen[m.name]:
				m.mustBeCaught(t, overlay)
			}
		})
	}
}

// tenth chooses a random tenth of the mutants, of those that are cheap.
func tenth(t *testing.T) map[string]bool {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) >> 1
	}
	all := table()
	n := len(all) / 10
	all = slices.DeleteFunc(all, func(m mutant) bool { return !m.cheap })
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	chosen := map[string]bool{}
	for _, m := range all[:n] {
		chosen[m.name] = true
	}
	if !*allFlag {
		t.Logf("go test ./t/mutants -run TestMutants -seed %d: %d mutants", seed, n)
	}
	return chosen
}

// spent is the CPU time of the tests that were run.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Without a mutant the same runs must succeed: else being caught means nothing.
func TestNoMutant(t *testing.T) {
	done := map[string]bool{}
	for _, m := range table() {
		key := m.pkg + m.run + strings.Join(m.args, " ")
		if done[key] || !*allFlag {
			continue
		}
		done[key] = true
		if out, err := m.test(t); err != nil {
			t.Errorf("%s -run %s fails as it is: %v\n%s", m.pkg, m.run, err, out)
		}
	}
}

// overlay writes the changed copy of the file and returns the path of the list that names it.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, e := range m.edits {
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("the text to change is %d times in %s, not once; bring the mutant up to date:\n%s", n, m.file, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	doc, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err == nil {
		err = errors.Join(os.WriteFile(changed, []byte(text), 0o600), os.WriteFile(list, doc, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (m mutant) mustBeCaught(t *testing.T, overlay string) {
	t.Helper()
	began := time.Now()
	out, err := m.test(t, "-overlay", overlay)
	took := time.Since(began).Round(100 * time.Millisecond)
	switch {
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		t.Fatalf("the mutant does not compile:\n%s", out)
	case strings.Contains(out, "no tests to run"):
		t.Fatalf("there is no test %s in %s", m.run, m.pkg)
	case err == nil:
		t.Fatalf("nobody noticed (%s): %s", took, m.why)
	case !m.hangs && strings.Contains(out, "panic: test timed out") && !strings.Contains(out, "--- FAIL"):
		t.Fatalf("the machine was too slow to tell (%s): %s", took, m.why)
	case !strings.Contains(out, "--- FAIL") && !strings.Contains(out, "panic: ") && !strings.Contains(out, "fatal error: "):
		t.Fatalf("no test failed, the run did:\n%s", out)
	}
	t.Logf("%s: %s", took, verdict(out))
}

// test runs the tests that have to notice.
func (m mutant) test(t *testing.T, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), m.limit+2*time.Minute)
	defer cancel()
	args = append([]string{"test", "-count=1", "-vet=off", "-failfast", "-timeout", m.limit.String(), "-run", m.run}, args...)
	args = append(append(args, "./"+m.pkg), m.args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "WCFS_SOAK=", wait.Variable+"=0.2") // short runs notice too, and a mutant may make them wait
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// verdict is the first thing a failed test said.
func verdict(out string) string {
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return line
		}
	}
	return strings.TrimSpace(out)
}
