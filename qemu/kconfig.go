package qemu

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// kconfig is a kernel's configuration: options without CONFIG_, and "y", "m", "n" or a value.
type kconfig struct {
	from string // where it was read
	set  map[string]string
}

// findConfig reads the configuration of a kernel from its build tree, from a file beside the image or in /boot, or
// out of the image (CONFIG_IKCONFIG). ok is false where there is none of these.
func findConfig(ctx context.Context, k Kernel) (c kconfig, ok bool) {
	image := k.Image
	if k.BzImage != "" {
		image = k.BzImage
	}
	for _, path := range []string{
		filepath.Join(k.Modules, ".config"), filepath.Join(filepath.Dir(image), "config-"+k.Release),
		"/boot/config-" + k.Release, filepath.Join(k.Modules, "config"),
	} {
		if b, err := os.ReadFile(path); err == nil && filepath.IsAbs(path) {
			return kconfig{path, parseConfig(b)}, true
		}
	}
	if b, err := imageConfig(ctx, k.Image); err == nil {
		return kconfig{"the configuration in " + k.Image, parseConfig(b)}, true
	}
	return kconfig{}, false
}

func parseConfig(text []byte) map[string]string {
	set := map[string]string{}
	for line := range bytes.Lines(text) {
		text := strings.TrimSpace(string(line))
		if opt, ok := strings.CutPrefix(text, "CONFIG_"); ok {
			name, value, _ := strings.Cut(opt, "=")
			set[name] = value
		} else if opt, ok := strings.CutPrefix(text, "# CONFIG_"); ok {
			if name, ok := strings.CutSuffix(opt, " is not set"); ok {
				set[name] = "n"
			}
		}
	}
	return set
}

var errNoConfig = errors.New("no configuration in the image")

// imageConfig takes the configuration out of a vmlinux or bzImage: a gzip stream between two marks.
func imageConfig(ctx context.Context, image string) ([]byte, error) {
	b, err := os.ReadFile(image)
	if err != nil {
		return nil, err
	}
	if c, err := embeddedConfig(b); err == nil {
		return c, nil
	}
	vmlinux, err := unpackKernel(ctx, b, func(out []byte) bool { return bytes.HasPrefix(out, []byte("\x7fELF")) })
	if err != nil {
		return nil, err
	}
	return embeddedConfig(vmlinux)
}

func embeddedConfig(b []byte) ([]byte, error) {
	_, rest, ok := bytes.Cut(b, []byte("IKCFG_ST\x1f\x8b\x08"))
	if !ok {
		return nil, errNoConfig
	}
	z, err := gzip.NewReader(io.MultiReader(strings.NewReader("\x1f\x8b\x08"), bytes.NewReader(rest)))
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return io.ReadAll(io.LimitReader(z, 4<<20))
}

// need is an option of the kernel that a guest cannot do without, and what for.
type need struct {
	option  string
	builtin bool // a module comes too late
	what    string
}

// needs lists what the guest cannot do without.
func (s *Spec) needs() []need {
	ns := []need{
		{"BLK_DEV_INITRD", true, "the start"}, {"BINFMT_ELF", true, "the start"}, {"BINFMT_SCRIPT", true, "the start"},
		{"DEVTMPFS", true, "the start"}, {"PROC_FS", true, "the start"}, {"SYSFS", true, "the start"}, {"TMPFS", true, "the start"},
		{"SERIAL_8250_CONSOLE", true, "the console"}, {"UNIX98_PTYS", true, "terminals"},
		{"VIRTIO_PCI", false, "the console"}, {"VIRTIO_CONSOLE", false, "the console"},
	}
	if s.HostRoot || len(s.Shares) > 0 {
		ns = append(ns, need{"9P_FS", false, "the host's files"}, need{"NET_9P_VIRTIO", false, "the host's files"})
	}
	if s.Net == NetNeeded {
		ns = append(ns, need{"INET", true, "the network"}, need{"VIRTIO_NET", false, "the network"})
	}
	for _, m := range s.Mounts {
		ns = append(ns, need{"9P_FS", false, "9P mounts"})
		if strings.Contains(m.Options, "trans=tcp") {
			ns = append(ns, need{"NET_9P_FD", false, "9P mounts"})
		}
	}
	return ns
}

// checkConfig names what the kernel lacks, if its configuration can be read.
func (s *Spec) checkConfig(ctx context.Context) error {
	c, ok := findConfig(ctx, s.Kernel)
	if !ok {
		return nil
	}
	var lacks []string
	for _, n := range s.needs() {
		v, known := c.set[n.option]
		if !known && n.option == "NET_9P_FD" && c.set["NET_9P"] != "" {
			continue // before Linux 5.17 it is a part of NET_9P
		}
		if v == "y" || v == "m" && !n.builtin && s.Kernel.Modules != "" {
			continue
		}
		how := ""
		switch {
		case v == "m" && n.builtin:
			how = "=y"
		case v == "m":
			how = " (a module, and there is no folder of modules)"
		}
		lacks = append(lacks, fmt.Sprintf("CONFIG_%s%s for %s", n.option, how, n.what))
	}
	if lacks == nil {
		return nil
	}
	return fmt.Errorf("kernel %s: %w: by %s it lacks %s", s.Kernel.Name, ErrConfig, c.from, strings.Join(lacks, ", "))
}
