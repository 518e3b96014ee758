package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
)

// TestNotify: the notify protocol of systemd, against a socket of the test: ready only when the tree is served, a
// sentence of status, the watchdog fed, reloads and the end announced.
func TestNotify(t *testing.T) {
	zurl, _ := database(t)
	mnt, sock := t.TempDir(), filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(wcfsPath, "serve", "--mount", mnt, zurl)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+sock, "WATCHDOG_USEC=300000")
	p := served.Start(t, cmd)
	defer served.Detach(mnt)
	told := func(want string) string {
		t.Helper()
		buf := make([]byte, 4096)
		for deadline := time.Now().Add(served.Patience); ; {
			_ = l.SetReadDeadline(deadline)
			n, err := l.Read(buf)
			if err != nil {
				t.Fatalf("systemd was not told %q: %v\n%s", want, err, p.Log)
			}
			if strings.Contains(string(buf[:n]), want) {
				return string(buf[:n])
			}
		}
	}
	first := told("READY=1")
	if _, err := os.Stat(filepath.Join(mnt, ".wcfs/zurl")); err != nil {
		t.Errorf("ready before the tree was served: %v", err)
	}
	if want := "STATUS=ok: serving " + zurl + " at " + mnt + ", head "; !strings.Contains(first, want) {
		t.Errorf("told %q, want %q", first, want)
	}
	told("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	told("RELOADING=1\nMONOTONIC_USEC=")
	told("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	told("STOPPING=1")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.Log)
	}
}

// TestDaemon: `wcfs serve --daemon` returns when the tree is served, with the log in a file; when that cannot be, with
// its error. `wcfs wait` returns at once then, and gives up in time where nothing serves.
func TestDaemon(t *testing.T) {
	zurl, db := database(t)
	mnt, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	if out, stderr, code := run(t, "serve", "--daemon", "--log-file", log, "--mount", mnt, zurl); code != 0 || out+stderr != "" {
		t.Fatalf("exit code %d: %s%s", code, out, stderr)
	}
	t.Cleanup(func() { served.Detach(mnt) })
	if at, err := os.ReadFile(filepath.Join(mnt, "head/at")); err != nil || string(at) != db.Head().String() {
		t.Errorf("head/at is %q, %v", at, err)
	}
	mustRun(t, "wait", mnt, "--at", db.Head().String())
	if _, stderr, code := run(t, "wait", mnt, "--at", "7fffffffffffffff", "--timeout=1100ms"); code != 1 || !strings.Contains(stderr, "head is at "+db.Head().String()) {
		t.Errorf("wait for the future: exit code %d, %s", code, stderr)
	}
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "msg=serving") {
		t.Errorf("log: %q, %v", b, err)
	}
	mustRun(t, "stop", mnt)
	if _, stderr, code := run(t, "serve", "--daemon", "--mount", mnt, "file:///nonexistent/Data.fs"); code != 1 || !strings.Contains(stderr, "/nonexistent/Data.fs") {
		t.Errorf("no database: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := run(t, "wait", t.TempDir(), "--timeout=100ms"); code != 1 || !strings.Contains(stderr, "does not serve") {
		t.Errorf("nothing mounted: exit code %d, %s", code, stderr)
	}
}

// TestMountHelper: mount(8) mounts by mount.wcfs, from its command line and from an fstab line, and umount(8) ends
// the server. All in a mount namespace whose /usr/sbin has the helper.
func TestMountHelper(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root, as mount(8) does")
	}
	zurl, db := database(t)
	dir := t.TempDir()
	script := fmt.Sprintf(`set -eu
cd %q
mkdir up work mnt
sbin=$(realpath /sbin)
mount -t tmpfs none up
mkdir up/u up/w
mount -t overlay -o lowerdir=$sbin,upperdir=up/u,workdir=up/w none $sbin
cp %q $sbin/mount.wcfs
mount -t wcfs -o ro,nosuid,_netdev,nofail,x-systemd.automount,comment=mine,pintimeout=7s,allow_other %q mnt
cat mnt/.wcfs/pintimeout mnt/head/at; echo
grep -c " $PWD/mnt fuse.wcfs" /proc/mounts
umount mnt
echo %q "$PWD/mnt" wcfs ro,noauto,mode=0400,allow_other 0 0 >fstab
mount --fstab fstab mnt
cat mnt/head/at; echo
umount mnt
mount -t wcfs -o no_such_option %q mnt || echo "refused $?"
mount -t wcfs file:///nonexistent mnt || echo "failed $?"
`, dir, wcfsPath, zurl, zurl, zurl)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-c", script)
	out, err := cmd.Output()
	want := "7.0" + db.Head().String() + "\n1\n" + db.Head().String() + "\nrefused 1\nfailed 32\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}

// TestUnits: systemd's own checks of the units.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	units, err := filepath.Glob("../../packaging/systemd/wcfs*@.*")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %q, %v", units, err)
	}
	limits := map[string]string{"wcfs@x.service": "--threshold=46", "wcfs-9p@x.service": "--threshold=30"}
	var files []string
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Replace(filepath.Base(unit), "@.", "@x.", 1)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/bin/wcfs", wcfsPath)), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
		if limit := limits[name]; limit != "" {
			if out, err := exec.Command("systemd-analyze", "security", "--offline=true", limit, path).CombinedOutput(); err != nil {
				t.Errorf("%s is open to too much: %v\n%s", name, err, out)
			}
		}
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "wcfs") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
