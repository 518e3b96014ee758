package client_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/output"
	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// each runs a test for every client, over head and over bases.
func each(t *testing.T, test func(t *testing.T, kind, mode string, looks []string)) {
	for _, mode := range []string{"open", "base"} {
		for _, c := range all {
			t.Run(c.kind+"/"+mode, func(t *testing.T) { test(t, c.kind, mode, c.looks) })
		}
	}
}

// A read, or a fault, that makes the server pin the block for the very client whose thread waits: with the
// GIL held, with one processor and garbage being collected.
func TestOwnPin(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks, "--pintimeout=20s")
	each(t, func(t *testing.T, kind, mode string, looks []string) {
		for _, how := range looks {
			if kind == "gomap" && how == "map" {
				continue // what Bytes says it cannot do is not asked for
			}
			at := w.db.Head()
			p := start(t, kind)
			p.must(t, "%s %s %s %s", mode, w.mnt, w.f, at)
			head := w.write(1, kind[:1]+mode+how[:1])
			wait := start(t, "c")
			wait.must(t, "open %s %s %s", w.mnt, w.f, head) // so the server has it; it reads nothing
			if got, want := p.must(t, "%s", how), w.sums(w.f, at); got != want {
				t.Errorf("%s:\n got %s\nwant %s", how, got, want)
			}
			if got := p.must(t, "pins"); mode == "open" && kind != "pyread" && got != "ok 1" {
				t.Errorf("%s: pins: %s", how, got)
			}
			p.must(t, "close")
			wait.must(t, "close")
		}
	})
	if n := w.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
}

// What cannot be opened is an error that says why, and the client goes on.
func TestRefused(t *testing.T) {
	w := newWorld(t, 8192, nil)
	old := w.db.Head() - 1
	each(t, func(t *testing.T, kind, mode string, _ []string) {
		p := start(t, kind)
		for _, c := range []struct{ mnt, oid, at, why string }{
			{w.mnt, "0000000000000000", "0000000000000000", "no such ZBigFile|no ZBigFile|Invalid argument"}, // the root object
			{w.mnt, "00000000000fffff", "0000000000000000", "no such ZBigFile|no ZBigFile|Invalid argument"},
			{t.TempDir(), w.f.String(), "0000000000000000", "no wcfs|No such file"},
			{w.mnt + "/nowhere", w.f.String(), "0000000000000000", "o such file"},
			{w.mnt, w.f.String(), old.String(), "too far away back|file epoch detected|older than|no such ZBigFile|no ZBigFile|Invalid argument"},
		} {
			got := p.may(t, "%s %s %s %s", mode, c.mnt, c.oid, c.at)
			says := func(why string) bool { return strings.Contains(got, why) }
			if !strings.HasPrefix(got, "error ") || !slices.ContainsFunc(strings.Split(c.why, "|"), says) {
				t.Errorf("%v: %q", c, got)
			}
		}
		p.must(t, "%s %s %s 0000000000000000", mode, w.mnt, w.f)
		p.must(t, "read")
		p.must(t, "close")
	})
}

// Case db/29: clients of an earlier server come back at the tid they had.
func TestBeforeStart(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at0 := w.db.Head()
	w.write(1, "later")
	w.restart()
	for _, kind := range []string{"go", "c", "py", "pyread"} {
		p := start(t, kind)
		p.must(t, "open %s %s %s", w.mnt, w.f, at0)
		if got := p.must(t, "read"); got != w.sums(w.f, at0) {
			t.Errorf("%s: %s", kind, got)
		}
		w.write(0, kind)
		if got := p.must(t, "read"); got != w.sums(w.f, at0) {
			t.Errorf("%s, after a commit: %s", kind, got)
		}
	}
}

// A revision from longer before the server's start than the retention is refused, where there are pins.
func TestTooOld(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks, "--retention", "1ms")
	at0 := w.db.Head()
	w.write(1, "later")
	w.restart()
	for _, kind := range []string{"go", "c", "py"} {
		if got := start(t, kind).may(t, "open %s %s %s", w.mnt, w.f, at0); !strings.Contains(got, "too far away back from head/at") {
			t.Errorf("%s: %s", kind, got)
		}
	}
	p := start(t, "pyread") // has no need of pins
	p.must(t, "open %s %s %s", w.mnt, w.f, at0)
	if got := p.must(t, "read"); got != w.sums(w.f, at0) {
		t.Errorf("pyread: %s", got)
	}
}

