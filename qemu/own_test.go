package qemu_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wcfs/qemu"
	"wcfs/qemu/qemutest"
)

// TestImage: a bzImage by its path, with its modules as a package or `make modules_install` puts them.
func TestImage(t *testing.T) {
	k := qemutest.Kernel(t, "6.12")
	image := filepath.Join(filepath.Dir(k.Image), "boot/vmlinuz-"+k.Release)
	got, err := qemu.FindKernel(t.Context(), image, t.TempDir(), nil)
	if err != nil || got.Image != image || got.Release != k.Release || got.Modules != k.Modules {
		t.Errorf("%+v, %v; the same by version: %+v", got, err, k)
	}
	alone := filepath.Join(t.TempDir(), "bzImage")
	if err := os.Symlink(image, alone); err != nil {
		t.Fatal(err)
	}
	if got, err := qemu.FindKernel(t.Context(), alone, t.TempDir(), nil); err != nil || got.Release != k.Release || got.Modules != "" {
		t.Errorf("without modules: %+v, %v", got, err)
	}
}

// TestBuildTree: `wcfs run --kernel DIR` with a folder that looks as `make bzImage modules` leaves it.
func TestBuildTree(t *testing.T) {
	k := qemutest.Kernel(t, "6.1")
	tree := buildTree(t, k)
	qemutest.Turn(t)
	cmd := command(t, qemu.RunOptions{Kernel: tree}, "/bin/uname", "-r")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || string(out) != k.Release+"\n" {
		t.Errorf("%q, %v: %s", out, err, stderr.String())
	}
	for _, gone := range []string{"arch/x86/boot/bzImage", "include/config/kernel.release"} {
		if err := os.Remove(filepath.Join(tree, gone)); err != nil {
			t.Fatal(err)
		}
		if _, err := qemu.FindKernel(t.Context(), tree, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "buil") {
			t.Errorf("without %s: %v", gone, err)
		}
	}
}

// buildTree makes a folder like the one that a kernel was built in: bzImage, release, and modules where their
// sources are.
func buildTree(t *testing.T, k qemu.Kernel) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, content []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, string(content))
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put("arch/x86/boot/bzImage", read(k.BzImage))
	put("include/config/kernel.release", []byte(k.Release+"\n"))
	put("modules.builtin", read(filepath.Join(k.Modules, "modules.builtin")))
	root := filepath.Join(k.Modules, "kernel")
	for _, pattern := range []string{"fs/9p/*", "fs/netfs/*", "fs/fscache/*", "net/9p/*", "net/core/failover.ko", "drivers/virtio/*",
		"drivers/net/*failover.ko", "drivers/net/virtio_net.ko", "drivers/char/virtio_console.ko"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, path := range found {
			put(strings.TrimPrefix(path, root), read(path))
		}
	}
	return dir
}
