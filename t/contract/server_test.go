package contract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// The server is killed while clients have files mapped and links open: whatever needs it fails, close(2)
// too; a new one over the same mount point serves as if nothing had been.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(3)
	w.start()
	at := w.db.Head()
	c := startClient(t)
	mem := c.num("map %s %d", w.at(headFile(f)), 3*blksize)
	c.num("byte %d 0", mem)
	file := c.num("open %s %d", w.at(headFile(f)), unix.O_RDONLY)
	link := c.num("open %s %d", w.at("head/watch"), unix.O_RDWR)
	c.num("write %d 1 %s", link, watchMsg(f, at))
	c.expect("1 ok", "line %d", link)
	w.srv.Kill()

	enotconn := unix.ENOTCONN.Error()
	c.expect(enotconn, "stat %s", w.at(headFile(f)))
	c.expect(enotconn, "open %s %d", w.at("head/at"), unix.O_RDONLY)
	c.expect("SIGBUS", "byte %d %d", mem, 2*blksize)
	c.expect(enotconn, "close %d", file)
	c.expect(enotconn, "close %d", link)
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || !strings.Contains(string(mounts), " "+w.mnt+" fuse.wcfs ") {
		t.Errorf("the mount entry is gone (%v)", err)
	}
	if err := unix.Unmount(w.mnt, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	w.zh.close()
	w.start()
	c.expect("SIGBUS", "byte %d %d", mem, blksize) // the old mapping is of the old server
	w.change(f, 0)
	w.check(w.mmap(headFile(f), 3), f, w.db.Head(), 0, 1, 2)
	l := w.link()
	l.watch(f, w.db.Head(), nil)
	l.bye()
	w.zh.close()
}

// damaged is how long it takes with a damaged file: for 5 s it is hoped that somebody is in the midst of
// repairing or replacing it, then there are 3 s to fail all accesses.
const damaged = 8 * time.Second

// When the database cannot be followed any more, nobody gets stale data.
func TestDatabaseFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		limit time.Duration
		fail  func(w *world, f zodb.Oid)
	}{
		{"truncated", damaged, func(w *world, _ zodb.Oid) {
			if err := os.Truncate(w.path, 100); err != nil {
				t.Fatal(err)
			}
		}},
		{"bigfile changed", 3 * time.Second, func(w *world, f zodb.Oid) {
			tx := w.db.Begin()
			tx.ResetFile(f, 2*blksize)
			if _, err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}},
		{"garbage at its end", damaged, func(w *world, _ zodb.Oid) {
			file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			junk := make([]byte, 4096)
			for i := range junk {
				junk[i] = byte(i*7 + 1)
			}
			if _, err := file.Write(junk); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testDatabaseFails(t, c.limit, c.fail)
		})
	}
}

func testDatabaseFails(t *testing.T, limit time.Duration, fail func(*world, zodb.Oid)) {
	w := newWorld(t)
	f := w.file(3)
	w.start("-pintimeout=60s") // the pin below is never acknowledged
	at := w.db.Head()
	l := w.link()
	w.touch(f, 0)
	l.watch(f, at, nil)
	w.change(f, 1)
	m, cached := w.mmap(headFile(f), 3), w.mmap(headFile(f), 3)
	cached.read(0)
	waiting := w.access(m, 1) // an access that waits for a pin when it happens
	l.pins(f, map[int]zodb.Tid{1: at})
	began := time.Now()
	fail(w, f)
	eventually(t, "accesses to fail", func() bool {
		_, err := os.Stat(w.at(headFile(f)))
		return errors.Is(err, unix.ENOTCONN)
	})
	err := await(t, "the access that waited", waiting)
	if err == nil {
		t.Error("the access that waited for a pin went well")
	}
	l.expect(unix.ENOTCONN.Error())
	for _, path := range []string{"head/at", ".wcfs/zurl", ".wcfs/stats", revFile(at, f)} {
		if _, err := os.ReadFile(w.at(path)); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("read of %s: %v, want ENOTCONN", path, err)
		}
	}
	if _, err := unix.Write(l.fd, []byte("1 bye\n")); err != unix.ENOTCONN {
		t.Errorf("write to the link: %v", err)
	}
	eventually(t, "cached pages to be gone", func() bool { _, err := cached.copy(0, 1); return err != nil })
	if took := time.Since(began); took > limit+slack {
		t.Errorf("it took %v", took)
	}
	for _, want := range []string{`msg="zwatcher failed" cause=`, `msg="switching filesystem to EIO mode"`} {
		eventually(t, "the log to have once "+want, func() bool { return strings.Count(w.srv.Log.String(), want) == 1 })
	}
	if mounts, _ := os.ReadFile("/proc/mounts"); !strings.Contains(string(mounts), " "+w.mnt+" fuse.wcfs ") {
		t.Error("the mount entry is gone")
	}
}