// Files without data, and with blocks that no kernel knows the size of or can map.
func TestOddFiles(t *testing.T) {
	for _, blksize := range []int64{5000, 12288} {
		t.Run(fmt.Sprint(blksize), func(t *testing.T) {
			w := newWorld(t, blksize, nil)
			each(t, func(t *testing.T, kind, mode string, looks []string) {
				if kind == "gomap" && blksize == 5000 {
					if got := start(t, kind).may(t, "%s %s %s 0000000000000000", mode, w.mnt, w.f); !strings.Contains(got, "no whole pages") {
						t.Errorf("it is mapped: %s", got)
					}
					return
				}
				at := w.commit(func(tx *zgen.Tx) { tx.Truncate(w.f, 0) })
				p := start(t, kind)
				look := func(at zodb.Tid) {
					t.Helper()
					for _, how := range looks {
						got, want := p.may(t, "%s", how), w.sums(w.f, at)
						if how == "map" && blksize == 5000 && strings.HasSuffix(got, "mapped") || strings.Contains(got, "cannot be mapped") {
							continue
						}
						if got != want {
							t.Errorf("%s @%s:\n got %s\nwant %s", how, at, got, want)
						}
					}
				}
				p.must(t, "%s %s %s %s", mode, w.mnt, w.f, at)
				look(at) // empty
				at = w.commit(func(tx *zgen.Tx) { threeBlocks(tx, w.f) })
				p.must(t, "resync %s", at)
				look(at)
				head := w.write(1, "changed")
				look(at)
				p.must(t, "resync %s", head)
				look(head)
				p.must(t, "close")
			})
		})
	}
}

// A file that becomes shorter, and long again, under a view that still has its end.
func TestShrink(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	each(t, func(t *testing.T, kind, mode string, looks []string) {
		at0 := w.commit(func(tx *zgen.Tx) { threeBlocks(tx, w.f) })
		p := start(t, kind)
		p.must(t, "%s %s %s %s", mode, w.mnt, w.f, at0)
		look := func(at zodb.Tid, lossy bool) {
			t.Helper()
			for _, how := range looks {
				got, want := p.may(t, "%s", how), w.sums(w.f, at)
				if fault := got == "sigbus" || strings.HasPrefix(got, "error "); lossy && how == "map" && fault {
					continue // said in wcfs.h
				}
				if got != want {
					t.Errorf("%s @%s:\n got %s\nwant %s", how, at, got, want)
				}
			}
		}
		look(at0, false)
		at1 := w.commit(func(tx *zgen.Tx) { tx.Truncate(w.f, 1) })
		other := start(t, "c")
		other.must(t, "open %s %s %s", w.mnt, w.f, at1)
		other.must(t, "map")
		if kind != "py" || mode == "base" { // whom SIGBUS would end
			look(at0, mode == "open")
		} else if got := p.must(t, "read"); got != w.sums(w.f, at0) {
			t.Errorf("read: %s", got)
		}
		at2 := w.commit(func(tx *zgen.Tx) { fill(tx, w.db, w.f, 2, "long again") })
		other.must(t, "resync %s", at2)
		other.must(t, "map")
		look(at0, mode == "open")
		p.must(t, "resync %s", at1)
		look(at1, false)
		p.must(t, "resync %s", at2)
		look(at2, false)
		p.must(t, "close")
	})
}

// A client that ends its view while a pin is out does no wrong.
func TestCloseWithPinOut(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	each(t, func(t *testing.T, kind, mode string, _ []string) {
		if mode == "base" || kind == "pyread" {
			return // a base's reads wait for its own domain only: the same wait
		}
		at := w.db.Head()
		p, reader := start(t, kind), start(t, "c")
		p.must(t, "open %s %s %s", w.mnt, w.f, at)
		head := w.write(1, kind)
		reader.must(t, "open %s %s %s", w.mnt, w.f, head)
		before := w.stat("pin")
		p.cmd.Process.Signal(syscall.SIGSTOP)
		done := make(chan string, 1)
		go func() {
			got, err := reader.ask("read")
			done <- fmt.Sprint(got, err)
		}()
		served.Eventually(w.t, "the pin", func() bool { return w.stat("pin") > before })
		if _, err := fmt.Fprintln(p.in, "close"); err != nil {
			t.Fatal(err)
		}
		p.cmd.Process.Signal(syscall.SIGCONT)
		if got, err := p.out.ReadString('\n'); got != "ok\n" {
			t.Errorf("close: %q, %v", got, err)
		}
		if got, want := <-done, w.sums(w.f, head)+"<nil>"; got != want {
			t.Errorf("the reader got %s, want %s", got, want)
		}
		p.must(t, "open %s %s %s", w.mnt, w.f, at) // it lives
		p.must(t, "close")
	})
	if n := w.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
}

