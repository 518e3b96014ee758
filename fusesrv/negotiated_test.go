package fusesrv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/fusesrv/kernel"
)

// TestNegotiated: this kernel is good enough, and what it agreed to is seen.
func TestNegotiated(t *testing.T) {
	f := mountFake(t, nil)
	a, err := negotiated(f.srv.fuse)
	if err != nil || a.Major != 7 || a.Minor < 30 || a.Flags&kernel.ExplicitInvalData == 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

// fakeKernel is a /dev/fuse whose kernel has sent its INIT request (struct fuse_in_header and fuse_init_in
// of linux/fuse.h).
func fakeKernel(t *testing.T, minor uint32, flags kernel.Flag) int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]) })
	var b bytes.Buffer
	for _, v := range []any{
		uint32(104), uint32(26), uint64(2), uint64(1), uint32(0), uint32(0), uint32(1), uint32(0), // header: INIT is 26
		uint32(7), minor, uint32(128 << 10), uint32(flags), uint32(flags >> 32), [11]uint32{},
	} {
		if err := binary.Write(&b, binary.NativeEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(pair[0], b.Bytes()); err != nil {
		t.Fatal(err)
	}
	return pair[1]
}

// TestOldKernel: a kernel that does not offer what is needed is refused as the mount is made.
func TestOldKernel(t *testing.T) {
	const all = kernel.AsyncRead | kernel.MaxPages | kernel.ExplicitInvalData
	for _, c := range []struct {
		minor uint32
		flags kernel.Flag
		want  string
	}{
		{29, all &^ kernel.ExplicitInvalData, "FUSE_EXPLICIT_INVAL_DATA, FUSE protocol 7.30, Linux 5.2 (for fuse-explicit-inval: "},
		{45, all &^ kernel.AsyncRead, "(for fuse-async-read: "},
		{14, all, "NOTIFY_STORE, FUSE protocol 7.15, Linux 2.6 (for fuse-store-waits: "},
		{45, all, ""}, // it is good, but there is no mount
	} {
		tree := newFakeTree()
		_, err := serve(tree.root, t.TempDir(), fakeKernel(t, c.minor, c.flags), Options{URL: tree.zurl}.withDefaults())
		if err == nil || errors.Is(err, kernel.ErrLacks) != (c.want != "") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestOldRelease: a server under a kernel that calls itself Linux 2.6 (personality(2), UNAME26) is refused,
// unless it is told not to look.
func TestOldRelease(t *testing.T) {
	for _, what := range []string{"mount", "mountany"} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "setarch", "--uname-2.6", os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+what+" "+dir)
		out, err := cmd.CombinedOutput()
		refused := err != nil && strings.Contains(string(out), "Linux 5.1 (for fuse-remap-in-fault") && strings.Contains(string(out), "Linux 2.6.")
		if refused != (what == "mount") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
		if _, err := findMount(dir); err == nil {
			t.Errorf("%s: still mounted", what)
			detach(dir)
		}
	}
}
