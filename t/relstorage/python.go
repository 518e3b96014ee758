package relstorage

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"wcfs/zcore/zodb"
)

// Python is a process that writes with RelStorage. One request runs at a time.
type Python struct {
	cmd *exec.Cmd
	mu  sync.Mutex // serialises requests
	in  io.WriteCloser
	out *bufio.Reader // guarded by mu
}

// PythonPath returns the interpreter that t/setup made.
func PythonPath() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	py := filepath.Join(root, ".deps/py5/bin/python")
	if _, err := os.Stat(py); err != nil {
		return "", fmt.Errorf("%w: run t/setup", err)
	}
	return py, nil
}

// NewPython starts one.
func NewPython() (*Python, error) {
	py, err := PythonPath()
	if err != nil {
		return nil, err
	}
	root, _ := Root()
	p := &Python{cmd: exec.Command(py, filepath.Join(root, "t/relstorage/rel.py"))}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

// Close ends the process.
func (p *Python) Close() {
	p.in.Close()
	p.cmd.Wait()
}

func (p *Python) call(req map[string]any, res any) error {
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("python: %w", err)
	}
	line, err = p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("python: %w", err)
	}
	var ans struct {
		OK    json.RawMessage `json:"ok"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(line, &ans); err != nil {
		return fmt.Errorf("python: %w", err)
	}
	if ans.Error != "" {
		return errors.New("python: " + ans.Error)
	}
	if res == nil {
		return nil
	}
	return json.Unmarshal(ans.OK, res)
}

// Writer is a database opened by RelStorage.
type Writer struct {
	py *Python
	n  int
}

// Open opens a database, making its tables if there are none. kind is "postgresql", with a DSN, or
// "sqlite", with a folder.
func (p *Python) Open(kind, dsn string, keepHistory bool) (*Writer, error) {
	w := &Writer{py: p}
	return w, p.call(map[string]any{"op": "open", "kind": kind, "dsn": dsn, "keep_history": keepHistory}, &w.n)
}

func (w *Writer) call(op string, args map[string]any, res any) error {
	req := map[string]any{"op": op, "storage": w.n}
	for k, v := range args {
		req[k] = v
	}
	return w.py.call(req, res)
}

func encode(objs map[zodb.Oid][]byte) map[string]any {
	var l [][2]any
	for oid, data := range objs {
		x := [2]any{uint64(oid), nil}
		if data != nil {
			x[1] = base64.StdEncoding.EncodeToString(data)
		}
		l = append(l, x)
	}
	return map[string]any{"objs": l}
}

// Commit commits objs as one transaction.
func (w *Writer) Commit(objs map[zodb.Oid][]byte) (tid zodb.Tid, err error) {
	err = w.call("commit", encode(objs), &tid)
	return tid, err
}

// Begin does everything of a commit but make it visible; Finish does that, Abort drops it.
func (w *Writer) Begin(objs map[zodb.Oid][]byte) error { return w.call("begin", encode(objs), nil) }

// Finish ends what Begin began.
func (w *Writer) Finish() (tid zodb.Tid, err error) {
	err = w.call("finish", nil, &tid)
	return tid, err
}

// Abort ends what Begin began.
func (w *Writer) Abort() error { return w.call("abort", nil, nil) }

// Undo undoes tid, which changed oids.
func (w *Writer) Undo(tid zodb.Tid, oids []zodb.Oid) (undo zodb.Tid, err error) {
	err = w.call("undo", map[string]any{"tid": uint64(tid), "oids": slices.Clone(oids)}, &undo)
	return undo, err
}

// Pack packs to exactly tid.
func (w *Writer) Pack(tid zodb.Tid) error {
	return w.call("pack", map[string]any{"tid": uint64(tid)}, nil)
}

// Restore commits objs under a given tid, as imports do; nil data deletes.
func (w *Writer) Restore(tid zodb.Tid, objs map[zodb.Oid][]byte) error {
	req := encode(objs)
	req["tid"] = uint64(tid)
	return w.call("restore", req, nil)
}

// Many makes n commits of one object of oids each, of size bytes and more.
func (w *Writer) Many(oids []zodb.Oid, n, size int) (tids []zodb.Tid, err error) {
	err = w.call("many", map[string]any{"oids": oids, "n": n, "size": size}, &tids)
	return tids, err
}

// Close closes the database.
func (w *Writer) Close() error { return w.call("close", nil, nil) }

// Databases makes databases in one server.
type Databases struct {
	PG     *Postgres
	Py     *Python
	names  names
	ctx    context.Context
	sqlite string // folder of SQLite databases
}

const template = "rs_template"

// NewDatabases starts a server, with opts as settings, and a Python process.
func NewDatabases(ctx context.Context, opts ...string) (*Databases, error) {
	d := &Databases{ctx: ctx}
	err := d.start(opts)
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Databases) start(opts []string) (err error) {
	if d.PG, err = NewPostgres(d.ctx, opts...); err != nil {
		return err
	}
	if d.Py, err = NewPython(); err != nil {
		return err
	}
	if d.sqlite, err = os.MkdirTemp("", "wcfs-sqlite-"); err != nil {
		return err
	}
	if err := d.PG.Exec(d.ctx, "postgres", "CREATE DATABASE "+template); err != nil {
		return err
	}
	w, err := d.Py.Open("postgresql", d.PG.DSN(template), true)
	if err != nil {
		return err
	}
	return w.Close()
}

// Close ends both and removes the databases.
func (d *Databases) Close() {
	if d.Py != nil {
		d.Py.Close()
	}
	if d.PG != nil {
		d.PG.Close()
	}
	if d.sqlite != "" {
		os.RemoveAll(d.sqlite)
	}
}

// Postgres makes a new empty history-preserving database and returns its name and a writer of it.
func (d *Databases) Postgres() (name string, w *Writer, err error) {
	name = d.names.next("db")
	if err = d.PG.Exec(d.ctx, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return "", nil, err
	}
	w, err = d.Py.Open("postgresql", d.PG.DSN(name), true)
	return name, w, err
}

// Empty makes a database without tables.
func (d *Databases) Empty() (name string, err error) {
	name = d.names.next("empty")
	return name, d.PG.Exec(d.ctx, "postgres", "CREATE DATABASE "+name)
}

// SQLite makes a new empty history-preserving database and returns its folder and a writer of it.
func (d *Databases) SQLite(keepHistory bool) (dir string, w *Writer, err error) {
	dir = filepath.Join(d.sqlite, d.names.next("db"))
	w, err = d.Py.Open("sqlite", dir, keepHistory)
	return dir, w, err
}
