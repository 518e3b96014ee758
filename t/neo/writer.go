package neo

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// Writer is a NEO client in a process of its own (writer.py). It does one thing at a time, and goes on
// when nodes of the cluster come and go: a commit that it tells of is made once.
type Writer struct {
	t   TB
	mu  sync.Mutex // guards in and out, for a question and its answer
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
	log strings.Builder
}

// Writer starts one.
func (c *Cluster) Writer() *Writer {
	c.t.Helper()
	args := []string{filepath.Join(zeo.Root(c.t), "t/neo/writer.py"), fmt.Sprint(c.cfg.Protocol), c.Name, c.masters(",")}
	if crt := c.cfg.Certs; crt != nil {
		args = append(args, crt.CA, crt.ClientCert, crt.ClientKey)
	}
	w := &Writer{t: c.t, cmd: exec.Command(zeo.Python(c.t, 5), args...)}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.cmd.Stderr = &w.log
	w.cmd.Env = append(w.cmd.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	in, err := w.cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	w.in, w.out = in, bufio.NewReaderSize(out, 1<<20)
	if err := w.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		w.cmd.Process.Kill()
		w.cmd.Wait()
		if c.t.Failed() && w.log.Len() > 0 {
			c.t.Logf("what the writer says:\n%s", &w.log)
		}
	})
	return w
}

func (w *Writer) call(op string, args map[string]any, answer any) error {
	request := map[string]any{"op": op}
	for k, v := range args {
		request[k] = v
	}
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.in.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	var a struct {
		OK    json.RawMessage `json:"ok"`
		Error string          `json:"error"`
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	if a.Error != "" {
		return errors.New("writer: " + a.Error)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(a.OK, answer)
}

func (w *Writer) must(op string, args map[string]any, answer any) {
	w.t.Helper()
	if err := w.call(op, args, answer); err != nil {
		w.t.Fatal(err)
	}
}

// Txn is a transaction to make.
type Txn struct {
	Objects map[zodb.Oid][]byte // nil deletes
	Checked []zodb.Oid          // that must stay as they are
	Tid     zodb.Tid            // 0 for one of the master's
}

// Make makes a transaction and returns its tid.
func (w *Writer) Make(x Txn) (tid zodb.Tid, err error) {
	objs := [][2]any{}
	for oid, data := range x.Objects {
		o := [2]any{uint64(oid), nil}
		if data != nil {
			o[1] = base64.StdEncoding.EncodeToString(data)
		}
		objs = append(objs, o)
	}
	checked := []uint64{}
	for _, oid := range x.Checked {
		checked = append(checked, uint64(oid))
	}
	args := map[string]any{"objs": objs, "checked": checked}
	if x.Tid != 0 {
		args["tid"] = uint64(x.Tid)
	}
	err = w.call("commit", args, &tid)
	return tid, err
}

// Commit commits objs as one transaction; nil deletes.
func (w *Writer) Commit(objs map[zodb.Oid][]byte) zodb.Tid {
	w.t.Helper()
	tid, err := w.Make(Txn{Objects: objs})
	if err != nil {
		w.t.Fatal(err)
	}
	return tid
}

// Many makes n commits of one object of oids each, of size bytes and more.
func (w *Writer) Many(oids []zodb.Oid, n, size int) (tids []zodb.Tid) {
	w.t.Helper()
	w.must("many", map[string]any{"oids": oids, "n": n, "size": size}, &tids)
	return tids
}

// Timed is a commit, and when it began to be final and was.
type Timed struct {
	Tid          zodb.Tid
	Began, Ended time.Time
}

// CommitTimed commits one object.
func (w *Writer) CommitTimed(oid zodb.Oid, data []byte) Timed {
	w.t.Helper()
	var a struct {
		Tid          zodb.Tid
		Began, Ended float64
	}
	w.must("timed", map[string]any{"oid": uint64(oid), "data": data}, &a)
	at := func(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }
	return Timed{a.Tid, at(a.Began), at(a.Ended)}
}

// Undo undoes a transaction by a new one.
func (w *Writer) Undo(tid zodb.Tid) (undo zodb.Tid) {
	w.t.Helper()
	w.must("undo", map[string]any{"tid": uint64(tid)}, &undo)
	return undo
}

// Pack packs away what was not current at tid.
func (w *Writer) Pack(tid zodb.Tid) {
	w.t.Helper()
	w.must("pack", map[string]any{"tid": uint64(tid)}, nil)
}

// Operational tells whether the cluster lets clients in now.
func (w *Writer) Operational() (yes bool) {
	w.t.Helper()
	w.must("operational", nil, &yes)
	return yes
}

// Head is the last transaction.
func (w *Writer) Head() (tid zodb.Tid) {
	w.t.Helper()
	w.must("head", nil, &tid)
	return tid
}

// Load is what a load answers: no data is a deletion, a source where undo took the data from.
type Load struct {
	Data              []byte
	Tid, Next, Source zodb.Tid
}

// Load loads oid before a tid; nil if there is nothing.
func (w *Writer) Load(oid zodb.Oid, before zodb.Tid) (l *Load) {
	w.t.Helper()
	w.must("load", map[string]any{"oid": uint64(oid), "before": uint64(before)}, &l)
	return l
}

// Close ends the writer.
func (w *Writer) Close() {
	w.in.Close()
	w.cmd.Wait()
}
