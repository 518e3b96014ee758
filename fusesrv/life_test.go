package fusesrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"wcfs/t/isolation/dropcaches"
	"wcfs/t/wait"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

// wantDisconnected has everything that can be done to a mount fail with ENOTCONN. fd is a file of it.
func wantDisconnected(t *testing.T, dir string, fd int) {
	t.Helper()
	var st unix.Stat_t
	var stfs unix.Statfs_t
	buf := make([]byte, page)
	for what, err := range map[string]error{
		"stat of the root":    unix.Stat(dir, &st),
		"stat":                unix.Stat(dir+"/head/at", &st),
		"stat of a revision":  unix.Stat(dir+"/@0000000000000005", &st),
		"fstat":               unix.Fstat(fd, &st),
		"open":                second(unix.Open(dir+"/.wcfs/zurl", unix.O_RDONLY, 0)),
		"read of cached page": second(unix.Pread(fd, buf, 0)),
		"read":                second(unix.Pread(fd, buf, 8*fakeBlk)),
		"readdir":             second(os.ReadDir(dir)),
		"statfs":              unix.Statfs(dir, &stfs),
		"access":              unix.Access(dir+"/head/at", unix.R_OK),
		"mkdir":               unix.Mkdir(dir+"/new", 0o777),
		"close":               unix.Close(fd),
	} {
		if !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("%s: %v, want ENOTCONN", what, err)
		}
	}
	if m, err := findMount(dir); err != nil || m.fsType != fsType {
		t.Errorf("mount entry: %+v, %v", m, err)
	}
}

func openFile(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestSetDisconnected(t *testing.T) {
	f := mountFake(t, nil)
	b := newBlocker()
	fd := openFile(t, f.path(fileOne), unix.O_RDONLY)
	readAt(t, f.path(fileOne), 0, fakeBlk)
	know(t, f.path("@0000000000000005"))
	c := start(t, "fault", f.path(fileOne)) // with the page mapped
	c.expect("mapped")
	c.say("touch")
	c.expect("byte 17")
	s := start(t, "read", f.path("head/watch"))
	s.expect("open")
	b.reads(f)
	p := start(t, "read", f.path(fileTwo))
	p.expect("open")
	<-b.entered
	begin := time.Now()
	f.srv.SetDisconnected()
	s.expect("error transport endpoint is not connected")
	p.expect("error transport endpoint is not connected")
	wantDisconnected(t, f.dir, fd)
	if d := time.Since(begin); d > atOnce/4 {
		t.Errorf("took %v", d)
	}
	if err := f.srv.Upload(1, 0, make([]byte, fakeBlk)); !errors.Is(err, tree.ErrNotConn) {
		t.Errorf("a block stored after that: %v", err) // it would be there for the mapping
	}
	c.say("touch")
	c.expect("SIGBUS") // as for the mapped page
}

// Requests that hang in the tree, and heed nothing, are ended by an abort of the connection.
func TestSetDisconnectedHung(t *testing.T) {
	f := mountFake(t, nil)
	letGo, entered := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(letGo) })
	t.Cleanup(release)
	f.tree.set(func() {
		f.tree.onRead = func(context.Context, zodb.Oid, int64, int) error {
			close(entered)
			<-letGo
			return nil
		}
	})
	fd := openFile(t, f.path(fileTwo), unix.O_RDONLY)
	p := start(t, "read", f.path(fileOne))
	p.expect("open")
	<-entered
	begin := time.Now()
	f.srv.SetDisconnected()
	p.expect("error transport endpoint is not connected")
	wantDisconnected(t, f.dir, fd)
	if d := time.Since(begin); d > atOnce/4 {
		t.Errorf("took %v", d)
	}
	release()
	if err := f.srv.Wait(deadline(t, wait.Patience)); !errors.Is(err, ErrAborted) {
		t.Errorf("serving ended by %v", err)
	}
}

func TestServerKilled(t *testing.T) {
	dir := t.TempDir()
	srv := start(t, "server", dir)
	srv.expect("serving")
	t.Cleanup(func() { detach(dir) })
	fd := openFile(t, dir+"/"+fileOne, unix.O_RDONLY)
	srv.signal(syscall.SIGKILL)
	srv.diesWithin(atOnce)
	var st unix.Stat_t
	until(t, "the connection is gone", func() bool { return unix.Stat(dir, &st) == unix.ENOTCONN })
	if err := unix.Close(fd); err != unix.ENOTCONN {
		t.Errorf("close: %v", err)
	}
	if rep, err := Status(t.Context(), dir); !errors.Is(err, unix.ENOTCONN) || rep.Pid != 0 {
		t.Errorf("status: %+v, %v", rep, err)
	}
	// and another over what is left
	again := start(t, "server", dir)
	again.expect("serving")
	know(t, dir+"/"+fileOne)
	again.signal(syscall.SIGTERM)
	again.expect("done")
	if m, err := findMount(dir); err == nil {
		t.Errorf("left behind: %+v", m)
	}
}

// A server that is killed while it waits for the kernel, which waits for an answer of the server, goes all the same,
// and so do its clients.
func TestServerKilledAtInvalidation(t *testing.T) {
	dir := t.TempDir()
	srv := start(t, "stuck", dir)
	srv.expect("serving")
	t.Cleanup(func() {
		if m, err := findMount(dir); err == nil {
			abort(m.minor)
			detach(dir)
		}
	})
	client := start(t, "read", dir+"/"+fileOne)
	client.expect("open")
	srv.expect("invalidating")
	time.Sleep(50 * time.Millisecond) // it waits for the page
	srv.signal(syscall.SIGKILL)
	srv.diesWithin(wait.Patience)
	if line := client.line(); !strings.HasPrefix(line, "error ") {
		t.Errorf("client: %q", line)
	}
}

