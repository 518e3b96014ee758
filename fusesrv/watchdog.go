package fusesrv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// If the server is SIGKILLed (out of memory) inside a cache-invalidation call, that thread waits for a READ which
// nobody will answer, the process cannot exit, and every client hangs. So a child process, the watchdog, aborts
// the FUSE connection once the server has been killed and has not exited.

// watchdogEnv, in the environment of the watchdog, is the minor device number of the mount and its directory.
const watchdogEnv = "WCFS_WATCHDOG"

const watchdogTick = 300 * time.Millisecond

// watchdog runs in the child, until the server, its parent, closes the other end of in, or has ended.
func watchdog(mount string, in io.Reader) error {
	var minor uint32
	var dir string
	if _, err := fmt.Sscanf(mount, "%d %q", &minor, &dir); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT) // they are for the server
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, in)
		close(gone)
	}()
	tick := time.NewTicker(watchdogTick)
	defer tick.Stop()
	for server := os.Getppid(); ; {
		select {
		case <-gone:
			return nil
		case <-tick.C:
		}
		// The first thread may have ended while others cannot.
		if st, err := readStatus(uint32(server)); err == nil && (st.zombie || st.killed()) && mountedAs(dir, minor) {
			return abortOrForce(dir, minor)
		}
	}
}

// abortOrForce is abort where the control file system may not be had, as in a container: to unmount by force aborts the
// connection too, whether or not the mount then goes.
func abortOrForce(dir string, minor uint32) error {
	err := abort(minor)
	if err == nil {
		return nil
	}
	if ferr := force(dir); ferr != nil {
		return errors.Join(err, ferr)
	}
	return nil
}

// force aborts the connection of a mount without the control file system.
func force(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_FORCE); err != nil && err != unix.EBUSY { // busy: aborted, and still there
		return fmt.Errorf("unmount %s by force: %w", dir, err)
	}
	return nil
}

// watchdogCan says why the watchdog would not be able to abort the connection, nil if it will be.
func watchdogCan(minor uint32) error {
	file := filepath.Join(fusectl, fmt.Sprint(minor), "abort")
	err := unix.Access(file, unix.W_OK)
	if err == nil || mayMount() {
		return nil
	}
	if err == unix.ENOENT {
		return fmt.Errorf("the control file system of FUSE is not mounted, and this process may not mount it: as root, mount -t fusectl none %s", fusectl)
	}
	return fmt.Errorf("%s: %w", file, err)
}

// mayMount tells whether this process has CAP_SYS_ADMIN.
func mayMount() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[unix.CAP_SYS_ADMIN/32].Effective&(1<<(unix.CAP_SYS_ADMIN%32)) != 0
}

// startWatchdog starts a child that watches this process and its mount, until stop is called.
func startWatchdog(dir string, minor uint32) (stop func(), err error) {
	cmd, err := helperCommand("wcfs-watchdog", watchdogEnv, fmt.Sprintf("%d %q", minor, dir))
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	return func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	}, nil
}
