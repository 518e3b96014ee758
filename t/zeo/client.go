package zeo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"wcfs/zcore/zodb"
)

// Client is a Python ZEO client in a process of its own (client.py). It does one thing at a time.
type Client struct {
	t   TB
	mu  sync.Mutex // guards in and out, for a question and its answer
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
	log strings.Builder
}

// Client connects a Python client to the server.
func (s *Server) Client() *Client {
	s.t.Helper()
	return NewClient(s.t, s.cfg, s.Addr)
}

// NewClient connects a Python client to addr, where a server of cfg is, perhaps behind a proxy.
func NewClient(t TB, cfg Config, addr string) *Client {
	t.Helper()
	args := []string{filepath.Join(Root(t), "t", "zeo", "client.py"), addr, cfg.Storage}
	if cfg.Storage == "" {
		args[2] = "1"
	}
	if c := cfg.Certs; c != nil {
		args = append(args, c.CA, c.ClientCert, c.ClientKey)
	}
	c := &Client{t: t, cmd: exec.Command(Python(t, cfg.Version), args...)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = &c.log
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		if t.Failed() && c.log.Len() > 0 {
			s := c.log.String()
			t.Logf("end of what the Python client says:\n%s", s[max(0, len(s)-4000):])
		}
	})
	var ready struct{ Ready bool }
	if err := c.read(&ready); err != nil {
		t.Fatalf("the Python client did not start: %v", err)
	}
	return c
}

// Close ends the client.
func (c *Client) Close() {
	c.in.Close()
	c.cmd.Wait()
}

type question map[string]any

func (c *Client) read(answer any) error {
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	var e struct{ Error string }
	if err := json.Unmarshal(line, &e); err == nil && e.Error != "" {
		return fmt.Errorf("python: %s", e.Error)
	}
	return json.Unmarshal(line, answer)
}

func (c *Client) try(q question, answer any) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.in.Write(append(b, '\n')); err != nil {
		return err
	}
	return c.read(answer)
}

func (c *Client) ask(q question, answer any) {
	c.t.Helper()
	if err := c.try(q, answer); err != nil {
		c.t.Fatalf("%s: %v", q["do"], err)
	}
}

type tidAnswer struct{ Tid string }

func (a tidAnswer) tid(t TB) zodb.Tid {
	tid, err := zodb.ParseTid(a.Tid)
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// Object is one object of a commit. No data deletes it.
type Object struct {
	Oid  zodb.Oid
	Data []byte
}

func commitQuestion(objects []Object) question {
	stores, deletes := [][2]any{}, []zodb.Oid{}
	for _, o := range objects {
		if o.Data == nil {
			deletes = append(deletes, o.Oid)
		} else {
			stores = append(stores, [2]any{o.Oid, o.Data})
		}
	}
	return question{"do": "commit", "objects": stores, "deletes": deletes}
}

// Commit stores objects in one transaction.
func (c *Client) Commit(objects ...Object) zodb.Tid {
	c.t.Helper()
	var a tidAnswer
	c.ask(commitQuestion(objects), &a)
	return a.tid(c.t)
}

// TryCommit is Commit where failing is allowed: the server may be gone.
func (c *Client) TryCommit(objects ...Object) (zodb.Tid, error) {
	var a tidAnswer
	if err := c.try(commitQuestion(objects), &a); err != nil {
		return 0, err
	}
	return zodb.ParseTid(a.Tid)
}

// Burst commits n times in a row, one of oids in turn, content i being Content(oid, seed+i, size).
func (c *Client) Burst(n int, oids []zodb.Oid, size, seed int) []zodb.Tid {
	c.t.Helper()
	var a struct{ Tids []string }
	c.ask(question{"do": "burst", "n": n, "oids": oids, "size": size, "seed": seed}, &a)
	tids := make([]zodb.Tid, len(a.Tids))
	for i, s := range a.Tids {
		tids[i] = tidAnswer{s}.tid(c.t)
	}
	return tids
}

// Vote does the first phase of a commit of one object. The server has it in its file, and can be killed.
func (c *Client) Vote(o Object) {
	c.t.Helper()
	c.ask(question{"do": "vote", "oid": o.Oid, "data": o.Data}, &struct{}{})
}

// Head is what the client takes for the last transaction.
func (c *Client) Head() zodb.Tid {
	c.t.Helper()
	var a tidAnswer
	c.ask(question{"do": "head"}, &a)
	return a.tid(c.t)
}

// Undo undoes a transaction.
func (c *Client) Undo(tid zodb.Tid) zodb.Tid {
	c.t.Helper()
	var a tidAnswer
	c.ask(question{"do": "undo", "tid": tid.String()}, &a)
	return a.tid(c.t)
}

// Pack packs away what was not current at a time, in seconds since 1970.
func (c *Client) Pack(at float64) {
	c.t.Helper()
	var a struct{}
	c.ask(question{"do": "pack", "time": at}, &a)
}

// Load is what Python's loadBefore answers.
type Load struct {
	Err  string // POSKeyError, None or empty
	Data []byte
	Tid  string
	End  string // empty for none
}

// LoadsBefore loads every oid before every tid: oids outside, tids inside.
func (c *Client) LoadsBefore(oids []zodb.Oid, before []zodb.Tid) []Load {
	c.t.Helper()
	hex := make([]string, len(before))
	for i, t := range before {
		hex[i] = t.String()
	}
	var a struct{ Loads []Load }
	c.ask(question{"do": "loads", "oids": oids, "before": hex}, &a)
	return a.Loads
}

// BenchLoads loads oids one after the other and tells how long that took.
func (c *Client) BenchLoads(oids []zodb.Oid, before zodb.Tid) (took time.Duration, size int64) {
	c.t.Helper()
	var a struct {
		Seconds float64
		Bytes   int64
	}
	c.ask(question{"do": "bench", "oids": oids, "before": before.String()}, &a)
	return time.Duration(a.Seconds * float64(time.Second)), a.Bytes
}

// CommitTimed commits one object and tells when the commit began to be made final.
func (c *Client) CommitTimed(o Object) (zodb.Tid, time.Time) {
	c.t.Helper()
	var a struct {
		Tid string
		At  float64
	}
	c.ask(question{"do": "timed", "oid": o.Oid, "data": o.Data}, &a)
	return tidAnswer{a.Tid}.tid(c.t), pythonTime(a.At)
}

// Listen has the client note when it is told of commits.
func (c *Client) Listen() {
	c.t.Helper()
	c.ask(question{"do": "listen"}, &struct{}{})
}

// Heard tells when the client was told of a commit, which it waits for.
func (c *Client) Heard(tid zodb.Tid) time.Time {
	c.t.Helper()
	var a struct{ At float64 }
	c.ask(question{"do": "heard", "tid": tid.String()}, &a)
	return pythonTime(a.At)
}

func pythonTime(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }
