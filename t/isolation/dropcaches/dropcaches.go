// Package dropcaches drops the page cache of the whole machine, for tests, except while another test
// counts on it: packages are tested side by side.
package dropcaches

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Pages and Names are what Drop can drop: clean pages that are not mapped; names and inodes without users.
const (
	Pages = "1"
	Names = "2"
)

// Drop has the kernel drop all of a kind, once no test holds it off.
func Drop(what string) error {
	unlock, err := lock(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte(what), 0)
}

// HoldOff keeps Drop waiting until the test ends. Use it in tests of a second or so.
func HoldOff(t testing.TB) {
	t.Helper()
	unlock, err := lock(unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

func lock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("wcfs-test-dropcaches-%d.lock", os.Getuid())), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
