// Package py runs the Python programs of this directory for tests: real writers of real databases.
//
// It owns the processes it starts. The environments are those that t/setup makes; where one is
// missing the test fails.
package py

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"wcfs/zcore/zodb"
)

// The environments: ZODB 5 with ZEO 5, and ZODB 6 with ZEO 6.
const (
	Py5 = "py5"
	Py6 = "py6"
)

// Root returns the root of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Command returns a command that runs a program of this directory, its modules importable.
func Command(t testing.TB, env, program string, args ...string) *exec.Cmd {
	t.Helper()
	python := filepath.Join(Root(), ".deps", env, "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("no Python environment %s: run t/setup (%v)", env, err)
	}
	dir := filepath.Join(Root(), "t", "py")
	cmd := exec.Command(python, append([]string{filepath.Join(dir, program)}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// Writer is a running zwriter.py. Safe for use by many goroutines; requests run one after another.
type Writer struct {
	cmd *exec.Cmd

	mu  sync.Mutex
	in  io.WriteCloser // guarded by mu
	out *bufio.Reader  // guarded by mu
}

// StartWriter starts zwriter.py in an environment; it is killed when the test ends.
func StartWriter(t testing.TB, env string) *Writer {
	t.Helper()
	cmd := Command(t, env, "zwriter.py")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &Writer{cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(w.Kill)
	return w
}

// Kill kills the process as by kill -9 and waits for it.
func (w *Writer) Kill() {
	w.cmd.Process.Kill()
	w.cmd.Wait()
}

// Answer is what zwriter.py says.
type Answer struct {
	Error  string
	Tid    string
	Tids   []string
	Data   []byte
	Serial string
	Txns   []Txn

	UsedIndex bool `json:"used_index"`
}

// Txn is one transaction, as [tid, [oid, ...]].
type Txn struct {
	Tid  zodb.Tid
	Oids []zodb.Oid
}

// UnmarshalJSON implements json.Unmarshaler.
func (x *Txn) UnmarshalJSON(b []byte) error {
	var raw [2]json.RawMessage
	var tid string
	var oids []string
	err := json.Unmarshal(b, &raw)
	if err == nil {
		err = errors.Join(json.Unmarshal(raw[0], &tid), json.Unmarshal(raw[1], &oids))
	}
	if err != nil {
		return err
	}
	if x.Tid, err = zodb.ParseTid(tid); err != nil {
		return err
	}
	for _, s := range oids {
		oid, err := zodb.ParseOid(s)
		if err != nil {
			return err
		}
		x.Oids = append(x.Oids, oid)
	}
	return nil
}

// Request is one operation of zwriter.py with its arguments, but for "op" and "db".
type Request map[string]any

// Try sends a request about database db and returns the answer.
func (w *Writer) Try(op, db string, args Request) (Answer, error) {
	req := Request{"op": op, "db": db}
	for k, v := range args {
		req[k] = v
	}
	line, err := json.Marshal(req)
	if err != nil {
		return Answer{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.in.Write(append(line, '\n')); err != nil {
		return Answer{}, err
	}
	line, err = w.out.ReadBytes('\n')
	if err != nil {
		return Answer{}, fmt.Errorf("zwriter.py is gone: %w", err)
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, fmt.Errorf("zwriter.py said %q: %w", line, err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// Do is Try for requests that must not fail.
func (w *Writer) Do(t testing.TB, op, db string, args Request) Answer {
	t.Helper()
	a, err := w.Try(op, db, args)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return a
}

// Objs encodes records for a request.
func Objs(objs map[zodb.Oid][]byte) Request {
	m := map[string]any{}
	for oid, data := range objs {
		m[oid.String()] = nil
		if data != nil {
			m[oid.String()] = base64.StdEncoding.EncodeToString(data)
		}
	}
	return Request{"objs": m}
}

// TidOf returns the tid in an answer.
func (a Answer) TidOf(t testing.TB) zodb.Tid {
	t.Helper()
	tid, err := zodb.ParseTid(a.Tid)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}
