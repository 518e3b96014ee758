package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"wcfs/t/py"
)

// TestDebianPackages builds the packages of the commit that is checked out, has lintian look at them, and installs and
// purges them: in a mount namespace whose root is an overlay, so that this machine stays as it is.
func TestDebianPackages(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root, to install packages into an overlay")
	}
	dir := t.TempDir()
	build := exec.Command(filepath.Join(py.Root(), "packaging/deb"), dir)
	build.Env = append(os.Environ(), "DEBFULLNAME=Packager of a Test", "DEBEMAIL=packager@packages.debian.org")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("packaging/deb: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) < 3 {
		t.Fatalf("packages %q, %v", debs, err)
	}
	lint := exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, debs...)...)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	script := `set -eu
cd "$1"
mkdir over root
mount -t tmpfs over over
mkdir over/up over/work
mount -t overlay -o lowerdir=/,upperdir=over/up,workdir=over/work root root
for d in proc dev sys; do mount --rbind /$d root/$d; done
mkdir -p root/debs
cp ./*.deb root/debs/
cat >root/usr/sbin/policy-rc.d <<END
#!/bin/sh
exit 101
END
chmod +x root/usr/sbin/policy-rc.d
inside() { chroot root "$@"; }
inside sh -c 'dpkg -i /debs/*.deb' >log 2>&1 || { cat log; exit 1; }
inside wcfs version | cut -d' ' -f1
inside sh -c 'readlink -f /sbin/mount.wcfs; getent passwd wcfs | cut -d: -f1; ls -d /etc/wcfs /lib/systemd/system/wcfs*'
inside sh -c 'echo "#include <wcfs.h>
int main(void) { return wcfs_open(\"/nonexistent\", 1, 1, 0) != 0; }" >/debs/x.c && gcc /debs/x.c -o /debs/x -lwcfs -pthread && ldd /debs/x | grep -c libwcfs.so.1 && /debs/x'
inside sh -c 'dpkg --purge wcfs libwcfs-dev libwcfs1-dbgsym libwcfs1' >log 2>&1 || { cat log; exit 1; }
inside sh -c 'ls -d /usr/bin/wcfs /etc/wcfs /usr/share/doc/wcfs /lib/systemd/system/wcfs* 2>/dev/null || echo gone'
`
	out, err := exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash", dir).CombinedOutput()
	want := `wcfs
/usr/bin/wcfs
wcfs
/etc/wcfs
/lib/systemd/system/wcfs-9p@.service
/lib/systemd/system/wcfs-9p@.socket
/lib/systemd/system/wcfs@.service
1
gone
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}
