package client_test

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/t/output"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

const (
	envClient = "WCFS_TEST_CLIENT" // set: this program is the client in Go
	envMap    = "WCFS_TEST_MAP"    // set: which maps
)

// built is what TestMain made; read only then.
var built struct{ wcfs, dir, client, self string }

func TestMain(m *testing.M) {
	if os.Getenv(envClient) != "" {
		goClient()
		return
	}
	code, err := 1, build()
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(built.dir)
	os.Exit(code)
}

func build() (err error) {
	if built.dir, err = os.MkdirTemp("", "wcfs-client-"); err != nil {
		return err
	}
	built.wcfs = filepath.Join(built.dir, "wcfs")
	built.client = filepath.Join(built.dir, "testclient")
	built.self = filepath.Join(built.dir, "self") // guests see that directory
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(built.self, self, 0o777)
	}
	if err != nil {
		return err
	}
	if err := served.Build(built.dir, served.Race, ""); err != nil {
		return err
	}
	c := filepath.Join(py.Root(), "zcore/client/c")
	cc := []string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-I", c}
	for _, cmd := range []*exec.Cmd{
		exec.Command("gcc", append(cc, "-shared", "-fPIC", "-pthread", "-o", filepath.Join(built.dir, "libwcfs.so"), filepath.Join(c, "wcfs.c"))...),
		exec.Command("gcc", append(cc, "-pthread", "-o", built.client, "prog/testclient.c", filepath.Join(c, "wcfs.c"))...),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// world is a database that is written to, and a server of it.
type world struct {
	t    *testing.T
	mnt  string
	w    *fswriter.Writer
	db   *zgen.DB
	f    zodb.Oid // the first file
	args []string // of the server
	srv  *served.Proc
}

// newWorld writes a database whose first transaction is init, and serves it.
func newWorld(t *testing.T, blksize int64, init func(tx *zgen.Tx, f zodb.Oid), args ...string) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	fw, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fw.Close() })
	w := &world{t: t, mnt: t.TempDir(), w: fw, db: zgen.New(fw, zgen.Options{LeafMax: 4, NodeMax: 4})}
	w.commit(func(tx *zgen.Tx) {
		w.f = tx.NewFile(blksize)
		if init != nil {
			init(tx, w.f)
		}
	})
	w.args = append(append([]string{"serve", "--mount", w.mnt}, args...), "file://"+path)
	w.serve()
	return w
}

// serve starts the server and waits until it is ready.
func (w *world) serve() {
	w.t.Helper()
	w.srv = served.Serve(w.t, w.mnt, exec.Command(built.wcfs, w.args...))
}

// restart has a new server take the place of one that was killed.
func (w *world) restart() {
	w.t.Helper()
	w.srv.Kill()
	w.serve()
}

// commit makes one transaction. It may be called by one goroutine at a time.
func (w *world) commit(fn func(tx *zgen.Tx)) zodb.Tid {
	tx := w.db.Begin()
	fn(tx)
	tid, err := tx.Commit()
	if err != nil {
		w.t.Error(err)
	}
	return tid
}

// write is a commit that fills a block with text, over and over.
func (w *world) write(blk zdata.Blk, text string) zodb.Tid {
	return w.commit(func(tx *zgen.Tx) { fill(tx, w.db, w.f, blk, text) })
}

func fill(tx *zgen.Tx, db *zgen.DB, f zodb.Oid, blk zdata.Blk, text string) {
	kind := zgen.Blk0
	if blk%2 == 1 {
		kind = zgen.Blk1
	}
	const blksize = 4096 // of the smallest: the rest of a larger block is zeros
	tx.Write(f, blk, []byte(strings.Repeat(text, blksize/len(text))), kind)
}

// sums is what "map" and "read" must answer.
func (w *world) sums(f zodb.Oid, at zodb.Tid) string {
	var b strings.Builder
	bf, _ := w.db.File(f, at)
	size := w.db.Size(f, at)
	fmt.Fprintf(&b, "ok %s %d", at, size)
	for blk := range size / bf.Blksize {
		fmt.Fprintf(&b, " %08x", crc32.ChecksumIEEE(w.db.Data(f, zdata.Blk(blk), at)))
	}
	return b.String()
}

// proc is a client.
type proc struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	errs output.Buffer

	patience time.Duration // with one command
}

// start starts a client; it is killed when the test ends.
func start(t *testing.T, kind string) *proc {
	t.Helper()
	p := &proc{name: kind, patience: served.Patience}
	words := words(kind)
	env := os.Environ()
	for ; strings.Contains(words[0], "="); words = words[1:] {
		env = append(env, words[0])
	}
	p.cmd = exec.Command(words[0], words[1:]...)
	p.cmd.Env = env
	p.cmd.Stderr = &p.errs
	var err1, err2 error
	p.in, err1 = p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() && p.errs.String() != "" {
			t.Logf("%s client:\n%s", kind, p.errs.String())
		}
	})
	return p
}

// words are how a client is started: variables of its environment, then the command.
func words(kind string) []string {
	switch kind {
	case "go":
		return []string{envClient + "=1", "GOMAXPROCS=1", built.self}
	case "gomap":
		return []string{envClient + "=1", "GOMAXPROCS=1", envMap + "=1", built.self}
	case "c":
		return []string{built.client}
	case "calarm":
		return []string{"WCFS_TEST_ALARM=1", built.client}
	}
	lib := filepath.Join(built.dir, "libwcfs.so")
	if kind == "pyread" {
		lib = ""
	}
	return []string{"PYTHONDONTWRITEBYTECODE=1", "WCFS_LIB=" + lib, "PYTHONPATH=" + filepath.Join(py.Root(), "zcore/client/c"),
		python(), filepath.Join(py.Root(), "t/client/prog/testclient.py")}
}

func python() string { return filepath.Join(py.Root(), ".deps", py.Py5, "bin/python") }

// ask sends a command and returns the answer.
func (p *proc) ask(format string, args ...any) (string, error) {
	cmd := fmt.Sprintf(format, args...)
	answer, errc := "", make(chan error, 1)
	go func() {
		_, err := io.WriteString(p.in, cmd+"\n")
		if err == nil {
			answer, err = p.out.ReadString('\n')
		}
		errc <- err
	}()
	select {
	case err := <-errc:
		if err != nil {
			return "", fmt.Errorf("%s client is gone at %q: %w", p.name, cmd, err)
		}
		return strings.TrimSpace(answer), nil
	case <-time.After(p.patience):
		return "", fmt.Errorf("%s client hangs in %q", p.name, cmd)
	}
}

// must is ask where "ok" must come.
func (p *proc) must(t *testing.T, format string, args ...any) string {
	t.Helper()
	answer := p.may(t, format, args...)
	if answer != "ok" && !strings.HasPrefix(answer, "ok ") {
		t.Fatalf("%s client: %q is answered %q", p.name, fmt.Sprintf(format, args...), answer)
	}
	return answer
}

// may is ask where any answer must come.
func (p *proc) may(t *testing.T, format string, args ...any) string {
	t.Helper()
	answer, err := p.ask(format, args...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
