package fusesrv

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// deviceNumber is st_dev of an anonymous device, with major number 0.
func deviceNumber(minor uint32) uint64 { return unix.Mkdev(0, minor) }

// fusectl is where the control file system of FUSE is mounted, where it is.
const fusectl = "/sys/fs/fuse/connections"

// abort ends the FUSE connection of a mount: everything waiting for it fails with ENOTCONN. If the control file
// system is not mounted, the server mounts it elsewhere for that moment.
func abort(minor uint32) error {
	err := writeAbort(fusectl, minor)
	if err == nil || !os.IsNotExist(err) {
		return err
	}
	dir, err := os.MkdirTemp("", "wcfs-fusectl-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("fusectl", dir, "fusectl", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount fusectl: %w; mount it at %s as root", err, fusectl)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	return writeAbort(dir, minor)
}

func writeAbort(ctl string, minor uint32) error {
	f, err := os.OpenFile(filepath.Join(ctl, fmt.Sprint(minor), "abort"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("1")
	return err
}