// zhead names every commit, however fast they come, to every reader; head/at and stats never go back.
func TestZheadSkipsNone(t *testing.T) {
	t.Parallel()
	const commits = 500
	w := newWorld(t)
	f := w.file(4)
	w.start()
	second := openStream(t, w.at(".wcfs/debug/zhead"), unix.O_RDONLY)
	w.touch(f, 0, 1)
	before := w.stats()
	srv := w.srv
	w.srv = nil // commit does not wait
	written := inBackground(func() error {
		for i := range commits {
			tx := w.db.Begin()
			w.write(tx, f, i%4)
			if _, err := tx.Commit(); err != nil {
				return err
			}
		}
		return nil
	})
	var last string
	names := func(m map[string]int) string { return fmt.Sprint(len(m), m["BigFile"]) }
	for n := 0; n < commits; {
		line := w.zh.line()
		n++
		if at := read(t, w.at("head/at")); at < line || at < last {
			t.Fatalf("head/at is %s after zhead's line %s, and %s before", at, line, last)
		} else {
			last = at
		}
		if n%20 == 0 {
			now := w.stats()
			for _, name := range []string{"pin", "pinkill"} {
				if now[name] < before[name] {
					t.Errorf("%s went from %d to %d", name, before[name], now[name])
				}
			}
			for name := range before {
				if _, ok := now[name]; !ok || names(now) != names(before) {
					t.Fatalf("the set of stats changed: %v, %v", before, now)
				}
			}
			before = now
		}
		if got, want := line, w.db.Tids()[n].String(); got != want {
			t.Fatalf("line %d of zhead is %s, want %s", n, got, want)
		}
		if got := second.line(); got != line {
			t.Fatalf("line %d of another reader of zhead is %s, want %s", n, got, line)
		}
	}
	if err := await(t, "the writer", written); err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	for _, name := range []string{"BigFile", "RevHead", "ZHeadLink", "WatchLink", "Watch", "PinnedBlk", "pin", "pinkill"} {
		if _, ok := before[name]; !ok {
			t.Errorf("stats have no %s", name)
		}
	}
	second.close()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// As the ends of existing clients' tests: fusermount -u and SIGTERM, with nothing left of the server. The mount is in
// use: it stays, dead, since existing clients kill those who use it while it is still there.
func TestEnds(t *testing.T) {
	t.Parallel()
	for i := range 2 {
		w := newWorld(t)
		f := w.file(1)
		w.start()
		w.touch(f, 0)
		l := w.link()
		l.watch(f, w.db.Head(), nil)
		l.bye()
		if out, err := exec.Command("fusermount3", "-u", w.mnt).CombinedOutput(); err == nil {
			t.Errorf("fusermount -u of a mount that is in use: %s", out) // zhead is open
		}
		c := startClient(t)
		c.expect("0", "stat %s", w.at(headFile(f)))
		if i == 0 {
			w.srv.Cmd.Process.Signal(syscall.SIGTERM)
		} else {
			w.srv.Cmd.Process.Signal(syscall.SIGINT)
		}
		if code := w.srv.Wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		wantDead(t, w.mnt)
		w.zh.close()
	}
}

// wantDead: dir is still mounted, and nobody serves it.
func wantDead(t *testing.T, dir string) {
	t.Helper()
	if mounts := read(t, "/proc/mounts"); !strings.Contains(mounts, " "+dir+" ") {
		t.Error("the mount is gone")
	}
	if _, err := os.Stat(dir + "/head/at"); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("the mount: %v, want ENOTCONN", err)
	}
}

// A thousand links of one process, each with several files; with WCFS_SOAK a hundred files.
func TestManyLinks(t *testing.T) {
	t.Parallel()
	links, files := 1000, 5
	if os.Getenv("WCFS_SOAK") != "" {
		files = 100
	}
	w := newWorld(t)
	var oids []zodb.Oid
	w.commit(func(tx *zgen.Tx) {
		for range files {
			f := tx.NewFile(blksize)
			w.write(tx, f, 0)
			oids = append(oids, f)
		}
	})
	w.start()
	at := w.db.Head()
	for _, f := range oids {
		w.touch(f, 0)
	}
	before := w.rss()
	var ls []*stream
	for range links {
		ls = append(ls, w.link())
	}
	for _, l := range ls {
		for i, f := range oids {
			l.send(fmt.Sprintf("%d %s\n", 2*i+1, watchMsg(f, at)))
		}
	}
	for _, l := range ls {
		for range oids {
			if line := l.line(); !strings.HasSuffix(line, " ok") {
				t.Fatal(line)
			}
		}
	}
	if s := w.stats(); s["WatchLink"] != links || s["Watch"] != links*files {
		t.Errorf("stats: %v", s)
	}
	w.change(oids[0], 0)
	done := w.access(w.mmap(headFile(oids[0]), 1), 0)
	for _, l := range ls {
		l.ack(l.pins(oids[0], map[int]zodb.Tid{0: at}))
	}
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d links with %d files each: the server's memory went from %s to %s", links, files, before, w.rss())
	for _, l := range ls {
		l.bye()
	}
	eventually(t, "links and watches to be gone", func() bool { s := w.stats(); return s["WatchLink"] == 0 && s["Watch"] == 0 })
}
