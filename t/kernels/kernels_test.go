package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"wcfs/fusesrv/kernel"
	"wcfs/qemu/qemutest"
	"wcfs/t/kernels/probe"
)

// exe is this program, static and without the race detector; set by TestMain, then read only.
var exe string

func TestMain(m *testing.M) {
	var err error
	if exe, err = buildStatic(context.Background()); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(filepath.Dir(exe))
	os.Exit(code)
}

// TestList: there is a probe for each behaviour of the list.
func TestList(t *testing.T) {
	for _, p := range probe.All() {
		if p.Run == nil {
			t.Errorf("no probe for %s", p.Name)
		}
	}
}

// TestHost: what wcfs relies on holds here, and every probe can give the other answer.
func TestHost(t *testing.T) {
	r, err := askHost(question{groups: []string{kernel.FUSE, kernel.MM}, both: true}, exe)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r)
}

// TestGuest: the same of v9fs, on Linux 6.1.
func TestGuest(t *testing.T) {
	qemutest.Turn(t)
	r, err := askKernel(t.Context(), "6.1", question{groups: []string{kernel.V9FS}, both: true})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r)
}

func check(t *testing.T, r report) {
	t.Helper()
	for _, line := range broken([]report{{Kernel: r.Kernel, Answers: plain(r.Answers, false)}}) {
		t.Error(line)
	}
	for _, a := range plain(r.Answers, false) {
		s, ok := report{Answers: plain(r.Answers, true)}.of(a.Probe)
		t.Logf("%s: %s (%s); spoiled: %s (%s)", a.Probe, a.Word, a.Seen, s.Word, s.Seen)
		if a.Word == "n/a" && s.Word == "n/a" {
			continue // what wcfs relies on cannot be absent: see broken
		}
		// whether a second READ comes at a bad moment is a matter of luck; spoiled there is none
		lucky := a.Probe == "fuse-reread-locked" && a.Word == "no" && s.Word == "no"
		if !ok || a.Word == "error" || s.Word == "error" || a.Word == s.Word && !lucky {
			t.Errorf("%s says %q, and %q when spoiled", a.Probe, a.Word, s.Word)
		}
	}
}

// plain selects the answers that were spoiled, or not.
func plain(all []answer, spoiled bool) []answer {
	var out []answer
	for _, a := range all {
		if a.Spoiled == spoiled {
			out = append(out, a)
		}
	}
	return out
}

// TestExit: something that wcfs relies on and does not hold is an exit status of 1 and is named; something
// else is not.
func TestExit(t *testing.T) {
	for name, want := range map[string]int{"mm-private-copy": 1, "fuse-zero-pages": 0} {
		cmd := exec.Command(exe, "-spoil", "-probes", name, "-format", "json", "host")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, want exit status %d\n%s", name, err, want, stderr.String())
		}
		p, err := probe.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(stderr.String(), p.Why); told != (want == 1) {
			t.Errorf("%s: stderr: %s", name, stderr.String())
		}
		var reports []report
		if err := json.Unmarshal(stdout.Bytes(), &reports); err != nil || len(reports) != 1 || len(reports[0].Answers) != 1 {
			t.Errorf("%s: %v: %s", name, err, stdout.String())
		}
	}
}

// TestFormats: text and markdown have every probe and kernel; an unknown format is refused.
func TestFormats(t *testing.T) {
	var a []answer
	for _, p := range probe.All() {
		a = append(a, answer{Probe: p.Name, Word: "no", Seen: "seen-" + p.Name})
	}
	reports := []report{{Kernel: "k1", Release: "r1", Answers: a}, {Kernel: "k2", Release: "r2"}}
	for _, format := range []string{"text", "markdown"} {
		var b bytes.Buffer
		if err := write(&b, format, reports); err != nil {
			t.Fatal(err)
		}
		for _, p := range probe.All() {
			if !strings.Contains(b.String(), p.Says) || !strings.Contains(b.String(), p.Why) ||
				!strings.Contains(b.String(), p.Needs.String()) || !strings.Contains(b.String(), "seen-"+p.Name) {
				t.Errorf("%s: %s is not there", format, p.Name)
			}
		}
		if !strings.Contains(b.String(), "NO") || !strings.Contains(b.String(), "r1") {
			t.Errorf("%s: %s", format, b.String())
		}
	}
	if err := write(&bytes.Buffer{}, "xml", reports); err == nil {
		t.Error("format xml was taken")
	}
}