// Where there is no control file system the watchdog ends the connection all the same.
func TestForce(t *testing.T) {
	dir := t.TempDir()
	srv := start(t, "server", dir)
	srv.expect("serving")
	t.Cleanup(func() { detach(dir) })
	srv.signal(syscall.SIGSTOP)
	waits := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(dir + "/head/at")
		waits <- err
	}()
	if err := force(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waits:
		if err == nil {
			t.Error("a stopped server answers")
		}
	case <-time.After(wait.Patience):
		t.Error("who waits for the server waits on")
	}
	srv.signal(syscall.SIGKILL)
}

func TestCycles(t *testing.T) {
	n := 100
	mountFake(t, nil).end() // what is made once
	procs, fds := runtime.NumGoroutine(), countFds(t)
	for range n {
		f := &fixture{T: t, tree: newFakeTree(), dir: t.TempDir()}
		var err error
		f.srv, err = Mount(t.Context(), f.tree.root, f.dir, Options{URL: "file:///x", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		know(t, f.path(fileOne))
		f.end()
		if _, err := findMount(f.dir); err == nil {
			t.Fatal("mount is left")
		}
	}
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= procs })
	if now := countFds(t); now > fds {
		t.Errorf("%d descriptors, %d before", now, fds)
	}
}

func countFds(t *testing.T) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// A server that has served many revisions holds few, and none once the kernel forgets them.
func TestRevisionsForgotten(t *testing.T) {
	n, keep := 20_000, 500
	if os.Getenv("WCFS_SOAK") != "" {
		n = 100_000
	}
	f := mountFake(t, func(_ *fakeTree, o *Options) { o.MaxIdleRevs = keep })
	held := openFile(t, f.path("@0000000000000001/bigfile/0000000000000001"), unix.O_RDONLY)
	base := f.srv.Inodes()
	for i := range n {
		know(t, f.path(fmt.Sprintf("@%016x", i+2)))
	}
	until(t, "the surplus is forgotten", func() bool { return f.srv.Inodes() <= base+keep+1 })
	if live := f.tree.live.Load(); live > int64(base+keep+10) {
		t.Errorf("%d nodes are held", live)
	}
	if in, err := os.Stat(f.path("@0000000000000001/bigfile/0000000000000001")); err != nil || f.srv.fs.inodes.get(in.Sys().(*syscall.Stat_t).Ino) == nil {
		t.Errorf("one in use was dropped: %v", err)
	}
	if err := unix.Close(held); err != nil {
		t.Error(err)
	}
	until(t, "the rest is forgotten", func() bool {
		if err := dropcaches.Drop(dropcaches.Names); err != nil {
			t.Fatal(err)
		}
		return f.tree.live.Load() == 0 && f.srv.Inodes() == 1
	})
}

func TestMountPointErrors(t *testing.T) {
	tree := newFakeTree()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := mountFake(t, nil)
	for _, c := range []struct {
		dir  string
		kind error
		say  string
	}{
		{filepath.Join(t.TempDir(), "none"), os.ErrNotExist, "mkdir -p"},
		{file, unix.ENOTDIR, "not a directory"},
		{filepath.Dir(file), ErrNotEmpty, "mount on an empty directory"},
		{f.dir, ErrMounted, "wcfs stop " + f.dir},
	} {
		_, err := Mount(t.Context(), tree.root, c.dir, Options{URL: tree.zurl, Log: slog.New(slog.DiscardHandler)})
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %v that says %q", err, c.kind, c.say)
		}
	}
	if _, err := os.ReadFile(f.path("head/at")); err != nil {
		t.Errorf("the mount that was there: %v", err)
	}
}

func TestUnknownProcess(t *testing.T) {
	var log bytes.Buffer
	fs := newFileSystem(newFakeTree().root, Options{MaxIdleRevs: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	fs.dead = func() bool { return false }
	id := uint64(1)
	for _, name := range []string{"head", "watch"} {
		var out fuse.EntryOut
		if st := fs.Lookup(nil, &fuse.InHeader{NodeId: id}, name, &out); !st.Ok() {
			t.Fatal(st)
		}
		id = out.NodeId
	}
	// pid 0 is what a server in a pid namespace sees of a caller outside
	st := fs.Open(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: id}, Flags: syscall.O_RDWR}, &fuse.OpenOut{})
	if st != fuse.EPERM || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%v, log: %s", st, log.String())
	}
	if n := fs.files.now.Load(); n != 0 {
		t.Errorf("%d files open", n)
	}
}

func TestIdle(t *testing.T) {
	f := mountFake(t, nil)
	const after = 200 * time.Millisecond
	if err := f.srv.Idle(deadline(t, 3*after), after); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before anything was open: %v", err)
	}
	fd := openFile(t, f.path("head/at"), unix.O_RDONLY)
	if err := f.srv.Idle(deadline(t, 3*after), after); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a file open: %v", err)
	}
	begin := time.Now()
	unix.Close(fd)
	if err := f.srv.Idle(deadline(t, wait.Patience), after); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d < after {
		t.Errorf("after %v", d)
	}
}
