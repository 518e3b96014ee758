package contract

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/served"
	"wcfs/t/wait"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

const (
	page    = 4096
	blksize = 4 * page
)

// pinTimeout of the servers that have faulty clients, which pass short to start. Clients that behave, this process among
// them, must acknowledge within it on a busy machine: else the server kills the tests.
const (
	pinTimeout = 10 * time.Second
	short      = "-pintimeout=10s"
)

// world is a database that this process writes, and the server of it. It is used by one goroutine.
type world struct {
	t    *testing.T
	path string
	w    *fswriter.Writer
	db   *zgen.DB
	rng  *rand.Rand

	mnt string
	srv *served.Proc // nil before start
	t0  zodb.Tid
	zh  *stream
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "Data.fs"), mnt: t.TempDir(), rng: rand.New(rand.NewPCG(1, 2))}
	var err error
	if w.w, err = fswriter.Create(w.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.w.Close() })
	w.db = zgen.New(w.w, zgen.Options{})
	return w
}

// file commits a new file with blocks [0, n) and returns it.
func (w *world) file(n int) (f zodb.Oid) {
	w.t.Helper()
	w.commit(func(tx *zgen.Tx) {
		f = tx.NewFile(blksize)
		for blk := range n {
			w.write(tx, f, blk)
		}
	})
	return f
}

// start starts the server in the form that existing clients use.
func (w *world) start(options ...string) {
	w.t.Helper()
	w.t0 = w.db.Head()
	args := append([]string{"-debug", "-pintimeout=" + wait.Patience.String()}, options...)
	w.srv = served.Serve(w.t, w.mnt, exec.Command(wcfsPath, append(args, "file://"+w.path, w.mnt)...))
	w.zh = openStream(w.t, w.at(".wcfs/debug/zhead"), unix.O_RDONLY)
}

func (w *world) at(rel string) string { return filepath.Join(w.mnt, rel) }

func headFile(f zodb.Oid) string { return "head/bigfile/" + f.String() }

func revFile(rev zodb.Tid, f zodb.Oid) string { return "@" + rev.String() + "/bigfile/" + f.String() }

// write fills a block with new data.
func (w *world) write(tx *zgen.Tx, f zodb.Oid, blk int) {
	data := make([]byte, blksize)
	for i := range data {
		data[i] = byte(1 + w.rng.UintN(255))
	}
	tx.Write(f, zdata.Blk(blk), data, []zgen.Kind{zgen.Blk0, zgen.Blk1}[blk%2])
}

// change commits new data of blocks.
func (w *world) change(f zodb.Oid, blks ...int) zodb.Tid {
	w.t.Helper()
	return w.commit(func(tx *zgen.Tx) {
		for _, blk := range blks {
			w.write(tx, f, blk)
		}
	})
}

// commit commits and, with a server, waits for the line of that in zhead.
func (w *world) commit(fn func(*zgen.Tx)) zodb.Tid {
	w.t.Helper()
	tx := w.db.Begin()
	fn(tx)
	tid, err := tx.Commit()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.srv != nil {
		w.zh.expect(tid.String())
	}
	return tid
}

// data is what block blk holds as of at.
func (w *world) data(f zodb.Oid, blk int, at zodb.Tid) []byte {
	return w.db.Data(f, zdata.Blk(blk), at)
}

// rev is the revision that a pin of the block for a view as of at must name.
func (w *world) rev(f zodb.Oid, blk int, at zodb.Tid) zodb.Tid {
	return max(w.t0, w.db.BlkRevAt(f, zdata.Blk(blk), at))
}

// lookup makes a file known to the server.
func (w *world) lookup(f zodb.Oid) {
	w.t.Helper()
	if _, err := os.Stat(w.at(headFile(f))); err != nil {
		w.t.Fatal(err)
	}
}

// touch reads one byte of each block through head, without read-ahead, and checks it.
func (w *world) touch(f zodb.Oid, blks ...int) {
	w.t.Helper()
	m := w.mmap(headFile(f), 1)
	defer m.close()
	for _, blk := range blks {
		m.grow(blk + 1)
		if got, want := m.readByte(blk), w.data(f, blk, w.db.Head())[0]; got != want {
			w.t.Fatalf("block %d begins with %d, want %d", blk, got, want)
		}
	}
}

