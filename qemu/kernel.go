package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is a kernel that can be booted.
type Kernel struct {
	Name    string // as it was asked for
	Release string // as uname -r shows it
	Image   string // file for QEMU's -kernel: a bzImage, or a vmlinux with a PVH entry
	BzImage string // the bzImage that a vmlinux in Image was unpacked from; empty: none, or Image itself
	Modules string // folder that holds its modules, searched by name; empty: everything is built in
}

// DefaultCache is where fetched kernels are kept.
func DefaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	return filepath.Join(dir, "wcfs")
}

// Progress is told, as fmt.Printf is, of what takes longer than a moment.
type Progress func(format string, args ...any)

// FindKernel finds, or fetches into cache, the kernel that name asks for:
//   - "": the host's, where /boot has it, else Debian's current one;
//   - "host": the host's, from /boot and /lib/modules;
//   - "6.1", "6.12.95": newest Debian kernel of that version; one in the cache is taken without looking for newer ones;
//   - a folder: a build tree;
//   - a file: a bzImage, with modules from ../lib/modules or /lib/modules when its release is there.
//
// progress, which may be nil, is told what is looked for and downloaded.
func FindKernel(ctx context.Context, name, cache string, progress Progress) (Kernel, error) {
	if progress == nil {
		progress = func(string, ...any) {}
	}
	switch {
	case name == "":
		if k, err := hostKernel(); err == nil {
			return k, nil
		}
		return debianKernel(ctx, "", cache, progress)
	case name == "host":
		return hostKernel()
	case isVersion(strings.TrimPrefix(name, "v")):
		return debianKernel(ctx, strings.TrimPrefix(name, "v"), cache, progress)
	}
	st, err := os.Stat(name)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w: neither a file, a build tree, \"host\", nor a version like 6.1", name, ErrKernel)
	}
	if st.IsDir() {
		return treeKernel(name)
	}
	return imageKernel(name)
}

// isVersion tells a version, numbers with dots between, from a path.
func isVersion(name string) bool {
	parts := strings.Split(name, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return false
		}
	}
	return len(parts) > 1
}

// hostKernel is the one that is running.
func hostKernel() (Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Kernel{}, err
	}
	rel := unix.ByteSliceToString(u.Release[:])
	k := Kernel{Name: "host", Release: rel, Image: "/boot/vmlinuz-" + rel, Modules: "/lib/modules/" + rel}
	if f, err := os.Open(k.Image); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return Kernel{}, fmt.Errorf("kernel host: %w", err)
		}
		return Kernel{}, fmt.Errorf("kernel host: %w: %s does not exist", ErrKernel, k.Image)
	} else {
		f.Close()
	}
	if !isDir(k.Modules) {
		k.Modules = ""
	}
	return k, nil
}

// treeKernel is one in the folder it was built in.
func treeKernel(dir string) (Kernel, error) {
	k := Kernel{Name: dir, Image: filepath.Join(dir, "arch/x86/boot/bzImage"), Modules: dir}
	rel, err := os.ReadFile(filepath.Join(dir, "include/config/kernel.release"))
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w: not a build tree of Linux, or not built yet", dir, ErrKernel)
	}
	k.Release = strings.TrimSpace(string(rel))
	if _, err := os.Stat(k.Image); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w: build it with `make bzImage modules`", dir, ErrKernel)
	}
	return k, nil
}

// imageKernel is a bzImage of the user's own.
func imageKernel(file string) (Kernel, error) {
	rel, err := imageRelease(file)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", file, err)
	}
	k := Kernel{Name: file, Release: rel, Image: file}
	for _, d := range []string{filepath.Join(filepath.Dir(file), "../lib/modules", rel), "/lib/modules/" + rel} {
		if isDir(d) {
			k.Modules = filepath.Clean(d)
			break
		}
	}
	return k, nil
}

// imageRelease reads the release out of a bzImage (Documentation/arch/x86/boot.rst: magic "HdrS" at
// 0x202, offset of the version string less 0x200 at 0x20e).
func imageRelease(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 0x8000)
	n, _ := f.ReadAt(head, 0)
	head = head[:n]
	if len(head) < 0x300 || string(head[0x202:0x206]) != "HdrS" {
		return "", fmt.Errorf("%w: not a bzImage", ErrKernel)
	}
	off := int(binary.LittleEndian.Uint16(head[0x20e:])) + 0x200
	if off >= len(head) {
		return "", fmt.Errorf("%w: bzImage without a version", ErrKernel)
	}
	rel, _, _ := strings.Cut(unix.ByteSliceToString(head[off:]), " ")
	if rel == "" || strings.ContainsAny(rel, "/\n") {
		return "", fmt.Errorf("%w: bzImage without a version", ErrKernel)
	}
	return rel, nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
