package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/fusesrv/kernel"
	"wcfs/qemu"
	"wcfs/t/kernels/probe"
	"wcfs/t/py"
)

const probeTime = 40 * time.Second // in an emulated guest on a busy machine

// askKernel runs the probes on a kernel.
func askKernel(ctx context.Context, name string, q question) (report, error) {
	if name == "host" {
		return askHost(q, "/proc/self/exe")
	}
	k, err := qemu.FindKernel(ctx, name, qemu.DefaultCache(), nil)
	if err != nil {
		return report{}, err
	}
	exe, err := buildStatic(ctx)
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(filepath.Dir(exe))
	program := []string{"/kernels", "-in-guest", "-groups", strings.Join(q.groups, ","), "-probes", strings.Join(q.names, ",")}
	if q.both {
		program = append(program, "-both")
	}
	if q.spoil {
		program = append(program, "-spoil")
	}
	var out bytes.Buffer
	var stdout, log io.Writer = &out, nil
	if q.verbose {
		stdout, log = io.MultiWriter(&out, os.Stderr), os.Stderr
	}
	_, err = qemu.Run(ctx, qemu.Spec{
		Kernel: k, Program: program, Env: []string{"PATH=/bin"}, Net: qemu.NetNeeded, Memory: 1024, CPUs: 2,
		Modules: []string{"fuse"}, Files: []qemu.File{{Path: "/kernels", Source: exe, Mode: 0o755}},
		Stdout: stdout, KernelLog: log, Timeout: 15 * time.Minute,
	})
	if err != nil {
		return report{}, err
	}
	r := report{Kernel: name, Release: k.Release, Answers: parse(bytes.NewReader(out.Bytes()))}
	want := len(q.probes())
	if q.both {
		want *= 2
	}
	if len(r.Answers) != want {
		return r, fmt.Errorf("%d of %d probes were answered:\n%s", len(r.Answers), want, out.Bytes())
	}
	return r, nil
}

// askHost runs them here; those of v9fs where the kernel has it.
func askHost(q question, exe string) (report, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return report{}, err
	}
	r := report{Kernel: "host", Release: numbers(unix.ByteSliceToString(u.Release[:]))}
	if q.groups == nil {
		q.groups = []string{kernel.FUSE, kernel.MM}
		if b, err := os.ReadFile("/proc/filesystems"); err == nil && strings.Contains(string(b), "\t9p\n") {
			q.groups = append(q.groups, kernel.V9FS)
		}
	}
	var out bytes.Buffer
	runAll(q, exe, &out)
	if q.both {
		q.spoil = true
		runAll(q, exe, &out)
	}
	r.Answers = parse(&out)
	return r, nil
}

// numbers is a release without what whoever built it has added.
func numbers(release string) string {
	n, _, _ := strings.Cut(release, "-")
	return n
}

// parse reads the lines of runAll.
func parse(r io.Reader) []answer {
	var out []answer
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		f := strings.SplitN(strings.TrimSpace(scan.Text()), " ", 4)
		if len(f) == 4 && (f[0] == "probe" || f[0] == "spoiled") {
			out = append(out, answer{Probe: f[1], Word: f[2], Seen: f[3], Spoiled: f[0] == "spoiled"})
		}
	}
	return out
}

// buildStatic builds this program for guests.
func buildStatic(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "wcfs-kernels-")
	if err != nil {
		return "", err
	}
	exe := filepath.Join(dir, "kernels")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, ".")
	cmd.Dir = filepath.Join(py.Root(), "t/kernels")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return exe, nil
}

// runAll runs probes one after another, each in a process of its own, and prints a line each.
func runAll(q question, exe string, w io.Writer) {
	for _, p := range q.probes() {
		a := runProbe(p, q.spoil, exe)
		word := "probe"
		if q.spoil {
			word = "spoiled"
		}
		fmt.Fprintf(w, "%s %s %s %s\n", word, p.Name, a.Word, a.Seen)
	}
}

// runProbe runs one and cleans up after it, whatever it left hanging.
func runProbe(p probe.Probe, spoil bool, exe string) answer {
	a := answer{Probe: p.Name, Word: "error"}
	dir, err := os.MkdirTemp("", p.Name+"-")
	if err != nil {
		a.Seen = err.Error()
		return a
	}
	args := []string{p.Name, dir}
	if spoil {
		args = append(args, "spoil")
	}
	cmd := probe.Command(exe, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		a.Seen = err.Error()
		return a
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(probeTime):
		_ = cmd.Process.Kill()
		fmt.Fprintf(&out, "\nverdict error it hung for %v\n", probeTime)
	}
	probe.Clean(dir)
	select {
	case <-ended:
	case <-time.After(time.Second): // stuck in the kernel; only the guest's end frees it
	default:
	}
	text := out.String()
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSpace(line), " ", 3); len(f) == 3 && f[0] == "verdict" {
			a.Word, a.Seen = f[1], f[2]
			return a
		}
	}
	a.Seen = "no verdict: " + strings.Join(strings.Fields(text[max(0, len(text)-300):]), " ")
	return a
}