// The server is killed under clients: errors and SIGBUS from then on, or bytes that are right.
func TestServerKilled(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at := w.db.Head()
	type one struct {
		p     *proc
		looks []string
	}
	var ps []one
	for _, mode := range []string{"open", "base"} {
		for _, c := range all {
			p := start(t, c.kind)
			p.must(t, "%s %s %s %s", mode, w.mnt, w.f, at)
			for _, how := range c.looks {
				p.must(t, "%s", how)
			}
			ps = append(ps, one{p, c.looks})
		}
	}
	w.srv.Kill()
	want := w.sums(w.f, at)
	for _, c := range ps {
		for _, how := range c.looks {
			if c.p.name == "py" && how == "map" {
				continue // whom SIGBUS ends
			}
			served.Eventually(w.t, "the end of "+c.p.name, func() bool {
				got := c.p.may(t, "%s", how)
				if strings.HasPrefix(got, "ok ") && got != want {
					t.Errorf("%s client, %s: %s; want %s", c.p.name, how, got, want)
				}
				return got == "sigbus" || strings.HasPrefix(got, "error ") || c.p.name == "pyread"
			})
		}
		if got := c.p.may(t, "resync %s", at); !strings.HasPrefix(got, "error ") {
			t.Errorf("%s client: resync: %s", c.p.name, got)
		}
		c.p.must(t, "close")
	}
}

// A forked child has no part in a view.
func TestFork(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at := w.db.Head()
	p := start(t, "c")
	p.must(t, "open %s %s %s", w.mnt, w.f, at)
	w.write(1, "changed")
	p.must(t, "map") // pins one
	if got := p.must(t, "fork"); got != fmt.Sprintf("ok %d", syscall.SIGSEGV) {
		t.Errorf("fork: %s", got)
	}
	w.write(0, "changed too")
	if got := p.must(t, "map"); got != w.sums(w.f, at) {
		t.Errorf("after the child's end: %s", got)
	}
}

// An array of numpy shows the revision that it was taken at as long as it lives.
func TestArraysLive(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at0 := w.db.Head()
	p := start(t, "py")
	p.must(t, "open %s %s %s", w.mnt, w.f, at0)
	p.must(t, "keep")
	at1 := w.write(1, "changed")
	p.must(t, "resync %s", at1)
	for range 2 {
		if got := p.must(t, "map"); got != w.sums(w.f, at1) {
			t.Errorf("the view: %s", got)
		}
		if got := p.must(t, "kept"); got != w.sums(w.f, at0) {
			t.Errorf("the array: %s", got)
		}
		at1 = w.write(0, "changed")
		p.must(t, "resync %s", at1)
	}
	p.must(t, "close")
	if got := p.must(t, "kept"); got != w.sums(w.f, at0) {
		t.Errorf("the array after close: %s", got)
	}
	p.must(t, "drop")
	served.Eventually(w.t, "the end of all links", func() bool { return w.stat("WatchLink") == 0 })
}

// wcfs watch and wcfs cat --at.
func TestCommands(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	at0 := w.db.Head()
	cmd := exec.Command(built.wcfs, "watch", w.mnt, w.f.String(), "--at", at0.String())
	var out output.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	served.Eventually(w.t, "the watch", func() bool { return strings.Contains(out.String(), "@"+at0.String()) })
	at1 := w.write(1, "changed")
	p := start(t, "c")
	p.must(t, "open %s %s %s", w.mnt, w.f, at1)
	p.must(t, "map")
	pin := fmt.Sprintf("pin %s #1 @", w.f)
	served.Eventually(w.t, "the pin", func() bool { return strings.Contains(out.String(), pin) })
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("watch: %v\n%s", err, out.String())
	}
	for _, at := range []zodb.Tid{at0, at1} {
		got, err := exec.Command(built.wcfs, "cat", "--at", at.String(), w.mnt, w.f.String()).Output()
		var want []byte
		for blk := range 3 {
			want = append(want, w.db.Data(w.f, zdata.Blk(blk), at)...)
		}
		if err != nil || string(got) != string(want) {
			t.Errorf("cat --at %s: %d bytes, want %d, %v", at, len(got), len(want), err)
		}
	}
	if out, err := exec.Command(built.wcfs, "cat", "--at", "sometime", w.mnt, w.f.String()).CombinedOutput(); err == nil || !strings.Contains(string(out), "@sometime is no revision") {
		t.Errorf("cat at no revision: %v, %s", err, out)
	}
	if out, err := exec.Command(built.wcfs, "watch", t.TempDir(), w.f.String()).CombinedOutput(); err == nil || !strings.Contains(string(out), "no wcfs") {
		t.Errorf("watch of nothing: %v, %s", err, out)
	}

	out.Reset()
	cmd = exec.Command(built.wcfs, "watch", w.mnt, w.f.String())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	served.Eventually(w.t, "the watch", func() bool { return strings.Contains(out.String(), "watch "+w.f.String()) })
	w.srv.Kill()
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "view is lost") {
		t.Errorf("watch of a server that was killed: %v\n%s", err, out.String())
	}
}

// The C client's table of pins.
func TestPinTable(t *testing.T) {
	bin, seed := filepath.Join(built.dir, "testpins"), fmt.Sprint(time.Now().UnixNano())
	build := exec.Command("gcc", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function", "-O2", "-g", "-fsanitize=address,undefined",
		"-I", filepath.Join(py.Root(), "zcore/client/c"), "-pthread", "-o", bin, "prog/testpins.c")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command(bin, seed)
	run.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0")
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("seed %s: %v\n%s", seed, err, out)
	}
}
