package qemu

import (
	"bytes"
	"cmp"
	"context"
	_ "embed" // the init
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var initScript []byte

// initramfs builds the archive a guest starts from: busybox, init, modules, configuration and the
// caller's files. It is not compressed: unpacking would cost the guest more than loading saves.
func (s *Spec) initramfs(ctx context.Context) ([]byte, error) {
	busybox, err := findBusybox()
	if err != nil {
		return nil, err
	}
	set, err := openModules(s.Kernel)
	if err != nil {
		return nil, err
	}
	mods, err := set.load(ctx, s.modules())
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", s.Kernel.Name, err)
	}
	var buf bytes.Buffer
	c := newCpio(&buf)
	for _, d := range []string{"dev", "proc", "sys", "etc", "bin", "modules", "root", "tmp", "run", "mnt"} {
		c.dir(d)
	}
	c.char("dev/console", 0o600, 5, 1)
	c.char("dev/null", 0o666, 1, 3)
	c.file("bin/busybox", 0o755, busybox)
	if !s.HostRoot {
		for _, applet := range strings.Fields("sh cat ls mount umount mkdir sleep dmesg poweroff kill ps stat dd md5sum echo true false") {
			c.symlink("bin/"+applet, "busybox")
		}
	}
	c.file("init", 0o755, initScript)
	c.file("etc/guest.conf", 0o644, []byte(s.guestConf()))
	c.file("etc/program", 0o644, []byte(s.programScript()))
	for i, m := range mods {
		c.file(fmt.Sprintf("modules/%02d-%s.ko", i, m.name), 0o644, m.data)
	}
	for _, f := range s.Files {
		data := f.Data
		if f.Source != "" {
			if data, err = os.ReadFile(f.Source); err != nil {
				return nil, err
			}
		}
		c.file(f.Path, uint32(f.Mode.Perm()), data)
	}
	err = c.close()
	return buf.Bytes(), err
}

// findBusybox reads a busybox that needs no shared libraries.
func findBusybox() ([]byte, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/bin", "/usr/bin") {
		for _, name := range []string{"busybox", "busybox.static"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && isStatic(b) {
				return b, nil
			}
		}
	}
	return nil, missing("a static busybox", "busybox-static")
}

// modules names what the guest loads, as far as the kernel has it as modules.
func (s *Spec) modules() []string {
	names := []string{"virtio_pci", "virtio_console"}
	if s.HostRoot || len(s.Shares) > 0 {
		names = append(names, "9pnet_virtio", "9p")
	}
	if s.HostRoot && !s.ReadOnly {
		names = append(names, "overlay")
	}
	if s.Net != NetNone {
		names = append(names, "virtio_net", "9pnet_fd", "9p")
	}
	return append(names, s.Modules...)
}

// guestConf is the configuration of init.sh.
func (s *Spec) guestConf() string {
	var b strings.Builder
	set := func(name string, on bool) {
		v := "0"
		if on {
			v = "1"
		}
		fmt.Fprintf(&b, "%s=%s\n", name, v)
	}
	set("HOSTROOT", s.HostRoot)
	set("OVERLAY", s.HostRoot && !s.ReadOnly)
	fmt.Fprintf(&b, "NET=%d\nSCRATCH=%s\nGUEST=%s\n", s.Net, shellQuote(cmp.Or(s.Scratch, "50%")), shellQuote(cmp.Or(s.Hostname, "guest")))
	modules, err := filepath.EvalSymlinks(s.Kernel.Modules)
	if !s.HostRoot || err != nil || filepath.Base(modules) != s.Kernel.Release { // a build tree is not laid out for modprobe
		modules = ""
	}
	fmt.Fprintf(&b, "MODULES=%s\nRELEASE=%s\n", shellQuote(modules), shellQuote(s.Kernel.Release))
	fmt.Fprintf(&b, "STREAMS=%s\nEND=%s\n", shellQuote(strings.Join(s.streams(), " ")), shellQuote(s.end))
	mode := "-opost -echo" // the output's bytes are the program's; Ctrl-C is still a signal
	if s.TTY {
		mode = fmt.Sprintf("rows %d cols %d", s.Rows, s.Cols)
	}
	owner := "0:0"
	if s.User != nil {
		owner = s.User.UID + ":" + s.User.GID
	}
	fmt.Fprintf(&b, "OWNER=%s\n", owner)
	fmt.Fprintf(&b, "TTYMODE=%s\n", shellQuote(mode))
	b.WriteString("mounts() {\n\t:\n")
	for _, path := range s.Expose {
		writeExpose(&b, path)
	}
	for _, sh := range s.Shares {
		opts := "trans=virtio,version=9p2000.L,msize=512000,access=any,cache=" + sh.cache()
		if sh.ReadOnly {
			opts += ",ro"
		}
		writeMount(&b, sh.Tag, sh.Mount, opts)
	}
	for _, m := range s.Mounts {
		writeMount(&b, m.Source, m.Target, m.Options)
	}
	b.WriteString("}\n")
	return b.String()
}

// writeExpose writes the lines that show a file or folder of the host's root which a fresh folder hides.
func writeExpose(b *strings.Builder, path string) {
	q := shellQuote(path)
	show := "show_folder"
	if !isDir(path) {
		show = "show_file"
	}
	fmt.Fprintf(b, "\t%s %s || fail %s\n", show, q, shellQuote("cannot show "+path))
}

// writeMount writes the lines that mount a 9P file system. A missing folder on a read-only root cannot be made:
// the error says so.
func writeMount(b *strings.Builder, source, target, opts string) {
	t := shellQuote(target)
	fmt.Fprintf(b, "\tsay at %s\n", shellQuote(fmt.Sprintf("mounting %s on %s", source, target)))
	fmt.Fprintf(b, "\tb mkdir -p %s 2>/dev/null\n", t)
	fmt.Fprintf(b, "\tb mount -t 9p -o %s %s %s || fail %s\n", shellQuote(opts), shellQuote(source), t,
		shellQuote(fmt.Sprintf("cannot mount %s on %s", source, target)))
}

// programScript runs the program: environment, folder, arguments. Descriptor 4 is its standard input.
func (s *Spec) programScript() string {
	var b strings.Builder
	b.WriteString("exec <&4 4<&-\n")
	// what busybox's shell was given by the kernel is not the program's
	b.WriteString("unset HOME TERM PATH PWD SHLVL OLDPWD\n")
	for _, kv := range s.Env {
		k, v, ok := strings.Cut(kv, "=")
		if ok && isShellName(k) {
			fmt.Fprintf(&b, "export %s=%s\n", k, shellQuote(v))
		}
	}
	if s.Dir != "" {
		fmt.Fprintf(&b, "cd %s || exit 126\n", shellQuote(s.Dir))
	}
	b.WriteString("exec")
	if u := s.User; u != nil && s.HostRoot {
		fmt.Fprintf(&b, " /usr/bin/setpriv --reuid=%s --regid=%s --groups=%s", u.UID, u.GID, strings.Join(u.Groups, ","))
	}
	for _, a := range s.Program {
		b.WriteString(" " + shellQuote(a))
	}
	b.WriteString("\n")
	return b.String()
}

// isShellName tells whether a variable's name can be written in a shell script.
func isShellName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
