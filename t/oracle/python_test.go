package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// pyCommit is a transaction as history.py tells it.
type pyCommit struct {
	Tid   zodb.Tid
	Oids  []zodb.Oid
	Files map[zodb.Oid]pyFile
}

// pyFile is a bigfile as of a transaction.
type pyFile struct {
	Blktab  zodb.Oid
	Blksize int64
	Blocks  map[zdata.Blk]pyBlock
}

// pyBlock is which ZBlk a block names, and when that was last written.
type pyBlock struct {
	zblk   zodb.Oid
	serial zodb.Tid
}

// asker asks a running history.py.
type asker struct {
	in  *json.Encoder
	out *json.Decoder
}

func startPython(t *testing.T) *asker {
	t.Helper()
	cmd := py.Command(t, py.Py5, "../oracle/history.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("history.py: %v", err)
		}
	})
	return &asker{json.NewEncoder(in), json.NewDecoder(out)}
}

// ask returns at once; the answers come in order.
func (a *asker) ask(path string, files []zodb.Oid) error {
	return a.in.Encode(map[string]any{"path": path, "files": texts(files)})
}

func texts(oids []zodb.Oid) []string {
	var list []string
	for _, oid := range oids {
		list = append(list, oid.String())
	}
	return list
}

// answer returns the next one.
func (a *asker) answer() ([]pyCommit, error) {
	var raw []struct {
		Tid   string
		Oids  []string
		Files map[string]struct {
			Blktab  string
			Blksize int64
			Blocks  map[string][2]string
		}
	}
	if err := a.out.Decode(&raw); err != nil {
		return nil, fmt.Errorf("history.py: %w", err)
	}
	var p parser
	var list []pyCommit
	for _, r := range raw {
		c := pyCommit{Tid: p.tid(r.Tid), Files: map[zodb.Oid]pyFile{}}
		for _, oid := range r.Oids {
			c.Oids = append(c.Oids, p.oid(oid))
		}
		for oid, f := range r.Files {
			file := pyFile{Blktab: p.oid(f.Blktab), Blksize: f.Blksize, Blocks: map[zdata.Blk]pyBlock{}}
			for n, b := range f.Blocks {
				file.Blocks[p.blk(n)] = pyBlock{p.oid(b[0]), p.tid(b[1])}
			}
			c.Files[p.oid(oid)] = file
		}
		list = append(list, c)
	}
	return list, p.err
}

// parser keeps the first error.
type parser struct{ err error }

func (p *parser) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *parser) oid(s string) zodb.Oid {
	oid, err := zodb.ParseOid(s)
	p.note(err)
	return oid
}

func (p *parser) tid(s string) zodb.Tid {
	tid, err := zodb.ParseTid(s)
	p.note(err)
	return tid
}

func (p *parser) blk(s string) zdata.Blk {
	n, err := strconv.ParseInt(s, 10, 64)
	p.note(err)
	return zdata.Blk(n)
}