// stats returns .wcfs/stats.
func (w *world) stats() map[string]int {
	w.t.Helper()
	text, err := os.ReadFile(w.at(".wcfs/stats"))
	if err != nil {
		w.t.Fatal(err)
	}
	m := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, val, ok := strings.Cut(line, "\t: ")
		n, err := strconv.Atoi(strings.TrimSuffix(val, "\n"))
		if !ok || err != nil || !strings.HasSuffix(line, "\n") {
			w.t.Fatalf("line of stats: %q", line)
		}
		m[name] = n
	}
	return m
}

// mapping is a file mapped as existing clients do: read-only, shared, without read-ahead.
type mapping struct {
	t    *testing.T
	fd   int
	mem  []byte
	sink int // a file in memory, to which the kernel copies from mem
}

func (w *world) mmap(rel string, blks int) *mapping {
	w.t.Helper()
	m := &mapping{t: w.t, fd: -1, sink: -1}
	var err error
	if m.fd, err = unix.Open(w.at(rel), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		w.t.Fatalf("open %s: %v", rel, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil { // the kernel learns of a new size when somebody asks
		w.t.Fatal(err)
	}
	if m.sink, err = unix.MemfdCreate("sink", unix.MFD_CLOEXEC); err != nil {
		w.t.Fatal(err)
	}
	m.grow(blks)
	w.t.Cleanup(m.close)
	return m
}

// grow maps at least so many blocks.
func (m *mapping) grow(blks int) {
	m.t.Helper()
	if len(m.mem) >= blks*blksize {
		return
	}
	if m.mem != nil {
		unix.Munmap(m.mem)
	}
	var err error
	if m.mem, err = unix.Mmap(m.fd, 0, blks*blksize, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Madvise(m.mem, unix.MADV_RANDOM); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mapping) close() {
	if m.fd < 0 {
		return
	}
	unix.Munmap(m.mem)
	unix.Close(m.fd)
	unix.Close(m.sink)
	m.fd = -1
}

// copy has the kernel copy from the mapping, page by page; what would be SIGBUS is EFAULT.
func (m *mapping) copy(off, n int) ([]byte, error) {
	p := make([]byte, 0, n)
	for len(p) < n {
		k := min(n-len(p), page)
		if _, err := unix.Pwrite(m.sink, m.mem[off+len(p):off+len(p)+k], 0); err != nil {
			return nil, err
		}
		buf := make([]byte, k)
		if _, err := unix.Pread(m.sink, buf, 0); err != nil {
			return nil, err
		}
		p = append(p, buf...)
	}
	return p, nil
}

func (m *mapping) read(blk int) []byte {
	m.t.Helper()
	p, err := m.copy(blk*blksize, blksize)
	if err != nil {
		m.t.Fatalf("access of block %d: %v", blk, err)
	}
	return p
}

func (m *mapping) readByte(blk int) byte {
	m.t.Helper()
	p, err := m.copy(blk*blksize, 1)
	if err != nil {
		m.t.Fatalf("access of block %d: %v", blk, err)
	}
	return p[0]
}

// check reads whole blocks, which must be as of at.
func (w *world) check(m *mapping, f zodb.Oid, at zodb.Tid, blks ...int) {
	w.t.Helper()
	for _, blk := range blks {
		if !bytes.Equal(m.read(blk), w.data(f, blk, at)) {
			w.t.Fatalf("block %d is not as of @%s", blk, at)
		}
	}
}

// cached tells for each block whether its pages are in the page cache: 1, 0, or p for some of them.
func (m *mapping) cached() string {
	m.t.Helper()
	vec := make([]byte, len(m.mem)/page)
	if err := mincore(m.mem, vec); err != nil {
		m.t.Fatal(err)
	}
	var s strings.Builder
	for blk := range len(m.mem) / blksize {
		n := 0
		for _, v := range vec[blk*blksize/page : (blk+1)*blksize/page] {
			n += int(v & 1)
		}
		switch n {
		case 0:
			s.WriteByte('0')
		case blksize / page:
			s.WriteByte('1')
		default:
			s.WriteByte('p')
		}
	}
	return s.String()
}

func (m *mapping) expectCached(want, when string) {
	m.t.Helper()
	if got := m.cached(); got != want {
		m.t.Errorf("%s: blocks in the page cache: %s, want %s", when, got, want)
	}
}

func (w *world) size(f zodb.Oid) int64 {
	w.t.Helper()
	st, err := os.Stat(w.at(headFile(f)))
	if err != nil {
		w.t.Fatal(err)
	}
	return st.Size()
}

func (w *world) rss() string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.srv.Cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "?"
}
