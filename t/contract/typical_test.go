package contract

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/isolation/dropcaches"
	"wcfs/t/py"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// Mapped as the tests of existing clients do: blocks of 2 MiB, far beyond the end, pages locked as they
// come, the first half of each block for readers in order and the second for random ones, so that the
// kernel's read-ahead is as it is by default and yet ends within the block.
func TestCacheOfLockedMappings(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	const big, blks = 2 << 20, 8
	w := newWorld(t)
	var f zodb.Oid
	put := func(n byte, list ...int) zodb.Tid {
		return w.commit(func(tx *zgen.Tx) {
			if f == 0 {
				f = tx.NewFile(big)
			}
			for _, blk := range list {
				tx.Write(f, zdata.Blk(blk), []byte(strings.Repeat(string('a'+rune(n)), 1000+blk)), []zgen.Kind{zgen.Blk0, zgen.Blk1}[blk%2])
			}
		})
	}
	lock := func(rel string) *mapping {
		m := w.mmap(rel, blks*big/blksize)
		if _, _, e := unix.Syscall(unix.SYS_MLOCK2, mem(m), uintptr(len(m.mem)), unix.MLOCK_ONFAULT); e != 0 {
			t.Fatal(e)
		}
		for blk := range blks {
			half := m.mem[blk*big:][:big/2]
			if err := unix.Madvise(half, unix.MADV_SEQUENTIAL); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	cached := func(m *mapping, want, when string) {
		t.Helper()
		got, per := m.cached(), big/blksize
		for blk := range blks {
			part := got[blk*per:][:per]
			if c := want[blk]; c == 'p' && !strings.ContainsAny(part, "1p") || c != 'p' && strings.Trim(part, string(c)) != "" {
				t.Errorf("%s: block %d: %s, want %c of %s", when, blk, part, c, want)
			}
		}
	}
	read := func(m *mapping, at zodb.Tid, list ...int) {
		t.Helper()
		for _, blk := range list {
			if got, err := m.copy(blk*big, big); err != nil || string(got) != string(w.db.Data(f, zdata.Blk(blk), at)) {
				t.Fatalf("block %d is not as of @%s (%v)", blk, at, err)
			}
		}
	}
	put(0)
	w.start()
	m := lock(headFile(f))
	if n := w.size(f); n != 0 {
		t.Fatalf("an empty file has %d bytes", n)
	}
	at1 := put(1, 2)
	if n := w.size(f); n != 3*big {
		t.Fatalf("the size is %d", n)
	}
	cached(m, "00000000", "at first")
	if _, err := m.copy(2*big, 1); err != nil {
		t.Fatal(err)
	}
	cached(m, "00p00000", "after a byte of one block")
	read(m, at1, 0, 1, 2)
	cached(m, "11100000", "after reads")
	at2 := put(2, 2, 3, 5)
	w.size(f)
	cached(m, "11000000", "after a commit")
	read(m, at2, 2, 3)
	cached(m, "11110000", "after reads")
	rev1 := lock(revFile(at1, f))
	cached(rev1, "00100000", "the revision before")
	rev2 := lock(revFile(at2, f))
	at3 := put(3, 0, 2, 5)
	cached(m, "01010000", "after another commit")
	again := lock(headFile(f))
	cached(again, "01010000", "opened anew")
	again.close()
	cached(m, "01010000", "closed again")
	read(m, at3, 0, 1, 2, 3)
	cached(m, "11110000", "after reads")
	cached(rev2, "00100000", "the revision between") // block 0 is kept under the one that made it a hole
	read(rev2, at2, 0, 1, 2, 3, 5)
	cached(rev2, "11110100", "after reads of it")
	cached(m, "11110000", "after reads of a revision")
	read(rev1, at1, 0, 1, 2)
}

// A tid need not be that of a transaction; streams may be read in pieces, and written by who cannot read.
func TestOddButRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(3)
	w.start()
	at0 := w.db.Head()
	w.touch(f, 0, 1)
	at1 := w.change(f, 0)
	w.touch(f, 0)
	at2 := w.change(f, 0, 1)
	w.touch(f, 0, 1)
	l := w.link()
	l.watch(f, at1+77, map[int]zodb.Tid{0: at1, 1: at0})
	w.check(w.mmap(revFile(at1+77, f), 3), f, at1, 0, 1, 2)
	l.watch(f, at2-1, nil)
	l.watch(f, at2, map[int]zodb.Tid{0: toHead, 1: toHead})
	l.bye()

	// pieces of one byte
	fd, err := unix.Open(w.at("head/watch"), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if n, err := unix.Read(fd, nil); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
	if _, err := unix.Seek(fd, 0, 0); err != unix.ESPIPE {
		t.Errorf("lseek: %v, want ESPIPE", err)
	}
	if _, err := unix.Write(fd, fmt.Appendf(nil, "1 %s\n3 x\n5 bye\n", watchMsg(f, at2))); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for one := make([]byte, 1); ; {
		n, err := unix.Read(fd, one)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got.Write(one)
	}
	if s := got.String(); !strings.Contains(s, "3 error bad watch: not a watch request: \"x\"\n") || strings.Count(s, "\n") > 2 {
		t.Errorf("read in pieces: %q", s)
	}

	// write only: nothing can be read, a request is done all the same
	wo, err := unix.Open(w.at("head/watch"), unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(wo, make([]byte, 10)); err != unix.EBADF {
		t.Errorf("read of a link opened for writing: %v", err)
	}
	if _, err := unix.Write(wo, []byte("1 "+watchMsg(f, at2)+"\n")); err != nil {
		t.Error(err)
	}
	eventually(t, "a watch", func() bool { return w.stats()["Watch"] == 1 })
	unix.Close(wo)
	eventually(t, "no watch", func() bool { s := w.stats(); return s["Watch"] == 0 && s["PinnedBlk"] == 0 })
	for _, path := range []string{".wcfs/zurl", ".wcfs/stats", "head/at", headFile(f), revFile(at1, f), ".wcfs/debug/zhead"} {
		if _, err := unix.Open(w.at(path), unix.O_RDWR, 0); err != unix.EROFS {
			t.Errorf("open of %s for writing: %v, want EROFS", path, err)
		}
	}
}

// A petabyte: what is there is found, the rest is zeros, and pins name blocks whose number is large.
func TestHugeFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	const last = 1<<36 - 1
	w.commit(func(tx *zgen.Tx) { tx.Write(f, last, []byte("the last"), zgen.Blk0) })
	w.start()
	at := w.db.Head()
	if n := w.size(f); n != (last+1)*blksize {
		t.Fatalf("the size is %d", n)
	}
	fd, err := unix.Open(w.at(headFile(f)), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	text := func(off int64) string {
		p := make([]byte, 20)
		n, err := unix.Pread(fd, p, off)
		return fmt.Sprintf("%q %v", strings.TrimRight(string(p[:n]), "\x00"), err)
	}
	if got := text(last * blksize); got != `"the last" <nil>` {
		t.Error(got)
	}
	if got := text(1 << 40); got != `"" <nil>` {
		t.Error(got)
	}
	l := w.link()
	l.watch(f, at, nil)
	w.commit(func(tx *zgen.Tx) { tx.Write(f, last, []byte("new"), zgen.Blk0) })
	read := inBackground(func() string { return text(last * blksize) })
	l.ack(l.pins(f, map[int]zodb.Tid{last: at}))
	if got := await(t, "the read", read); got != `"new" <nil>` {
		t.Error(got)
	}
	l.bye()
}

// The process that opened a link is gone, and a child of it still has the link: nobody is killed, nobody
// waits for longer than for others, and the child is told that it is over.
func TestLinkOfAnOrphan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	w.start(short)
	w.touch(f, 0)
	w.change(f, 0)
	program := `
import os, sys
link = os.open(sys.argv[1], os.O_RDWR)
os.write(link, sys.argv[2].encode() + b"\n")
assert os.read(link, 100) == b"1 ok\n"
if os.fork():
    os._exit(0)
print("ready", flush=True)
while True:
    p = os.read(link, 4096)
    print(repr(p), flush=True)
    if not p:
        break
`
	cmd := exec.Command(py.Command(t, py.Py5, "").Path, "-c", program, w.at("head/watch"), watchMsg1(f, w.db.Head()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	if s := await(t, "the child", lines); s != "ready" {
		t.Fatal(s)
	}
	at := w.db.Head()
	w.change(f, 0)
	began := time.Now()
	done := w.access(w.mmap(headFile(f), 1), 0)
	if s, want := await(t, "the pin", lines), fmt.Sprintf(`b'2 pin %s #0 @%s\n'`, f, at); s != want {
		t.Errorf("the child got %s, want %s", s, want)
	}
	if err := await(t, "the read", done); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*pinTimeout+slack {
		t.Errorf("the read took %v", took)
	}
	if s, want := await(t, "the end", lines), fmt.Sprintf(`b'0 fatal: pin #0 @%s: no reply within 10s\n'`, at); s != want {
		t.Errorf("the child got %s, want %s", s, want)
	}
	if s := await(t, "the end", lines); s != "b''" {
		t.Errorf("the child got %s, want the end", s)
	}
	cmd.Wait()
	if s := w.stats(); s["pinkill"] != 0 || s["Watch"] != 0 {
		t.Errorf("stats: %v", s)
	}
}

func watchMsg1(f zodb.Oid, at zodb.Tid) string { return "1 " + watchMsg(f, at) }

// Told to end while a client waits for a pin, the server ends at once all the same.
func TestEndWithPinsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start("-pintimeout=60s") // longer than the end may take
	at := w.db.Head()
	w.touch(f, 0)
	l := w.link()
	l.watch(f, at, nil)
	w.change(f, 0)
	done := w.access(w.mmap(headFile(f), 2), 0)
	l.pins(f, map[int]zodb.Tid{0: at})
	began := time.Now()
	w.srv.Cmd.Process.Signal(syscall.SIGTERM)
	if code := w.srv.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 500*time.Millisecond+slack {
		t.Errorf("it took %v", took)
	}
	if err := await(t, "the read", done); err == nil {
		t.Error("the read that waited for a pin went well")
	}
	wantDead(t, w.mnt)
}
