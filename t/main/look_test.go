package main_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/tree/treetest"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/record"
)

// ls, stat and cat show the same through a mount, over 9P and without a server.
func TestLook(t *testing.T) {
	zurl, db := database(t)
	man := manifest(zurl, db, false)
	mnt, sock := t.TempDir(), filepath.Join(t.TempDir(), "s")
	p := serve(t, mnt, "serve", "--mount", mnt, "--9p", "unix:"+sock, zurl)
	targets := []string{mnt, "unix:" + sock, zurl}

	var oids []string
	for _, f := range man.Files {
		oids = append(oids, f.Oid.String())
	}
	if got := strings.Fields(mustRun(t, "ls", zurl, "head/bigfile")); !slices.Equal(got, oids) {
		t.Errorf("ls finds bigfiles %q, want %q", got, oids)
	}
	for _, target := range targets {
		for _, f := range man.Files {
			for _, r := range f.Revs {
				path := "@" + r.Tid.String() + "/bigfile/" + f.Oid.String()
				if data := mustRun(t, "cat", target, path); int64(len(data)) != r.Size || !hashes([]byte(data), r) {
					t.Errorf("cat %s %s: %d bytes, or wrong ones", target, path, len(data))
				}
			}
			last := f.Revs[len(f.Revs)-1]
			if out := mustRun(t, "stat", target, "/head/bigfile/"+f.Oid.String()); !strings.Contains(out, fmt.Sprintf("size     %d\n", last.Size)) {
				t.Errorf("stat %s: %s; want size %d", target, out, last.Size)
			}
		}
		f := man.Files[0]
		whole := mustRun(t, "cat", target, "head/bigfile/"+f.Oid.String())
		if part := mustRun(t, "cat", "--offset", "8000", "--length", "9000", target, "head/bigfile/"+f.Oid.String()); part != whole[8000:17000] {
			t.Errorf("cat %s: a part of %d bytes is not what it should be", target, len(part))
		}
		if got := mustRun(t, "ls", target); got != mustRun(t, "ls", target, "/") || !strings.Contains(got, "head\n") {
			t.Errorf("ls %s without a path: %q", target, got)
		}
		if out := mustRun(t, "status", target); !strings.Contains(out, "state          ok\n") || !strings.Contains(out, man.Head.String()) {
			t.Errorf("status %s: %s", target, out)
		}
		mustRun(t, "wait", "--at", man.Head.String(), target)
		column := -1
		for line := range strings.Lines(mustRun(t, "ls", "-l", target, "head/bigfile")) {
			if at := strings.LastIndexByte(line, ' '); column >= 0 && at != column {
				t.Errorf("ls -l %s does not align: %q", target, line)
			} else {
				column = at
			}
		}
		if got := mustRun(t, "cat", target, "head/at"); got != man.Head.String() {
			t.Errorf("cat %s head/at: %q", target, got)
		}
		names := strings.Fields(mustRun(t, "ls", target, "head"))
		slices.Sort(names)
		if want := []string{"arrays", "at", "base", "bigfile", "watch", "watch9"}; !slices.Equal(names, want) {
			t.Errorf("ls %s head: %q", target, names)
		}
		mode := "-r--r--r--"
		if target == mnt {
			mode = "-r--------" // for the user who serves; --allow-other lets others in
		}
		if out := mustRun(t, "ls", "-l", target, "head/at"); !strings.HasPrefix(out, mode) || !strings.HasSuffix(out, " at\n") {
			t.Errorf("ls -l %s head/at: %q", target, out)
		}
	}
	if got := mustRun(t, "cat", "--aname", "/head", "unix:"+sock, "at"); got != man.Head.String() {
		t.Errorf("cat of at below /head: %q", got)
	}
	p.End()
}

func hashes(data []byte, r treetest.Rev) bool {
	for i, want := range r.Blocks {
		if treetest.Sum(data[int64(i)*r.Blksize:int64(i+1)*r.Blksize]) != want {
			return false
		}
	}
	return true
}

// history shows what the generator knows that it changed.
func TestHistory(t *testing.T) {
	zurl, db := database(t)
	man := manifest(zurl, db, false)
	for _, f := range man.Files {
		out := mustRun(t, "history", "--json", zurl, f.Oid.String())
		revs := slices.Clone(f.Revs)
		slices.Reverse(revs)
		for line := range strings.Lines(out) {
			var got struct {
				Tid    string
				Size   int64
				Blocks []zdata.Blk
			}
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err)
			}
			if len(revs) == 0 {
				t.Fatalf("one revision too many: %s", line)
			}
			want, _ := db.Changed(f.Oid, revs[0].Tid)
			if got.Tid != revs[0].Tid.String() || got.Size != revs[0].Size || !slices.Equal(got.Blocks, want) {
				t.Errorf("got %s want @%s, size %d, blocks %v", line, revs[0].Tid, revs[0].Size, want)
			}
			revs = revs[1:]
		}
		if len(revs) > 0 {
			t.Errorf("%d revisions are missing", len(revs))
		}
	}
	f := man.Files[0]
	table := mustRun(t, "history", "--blocks", "0-1", zurl, f.Oid.String())
	if strings.Contains(table, "#2") || !strings.Contains(table, "#0 #1") || !strings.Contains(table, f.Revs[0].Tid.String()) {
		t.Errorf("history --blocks 0-1:\n%s", table)
	}
}

