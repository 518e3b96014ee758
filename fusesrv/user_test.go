package fusesrv

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody and his group, as every Debian has them.
const nobody = 65534

// asNobody is this test binary to be run by an ordinary user, in a directory of that user's.
func asNobody(t *testing.T) (exe, dir string, as *syscall.SysProcAttr) {
	t.Helper()
	top, err := os.MkdirTemp("/tmp", "wcfs-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	dir, exe = filepath.Join(top, "dir"), filepath.Join(top, "test")
	self, err := os.Executable()
	if err == nil {
		err = copyFile(exe, self) // where nobody can reach it
	}
	if err := errors.Join(err, os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody), os.Chmod(top, 0o755)); err != nil {
		t.Fatal(err)
	}
	// open to all, as udev has it: a container may have the device for root only. It stays so: other tests may be at it.
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	return exe, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

func copyFile(to, from string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o755)
}

// A user without rights mounts through fusermount3, and unmounts so.
func TestWithoutPrivileges(t *testing.T) {
	exe, dir, as := asNobody(t)
	c := command(t, exe, "server", dir)
	c.cmd.SysProcAttr = as
	c.cmd.Dir = "/"
	c.run()
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	c.expect("serving")
	if m, err := findMount(dir); err != nil || m.source != newFakeTree().zurl || m.fsType != fsType {
		t.Errorf("%+v, %v", m, err)
	}
	options := mountOptions(t, dir)
	for _, want := range []string{"default_permissions", "nosuid", "nodev"} {
		if !strings.Contains(options, want) {
			t.Errorf("mount options %s lack %s", options, want)
		}
	}
	c.signal(syscall.SIGTERM)
	c.expect("done")
	if m, err := findMount(dir); err == nil {
		t.Errorf("mount is left: %+v", m)
	}
}

// mountOptions are those of the mount at dir, as the kernel shows them.
func mountOptions(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == dir {
			return f[3]
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return ""
}

// What the mount promises does not depend on how it is made: the tree's suite, growth, commits, faults and
// interrupts once more, by a user who mounts through fusermount3.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // all tests of this package are run so now
	}
	exe, dir, as := asNobody(t)
	tests := []string{
		"TestSuite", "TestGrowthSeenByOpen", "TestCommit", "TestStat", "TestSignalInStreamRead", "TestKillInStreamRead",
		"TestSignalsInPageFault", "TestKillInPageFault", "TestKillInOpen", "TestKillInLookup", "TestStreamReadWhileWrite",
		"TestWatchProcess", "TestStatus", "TestUploadInvalidateRetrieve", "TestStoreRev", "TestSetDisconnected",
	}
	cmd := exec.Command(exe, "-test.v", "-test.run", "^("+strings.Join(tests, "|")+")$")
	cmd.SysProcAttr = as
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	out, err := cmd.CombinedOutput()
	for _, name := range tests {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
	if err != nil || t.Failed() {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
