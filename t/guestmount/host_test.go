package guestmount

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb/fswriter"
)

// built is where TestMain puts programs; set by it, then read only.
var built string

// build builds wcfs and guestbin, and runs the tests.
func build(m *testing.M) {
	dir, err := os.MkdirTemp("", "wcfs-guest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built = dir
	if err := served.Build(dir, false, "", "t/guestmount/guestbin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func guestbin(*testing.T) string { return filepath.Join(built, "guestbin") }

// database writes the database of the tree's suite.
func database(t *testing.T) (*treetest.Manifest, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	db, err := fixture.Make(w)
	if err != nil {
		t.Fatal(err)
	}
	zurl := "file://" + path
	return fixture.Manifest(db, zurl, "30.0", false), zurl
}

// server is a running wcfs with both fronts.
type server struct {
	mnt  string // FUSE
	addr string // 9P: HOST:PORT
	unix string // 9P: unix:PATH, if asked for
}

// serve starts one and waits until both fronts are there. more are further options, of which the last is
// a Unix socket.
func serve(t *testing.T, zurl string, more ...string) server {
	t.Helper()
	s := server{mnt: t.TempDir()}
	if len(more) > 0 {
		s.unix = more[len(more)-1]
	}
	args := append([]string{"serve", "--allow-other", "--watch-mode", "0666", "--mount", s.mnt, "--9p", "tcp:127.0.0.1:0"}, append(more, zurl)...)
	p := served.Serve(t, s.mnt, exec.Command(filepath.Join(built, "wcfs"), args...))
	s.addr = p.Address("tcp")
	t.Cleanup(p.End)
	return s
}

// writer is a Python process that commits when told.
type writer struct {
	zurl, oid string
	size      int64

	in  io.Writer
	out *bufio.Reader
}

// startWriter makes a database with commit 1.
func startWriter(t *testing.T) *writer {
	t.Helper()
	const blocks, blksize = 3, 64 << 10
	path := filepath.Join(t.TempDir(), "live.fs")
	cmd := py.Command(t, py.Py5, "../guestmount/follow.py", path, strconv.Itoa(blocks), strconv.Itoa(blksize))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	w := &writer{zurl: "file://" + path, size: blocks * blksize, in: in, out: bufio.NewReader(out)}
	line, err := w.out.ReadString('\n')
	if err != nil {
		t.Fatalf("writer: %v", err)
	}
	w.oid = strings.TrimSpace(line)
	return w
}

// commit makes commit n.
func (w *writer) commit(t *testing.T, n int) {
	_, err := io.WriteString(w.in, "\n")
	line := ""
	if err == nil {
		line, err = w.out.ReadString('\n')
	}
	if strings.TrimSpace(line) != strconv.Itoa(n) {
		t.Errorf("writer: commit %d is %q, %v", n, line, err)
	}
}
