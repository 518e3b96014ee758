package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"wcfs/fusesrv"
	"wcfs/p9srv"
	"wcfs/t/wait"
	"wcfs/zcore/history"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb/fswriter"
)

// commandEnv makes the test program run as wcfs itself, with its arguments: for what must not happen in the
// process that serves, such as a page fault, which can stop all of a Go program.
const commandEnv = "WCFS_TEST_COMMAND"

func TestMain(m *testing.M) {
	fusesrv.Helper()
	if os.Getenv(commandEnv) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// runApart is run in a process of its own.
func runApart(t *testing.T, args []string, stdout, stderr *bytes.Buffer) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), commandEnv+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// testProgram logs to nowhere.
func testProgram(ctx context.Context) *program {
	return &program{ctx: ctx, stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), log: slog.New(slog.DiscardHandler)}
}

func testDatabase(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := fixture.Make(w); err != nil {
		t.Fatal(err)
	}
	return fileURL(path)
}

// A hundred servers in one process, each with both fronts and both used, leave no mount, goroutine or
// descriptor.
func TestCycles(t *testing.T) {
	p := testProgram(t.Context())
	zurl, mnt, sock := testDatabase(t), t.TempDir(), filepath.Join(t.TempDir(), "s")
	cycle := func() {
		t.Helper()
		c := serveCmd{ZURL: zurl, Mount: mnt, PinTimeout: time.Second, usedHere: true}
		c.P9.Addr = []string{"unix:" + sock}
		s, err := c.start(p)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(mnt, "head/at"))
		if err != nil || string(text) != s.core.Head().String() {
			t.Fatalf("head/at is %q, %v", text, err)
		}
		target, err := dialTarget(p.ctx, "unix:"+sock, "", p9srv.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readSmall(p.ctx, target, "head/at"); err != nil || got != string(text) {
			t.Fatalf("head/at over 9P is %q, %v", got, err)
		}
		target.close()
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	for range 100 {
		cycle()
	}
	settled := func() bool { return runtime.NumGoroutine() <= goroutines && openFiles(t) <= fds }
	for deadline := time.Now().Add(wait.Patience); !settled(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after; %d descriptors before, %d after\n%s",
				goroutines, runtime.NumGoroutine(), fds, openFiles(t), stacks[:runtime.Stack(stacks, true)])
		}
	}
	if text, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(text), mnt) {
		t.Error("the mount is still there")
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestBlockRanges(t *testing.T) {
	for want, blocks := range map[string][]zdata.Blk{
		"": nil, "5": {5}, "0-2 7 9-10": {0, 1, 2, 7, 9, 10},
	} {
		if got := blockRanges(blocks); got != want {
			t.Errorf("blockRanges(%v) = %q, want %q", blocks, got, want)
		}
	}
}

// A file of many blocks has a list of changed blocks rather than a column each.
func TestTables(t *testing.T) {
	var out bytes.Buffer
	if err := printTable(&out, []history.Revision{{Tid: 2, Size: 8, Blocks: []zdata.Blk{1}}, {Tid: 1, Size: 4, Blocks: []zdata.Blk{0, 1}}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || !slices.Equal(strings.Fields(lines[1])[4:], []string{".", "x"}) || !slices.Equal(strings.Fields(lines[2])[4:], []string{"x", "x"}) {
		t.Errorf("table:\n%s", out.String())
	}
	var many []zdata.Blk
	for blk := range zdata.Blk(100) {
		many = append(many, blk)
	}
	out.Reset()
	if err := printTable(&out, []history.Revision{{Tid: 1, Blocks: many}}); err != nil || !strings.Contains(out.String(), " 0-99\n") {
		t.Errorf("table of many blocks: %v\n%s", err, out.String())
	}
}

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		exitOK: nil, exitFailure: fmt.Errorf("x"), exitUsage: fmt.Errorf("wrapped: %w", usagef("y")), 42: exitStatus(42),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("exitCode(%v) = %d", err, got)
		}
	}
}

// wcfs version, --version and a server's .wcfs/version agree, and name the Go release.
func TestVersion(t *testing.T) {
	var said [2]bytes.Buffer
	for i, arg := range []string{"version", "--version"} {
		if code := run(t.Context(), []string{arg}, &said[i], new(bytes.Buffer)); code != 0 {
			t.Fatalf("wcfs %s: exit code %d", arg, code)
		}
	}
	if said[0].String() != said[1].String() || !strings.Contains(said[0].String(), runtime.Version()) {
		t.Errorf("wcfs version: %q, --version: %q, Go %s", &said[0], &said[1], runtime.Version())
	}
	c, sock := serveCmd{ZURL: testDatabase(t), PinTimeout: time.Second}, filepath.Join(t.TempDir(), "s")
	c.P9.Addr = []string{"unix:" + sock}
	s, err := c.start(testProgram(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var served bytes.Buffer
	if code := run(t.Context(), []string{"cat", "unix:" + sock, ".wcfs/version"}, &served, new(bytes.Buffer)); code != 0 {
		t.Fatalf("wcfs cat: exit code %d", code)
	}
	if "wcfs "+served.String()+"\n" != said[0].String() {
		t.Errorf(".wcfs/version %q, wcfs version %q", &served, &said[0])
	}
}
