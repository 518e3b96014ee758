package guestisolation

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wcfs/qemu/qemutest"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/t/wait"
)

// TestHostLines starts what docs/guests.md shows for the host: the server, QEMU with each set of options, up to
// the point where it would run the guest, and, with WCFS_SOAK=1, `wcfs run`.
func TestHostLines(t *testing.T) {
	l := newLines(t)
	host := shown(t, "host")
	if len(host) != 2 {
		t.Fatalf("docs/guests.md has %d lines for the host", len(host))
	}
	p := served.Serve(t, l.mnt, exec.Command(filepath.Join(built, "wcfs"), l.args(host[0])[1:]...))
	l.swap["127.0.0.1:5640"] = p.Address("tcp")
	first, options := "", 0
	for _, text := range shown(t, "qemu") {
		if strings.HasPrefix(text, "qemu-system-x86_64 ") {
			first = text
			l.starts(l.args(text))
			continue
		}
		l.starts(merge(l.args(first), l.args(text)))
		options++
	}
	if options != 2 {
		t.Errorf("docs/guests.md has %d sets of options for QEMU", options)
	}
	if soak() {
		qemutest.Turn(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*wait.Patience) // a guest starts
		defer cancel()
		at := read(t, filepath.Join(l.mnt, "head/at"))
		out, err := exec.CommandContext(ctx, filepath.Join(built, "wcfs"), l.args(host[1])[1:]...).Output()
		if err != nil || string(out) != at {
			t.Errorf("%s: %v: %q, want %s", host[1], err, out, at)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shown returns the commands in the blocks of a kind.
func shown(t *testing.T, kind string) (list []string) {
	t.Helper()
	text := read(t, filepath.Join(py.Root(), "docs/guests.md"))
	for _, m := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		list = append(list, strings.TrimSpace(strings.ReplaceAll(m[1], "\\\n", " ")))
	}
	return list
}

// lines has what stands here for the places that the lines name.
type lines struct {
	t    *testing.T
	mnt  string
	swap map[string]string
}

func newLines(t *testing.T) *lines {
	w := newWriter(t)
	l := &lines{t: t, mnt: t.TempDir()}
	disk := filepath.Join(w.dir, "guest.qcow2")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "9p.sock") // QEMU connects at once
	listener, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l.swap = map[string]string{
		"/mnt/wcfs": l.mnt, "/srv/zodb/Data.fs": w.path(), "127.0.0.1:5640": "127.0.0.1:0",
		"guest.qcow2": disk, "/run/wcfs/9p.sock": sock,
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		l.swap["kvm"] = "tcg"
	} else {
		f.Close()
	}
	return l
}

// args splits a line, with the places of here.
func (l *lines) args(line string) []string {
	args := strings.Fields(line)
	for i, a := range args {
		for old, here := range l.swap {
			a = strings.ReplaceAll(a, old, here)
		}
		args[i] = a
	}
	return args
}

// merge adds options to a command; a second -netdev takes the place of the first.
func merge(command, options []string) []string {
	all := slices.Clone(command)
	for i := 0; i+1 < len(options); i += 2 {
		if at := slices.Index(all, "-netdev"); options[i] == "-netdev" && at >= 0 {
			all[at+1] = options[i+1]
			continue
		}
		all = append(all, options[i], options[i+1])
	}
	return all
}

// starts says that QEMU takes the command and can be told to quit.
func (l *lines) starts(args []string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], append(args[1:], "-S", "-display", "none", "-qmp", "stdio")...)
	cmd.Stdin = strings.NewReader("{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"quit\"}\n")
	var said, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &errs
	if err := cmd.Run(); err != nil || !strings.Contains(said.String(), "SHUTDOWN") {
		l.t.Errorf("%q: %v\n%s\n%s", cmd.Args, err, said.String(), errs.String())
	}
}
