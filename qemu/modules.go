package qemu

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// moduleSet finds kernel modules by name below a folder. Dependencies are read from the modules
// themselves: a kernel package that is only unpacked has no modules.dep.
type moduleSet struct {
	paths   map[string]string // name, with '_' for '-' → file
	builtin map[string]bool
}

// module is one to load: its name and uncompressed content.
type module struct {
	name string
	data []byte
}

// openModules lists the modules of a kernel.
func openModules(k Kernel) (moduleSet, error) {
	s := moduleSet{paths: map[string]string{}, builtin: map[string]bool{}}
	if k.Modules == "" {
		return s, nil
	}
	if b, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin")); err == nil {
		for _, l := range strings.Fields(string(b)) {
			s.builtin[moduleName(l)] = true
		}
	}
	// those that a guest needs are in these folders only; the whole tree has thousands
	for _, sub := range []string{"fs", "net", "drivers/virtio", "drivers/net", "drivers/char", "drivers/tty", "drivers/block", "lib", "crypto"} {
		for _, root := range []string{filepath.Join(k.Modules, "kernel", sub), filepath.Join(k.Modules, sub)} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".ko") && !strings.HasSuffix(d.Name(), ".cmd") {
					s.paths[moduleName(path)] = path
				}
				return nil
			})
			if err != nil {
				return s, fmt.Errorf("modules of kernel %s: %w", k.Name, err)
			}
		}
	}
	return s, nil
}

// moduleName is the name of the module in a file: kernel/fs/9p/9p.ko.xz → 9p.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// load reads the modules of these names and all they depend on, in the order to load them. Names
// that are built in, or that the kernel does not have, are left out: the guest finds out what is missing.
func (s moduleSet) load(ctx context.Context, names []string) ([]module, error) {
	var out []module
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		path, ok := s.paths[name]
		if seen[name] || s.builtin[name] || !ok {
			return nil
		}
		seen[name] = true
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			if data, err = uncompress(ctx, data); err != nil {
				return fmt.Errorf("module %s: %w", path, err)
			}
		}
		deps, err := moduleDeps(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		for _, d := range deps {
			if err := add(d); err != nil {
				return err
			}
		}
		out = append(out, module{name: name, data: data})
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// moduleDeps reads "depends=" from a module's .modinfo section, a list of strings that end in zero.
func moduleDeps(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	sec := f.Section(".modinfo")
	if sec == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := sec.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for _, kv := range strings.Split(string(info), "\x00") {
		// softdep "pre:" is left out: what a guest needs of those is in its list
		if v, ok := strings.CutPrefix(kv, "depends="); ok && v != "" {
			deps = append(deps, strings.Split(v, ",")...)
		}
	}
	return deps, nil
}