// A database that ends in the middle of its last transaction is served up to the one before, wherever it
// was cut; damage is an error that names the place, and never a crash or a hang.
func TestDamage(t *testing.T) {
	zurl, db := database(t)
	man := manifest(zurl, db, false)
	path := strings.TrimPrefix(zurl, "file://")
	whole := read(t, path)
	cut := filepath.Join(t.TempDir(), "cut.fs")
	prev := man.Tids[len(man.Tids)-2]
	for _, n := range []int{1, 7, 8, 9, 100, 1000} {
		write(t, cut, whole[:len(whole)-n])
		if got := mustRun(t, "cat", "file://"+cut, "head/at"); got != prev.String() {
			t.Errorf("cut by %d: head/at is %q, want %s", n, got, prev)
		}
	}
	// a flipped byte in each part of the file
	oid := man.Files[0].Oid
	for i := 1; i < 20; i++ {
		b := []byte(whole)
		pos := len(b) * i / 20
		b[pos] ^= 0x55
		write(t, cut, string(b))
		_, stderr, code := run(t, "cat", "file://"+cut, "head/bigfile/"+oid.String())
		if code != 0 && (code != 1 || errorLines(stderr) == "" || strings.Contains(stderr, "goroutine ")) {
			t.Errorf("byte %d flipped: exit %d\n%s", pos, code, stderr)
		}
	}
}

func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	out := mustRun(t, "demo", "--every", "50ms")
	rows := 0
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && len(f[1]) == 16 && f[0][0] >= '1' && f[0][0] <= '9' {
			if _, err := zodb.ParseTid(f[1]); err == nil {
				rows++
			}
		}
	}
	if rows != 10 || !strings.Contains(out, "done: 10 commits") {
		t.Errorf("the demo shows %d commits:\n%s", rows, out)
	}
	leftNothing(t, tmp)
}

func TestDemoInterrupted(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	p := spawn(t, "demo", "--stay", "--every", "20ms")
	served.Eventually(t, "ten commits", func() bool { return strings.Contains(p.Log.String(), "10 commits shown") })
	if len(mounts(t)) == 0 {
		t.Error("nothing is mounted")
	}
	began := time.Now()
	p.Cmd.Process.Signal(syscall.SIGINT)
	p.Cmd.Process.Signal(syscall.SIGINT) // as under make, which passes it on
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > promptly() {
		t.Errorf("it took %v to end", took)
	}
	leftNothing(t, tmp)
}

func leftNothing(t *testing.T, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	for _, m := range mounts(t) {
		if strings.HasPrefix(m[1], tmp) {
			t.Errorf("left a mount: %q", m)
		}
	}
}

// db/16: ls names what it can and says which objects it could not read, and why; so does cat.
func TestListingBesideUnreadableObjects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	py3 := record.Py3()
	bigfile := py3.BigFile(4096, 9)
	if err := w.Commit(zodb.TidFromTime(time.Now()), map[zodb.Oid][]byte{
		1: bigfile, 2: append([]byte(".e"), bigfile...), 3: bigfile, 4: bigfile[:len(bigfile)-3], 9: py3.InlineTree(record.LO, nil),
	}); err != nil {
		t.Fatal(err)
	}
	zurl := "file://" + path
	stdout, stderr, code := run(t, "ls", zurl, "head/bigfile")
	if code == 0 || stdout != zodb.Oid(1).String()+"\n"+zodb.Oid(3).String()+"\n" {
		t.Errorf("ls: exit %d, %q", code, stdout)
	}
	for _, want := range []string{zodb.Oid(2).String() + ": the record is encrypted", zodb.Oid(4).String() + "@", "ends in mid-pickle"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("ls says %q; want %q in it", stderr, want)
		}
	}
	if _, stderr, code = run(t, "cat", zurl, "head/bigfile/"+zodb.Oid(2).String()); code == 0 || !strings.Contains(stderr, "encrypted") {
		t.Errorf("cat of an encrypted bigfile: exit %d, %q", code, stderr)
	}
}

// A server without a mount is stopped by its socket.
func TestStopListener(t *testing.T) {
	zurl, _ := database(t)
	sock := filepath.Join(t.TempDir(), "s")
	p := spawn(t, "serve", "--9p", "unix:"+sock, zurl)
	mustRun(t, "wait", "unix:"+sock)
	mustRun(t, "stop", "unix:"+sock)
	if code := p.Wait(); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, stderr, code := run(t, "stop", "unix:"+sock); code != 1 || !strings.Contains(stderr, "which is no wcfs") {
		t.Errorf("stop of another's socket: exit %d, %s", code, stderr)
	}
}
