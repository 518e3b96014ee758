package fusesrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const fsType = "fuse.wcfs"

// Errors of a mount point, besides those of os.
var (
	ErrNotEmpty = errors.New("mount point is not empty")
	ErrMounted  = errors.New("mount point is in use")
)

// prepareMountPoint resolves dir and makes sure that it can be mounted on. A mount that an earlier
// server left behind when it died is taken away.
func prepareMountPoint(ctx context.Context, dir string, log *slog.Logger) (string, error) {
	abs, err := resolve(dir)
	if err != nil {
		return "", mountPointError(dir, err)
	}
	// Looked up before anything touches dir: a mount that hangs would take us along.
	if m, err := findMount(abs); err == nil && strings.HasPrefix(m.fsType, "fuse") {
		err := probeAlive(ctx, abs)
		if m.fsType != fsType || !errors.Is(err, syscall.ENOTCONN) {
			return "", fmt.Errorf("%w: %s is mounted already; look with `wcfs status %s`, unmount with `wcfs stop %s`",
				ErrMounted, abs, abs, abs)
		}
		log.Warn("unmounting what an earlier server left", "dir", abs)
		if err := detach(abs); err != nil {
			return "", err
		}
	}
	ents, err := os.ReadDir(abs)
	if err != nil {
		return "", mountPointError(abs, err)
	}
	if len(ents) > 0 {
		return "", fmt.Errorf("%w: %s holds %s; mount on an empty directory", ErrNotEmpty, abs, ents[0].Name())
	}
	return abs, nil
}

// resolve makes dir absolute without touching dir itself.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if findErr := func() error { _, err := findMount(abs); return err }(); findErr == nil {
		return abs, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	abs = filepath.Join(parent, filepath.Base(abs))
	if _, err := findMount(abs); err == nil {
		return abs, nil
	}
	return filepath.EvalSymlinks(abs)
}

func mountPointError(dir string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return absent(fmt.Sprintf("mount point %s does not exist; make it with `mkdir -p %s`", dir, dir))
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("mount point %s: %w; mount on an empty directory", dir, unix.ENOTDIR)
	default:
		return fmt.Errorf("mount point %s: %w", dir, err)
	}
}

// mountFuse mounts a new FUSE connection and returns its /dev/fuse, and whether others are let in. Without the right
// to mount it asks fusermount.
func mountFuse(h mountHow) (fd int, others bool, err error) {
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open /dev/fuse: %w; load the kernel module with `modprobe fuse`, and in a container let the device in", err)
	}
	others = h.access.Others != OthersNever || os.Geteuid() == 0
	data := append([]string{fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid())}, mountData(others)...)
	err = unix.Mount(h.source, h.dir, fsType, unix.MS_NOSUID|unix.MS_NODEV, strings.Join(data, ","))
	if err == nil {
		return fd, others, nil
	}
	unix.Close(fd)
	if err != unix.EPERM {
		return -1, false, fmt.Errorf("mount %s: %w", h.dir, err)
	}
	return h.lettingOthers(func(others bool) (int, error) { return fusermount(h.dir, h.source, others) })
}

func fusermountPath() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount", "/bin/fusermount3", "/bin/fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errors.New("no right to mount, and no fusermount3; run as root or install fuse3")
}

// fusermount has the set-uid helper mount; it sends /dev/fuse back over a socket (fusermount3(1), and
// the variable _FUSE_COMMFD of libfuse).
func fusermount(dir, source string, others bool) (int, error) {
	bin, err := fusermountPath()
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", dir, err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: socketpair: %w", dir, err)
	}
	local, remote := os.NewFile(uintptr(pair[0]), "fusermount"), os.NewFile(uintptr(pair[1]), "fusermount")
	defer local.Close()
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	data := append([]string{"fsname=" + escape.Replace(source), "subtype=wcfs", "nosuid", "nodev"}, mountData(others)...)
	cmd := exec.Command(bin, "-o", strings.Join(data, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{remote}
	var out bytes.Buffer
	cmd.Stderr = &out
	err = cmd.Run()
	remote.Close()
	if err != nil && others && strings.Contains(out.String(), "user_allow_other") {
		return -1, ErrOthers
	}
	if err != nil {
		return -1, fmt.Errorf("mount %s: %s: %w: %s", dir, bin, err, strings.TrimSpace(out.String()))
	}
	fd, err := receiveFd(local)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %s: %w", dir, bin, err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

func receiveFd(sock *os.File) (int, error) {
	c, err := net.FileConn(sock)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	data, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(data, oob)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	if len(msgs) != 1 {
		return -1, errors.New("it did not send /dev/fuse")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("it did not send /dev/fuse")
	}
	return fds[0], nil
}

// unmount is umount2, or fusermount -u without the right to that.
func unmount(dir string, flags int) error {
	err := unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW)
	if err != unix.EPERM {
		return err
	}
	bin, err := fusermountPath()
	if err != nil {
		return err
	}
	args := []string{"-u", "--", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = append([]string{"-z"}, args...)
	}
	if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("busy")) {
			return unix.EBUSY
		}
		return fmt.Errorf("%s: %w: %s", bin, err, bytes.TrimSpace(out))
	}
	return nil
}

// detach takes the mount out of sight; it ends when nobody uses it any more.
func detach(dir string) error {
	if err := unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s lazily: %w", dir, err)
	}
	return nil
}

// maxWrite is the most the kernel takes in one message.
func maxWrite() int {
	pages := 256
	if raw, err := os.ReadFile("/proc/sys/fs/fuse/max_pages_limit"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
			pages = n
		}
	}
	return pages * os.Getpagesize()
}
