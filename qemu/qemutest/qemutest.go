// Package qemutest is for tests that boot guests: it finds kernels and gives turns, so that on one
// machine only one guest of all tests runs at a time.
package qemutest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/qemu"
	"wcfs/t/wait"
)

// Kernel finds the kernel, or ends the test.
func Kernel(t testing.TB, name string) qemu.Kernel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*wait.Patience) // it may be downloaded, and is unpacked
	defer cancel()
	k, err := qemu.FindKernel(ctx, name, qemu.DefaultCache(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Turn waits until no other test runs a guest, and lets none begin until the test ends.
func Turn(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("wcfs-guest-tests-%d.lock", os.Getuid())), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// Run boots a guest in its turn, and ends the test when there is no exit status.
func Run(t testing.TB, spec qemu.Spec) qemu.Result {
	t.Helper()
	Turn(t)
	res, err := qemu.Run(t.Context(), spec)
	if err != nil {
		t.Fatalf("%v\noutput: %q", err, res.Output)
	}
	t.Logf("guest %s: %s, boot %v, run %v", spec.Kernel.Release, res.Accel, res.Boot.Round(time.Millisecond), res.Run.Round(time.Millisecond))
	return res
}
