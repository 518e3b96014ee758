package guestmount

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"wcfs/qemu/qemutest"
)

// TestRun: `wcfs run` has the server at the --9p address at /wcfs and /wcfs-snap, sees the host's mount of
// wcfs where it is, and ends with the program's status.
func TestRun(t *testing.T) {
	qemutest.Turn(t)
	qemutest.Kernel(t, "6.1")
	man, zurl := database(t)
	s := serve(t, zurl, "--9p", "unix:"+filepath.Join(t.TempDir(), "sock"))
	script := `for d in /wcfs /wcfs-snap "$0"; do cat $d/head/at; echo; done; cmp /wcfs-snap/@$1/bigfile/$2 $0/head/bigfile/$2 && exit 6`
	cmd := exec.Command(filepath.Join(built, "wcfs"), "run", "--kernel", "6.1", "--mem", "512", "--9p", s.unix, "--timeout", "2m",
		"--", "/bin/sh", "-c", script, s.mnt, man.Head.String(), man.Files[0].Oid.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	at := man.Head.String() + "\n"
	if string(out) != at+at+at || cmd.ProcessState.ExitCode() != 6 {
		t.Errorf("%v, output:\n%s\nstderr:\n%s", err, out, stderr.String())
	}
}
