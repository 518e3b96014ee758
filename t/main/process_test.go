package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/t/wait"
	"wcfs/zcore/tree/treetest"
)

// promptly is how soon a server must be gone after it was told to. The contract says half a second, which a busy machine
// cannot keep; a server that waits for a client, or for its database, would take longer than this.
func promptly() time.Duration { return wait.Patience / 6 }

// The form that existing clients use, with all options that they may give.
func TestDropIn(t *testing.T) {
	zurl, db := databaseAt(t, filepath.Join(t.TempDir(), "Data,with=commas,.fs"))
	mnt := t.TempDir()
	args := []string{"--debug", "-pintimeout=7s", "-v", "1", "-vmodule", "x=2", "-logtostderr", "-alsologtostderr=false",
		"--stderrthreshold", "0", "-log_dir", "/nonexistent", "-log_backtrace_at=f.go:1", zurl, mnt}
	p := serve(t, mnt, args...)

	m := mountOf(t, mnt)
	if m == nil || m[0] != zurl {
		t.Errorf("mount entry is %q, want source %q", m, zurl)
	}
	if got := read(t, fmt.Sprintf("/proc/%d/cmdline", p.Cmd.Process.Pid)); got != wcfsPath+"\x00"+strings.Join(args, "\x00")+"\x00" {
		t.Errorf("argv was changed: %q", got)
	}
	man := manifest(zurl, db, true)
	man.PinTimeout = "7.0"
	treetest.Run(t, &treetest.Env{FS: treetest.Path{Dir: mnt}, Manifest: man, OldNames: true})

	began := time.Now()
	p.End()
	if took := time.Since(began); took > promptly() {
		t.Errorf("it took %v to end", took)
	}
	if m := mountOf(t, mnt); m != nil {
		t.Errorf("the mount is still there: %q", m)
	}
}

func TestUnmountEndsTheServer(t *testing.T) {
	zurl, _ := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, zurl)
	began := time.Now()
	if out, err := exec.Command("fusermount3", "-u", mnt).CombinedOutput(); err != nil {
		t.Fatalf("fusermount3: %v: %s", err, out)
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > promptly() {
		t.Errorf("it took %v to end", took)
	}
}

// The database may go away, and files may be open: neither is a reason to stay.
func TestSIGINTWithFilesOpen(t *testing.T) {
	zurl, db := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, zurl)
	f, err := os.Open(filepath.Join(mnt, "head/bigfile", manifest(zurl, db, false).Files[0].Oid.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Remove(strings.TrimPrefix(zurl, "file://"))
	p.Cmd.Process.Signal(syscall.SIGINT)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if m := mountOf(t, mnt); m != nil {
		t.Errorf("the mount is still there: %q", m)
	}
}

// After kill -9 the mount entry stays and everything fails, close(2) too; a new server over the same
// mount point gives the same answers.
func TestKillAndRestart(t *testing.T) {
	zurl, db := database(t)
	mnt := t.TempDir()
	man := manifest(zurl, db, false)
	env := &treetest.Env{FS: treetest.Path{Dir: mnt}, Manifest: man, OldNames: true}
	p := serve(t, mnt, zurl, mnt)
	if err := treetest.All(env); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(mnt, "head/bigfile", man.Files[0].Oid.String())
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := ino(t, name)
	p.Cmd.Process.Kill()
	p.Wait()
	if err := syscall.Close(fd); err != syscall.ENOTCONN {
		t.Errorf("close after the server's death: %v, want ENOTCONN", err)
	}
	if _, err := os.Stat(name); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("stat after the server's death: %v, want ENOTCONN", err)
	}
	if mountOf(t, mnt) == nil {
		t.Error("the mount entry is gone")
	}
	p = spawn(t, zurl, mnt)
	p.Ready(mnt)
	if err := treetest.All(env); err != nil {
		t.Error(err)
	}
	if after := ino(t, name); after == before {
		t.Errorf("inode number %d was used again", after)
	}
	p.End()
}

func ino(t *testing.T, name string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// Many starts and ends leave nothing; how each ends alternates.
func TestMountCycles(t *testing.T) {
	const cycles = 20 // the package main has a hundred within one process
	zurl, _ := database(t)
	mnt := t.TempDir()
	t.Cleanup(func() { served.Detach(mnt) })
	before := len(mounts(t))
	for i := range cycles {
		p := spawn(t, zurl, mnt)
		p.Ready(mnt)
		if i%2 == 0 {
			p.Cmd.Process.Signal(syscall.SIGTERM)
		} else if out, err := exec.Command("fusermount3", "-u", mnt).CombinedOutput(); err != nil {
			t.Fatalf("cycle %d: %v: %s", i, err, out)
		}
		if code := p.Wait(); code != 0 {
			t.Fatalf("cycle %d: exit code %d", i, code)
		}
	}
	if after := len(mounts(t)); after != before {
		t.Errorf("%d mounts before, %d after", before, after)
	}
}

// A server that hangs, is dead, or is well: status tells which, and stop ends each.
func TestStatusAndStop(t *testing.T) {
	zurl, db := database(t)
	head := manifest(zurl, db, false).Head.String()
	cases := []struct {
		name  string
		spoil func(p *served.Proc)
		state string
	}{
		{"well", func(*served.Proc) {}, `"state":"ok"`},
		{"stopped by a signal", func(p *served.Proc) { p.Cmd.Process.Signal(syscall.SIGSTOP) }, `"state":"failed","why":"it hangs`},
		{"killed", func(p *served.Proc) { p.Cmd.Process.Kill(); p.Wait() }, `"state":"failed","why":"it is dead`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			mnt := t.TempDir()
			sock := filepath.Join(t.TempDir(), "s")
			p := serve(t, mnt, "serve", "--mount", mnt, "--9p", "unix:"+sock, zurl)
			c.spoil(p)
			out, _, code := run(t, "status", "--json", "--timeout", "1s", mnt)
			if !strings.Contains(out, c.state) || (code == 0) != (c.name == "well") {
				t.Errorf("status: exit %d, %s; want %s", code, out, c.state)
			}
			if c.name == "well" {
				if !strings.Contains(out, `"head":"`+head+`"`) || !strings.Contains(out, fmt.Sprintf(`"pid":%d`, p.Cmd.Process.Pid)) {
					t.Errorf("status: %s; want head %s, pid %d", out, head, p.Cmd.Process.Pid)
				}
				if out := mustRun(t, "status", "unix:"+sock); !strings.Contains(out, head) {
					t.Errorf("status over 9P: %s", out)
				}
			}
			mustRun(t, "stop", "--timeout", "2s", mnt)
			p.Wait()
			if m := mountOf(t, mnt); m != nil {
				t.Errorf("the mount is still there: %q", m)
			}
			if _, err := os.Lstat(sock); c.name == "well" && !os.IsNotExist(err) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}

// stop of a mount that is in use.
func TestStopBusy(t *testing.T) {
	zurl, _ := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, zurl, mnt)
	f, err := os.Open(filepath.Join(mnt, "head/watch"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mustRun(t, "stop", mnt)
	p.Wait()
	if m := mountOf(t, mnt); m != nil {
		t.Errorf("the mount is still there: %q", m)
	}
}
