package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Debian's kernels are fetched with a private apt configuration below the cache folder: its sources
// are those the machine has, plus the backports suite of the same archive. The machine's own lists
// and packages are not touched, and root is not needed.

// debianKernel finds a kernel of the version in the cache, or fetches it; "" is Debian's current one.
func debianKernel(ctx context.Context, version, cache string, progress Progress) (Kernel, error) {
	store := filepath.Join(cache, "kernels")
	if k, ok := cachedKernel(version, store); ok {
		if !fileExists(filepath.Join(k.Modules, "modules.dep")) { // of a version that did not make it
			_ = depmod(ctx, filepath.Join(store, k.Release), k.Release) // only modprobe in a guest lacks it
		}
		return k, nil
	}
	fail := func(err error) (Kernel, error) { return Kernel{}, fmt.Errorf("kernel %s: %w", version, err) }
	for _, p := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(p); err != nil {
			return fail(fmt.Errorf("%w: fetching by version needs Debian's apt and dpkg; give a bzImage or a build tree", ErrKernel))
		}
	}
	if err := os.MkdirAll(store, 0o755); err != nil {
		return fail(err)
	}
	unlock, err := lockFile(filepath.Join(store, "lock"))
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if k, ok := cachedKernel(version, store); ok { // another process was faster
		return k, nil
	}
	progress("looking for %s in Debian's archive", kernelName(version))
	a := apt{dir: filepath.Join(cache, "apt")}
	if err := a.update(ctx); err != nil {
		return fail(err)
	}
	pkg, err := a.choose(ctx, version)
	if err != nil {
		return fail(err)
	}
	rel := strings.TrimPrefix(pkg, "linux-image-")
	if dir := filepath.Join(store, rel); !isDir(dir) {
		progress("downloading %s%s, which is kept in %s", pkg, a.size(ctx, pkg), dir)
		if err := a.fetch(ctx, pkg, dir); err != nil {
			return fail(err)
		}
	}
	if version == "" { // the newest one in the cache may be of backports, and is not what was asked for
		if err := os.WriteFile(filepath.Join(store, currentNote), []byte(rel), 0o644); err != nil {
			return fail(err)
		}
	}
	k, ok := cachedKernel(version, store)
	if !ok {
		return fail(fmt.Errorf("%w: package %s holds no kernel", ErrKernel, pkg))
	}
	return k, nil
}

// currentNote is the file in the cache that says which release Debian's current kernel was when it was last looked for.
const currentNote = "current"

func kernelName(version string) string {
	if version == "" {
		return "the current kernel"
	}
	return "a kernel " + version
}

// size is the size of a package's file as the archive tells it, for a message; "" if it does not.
func (a apt) size(ctx context.Context, pkg string) string {
	out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(line, "Size: "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
				return fmt.Sprintf(" (%d MiB)", (n+1<<20-1)>>20)
			}
		}
	}
	return ""
}

// cachedKernel is the newest one of that version in the cache; "" is the one in currentNote. Each is a folder named by its
// release, which exists only when it is complete.
func cachedKernel(version, store string) (Kernel, bool) {
	if version == "" {
		rel, err := os.ReadFile(filepath.Join(store, currentNote))
		if err != nil || len(rel) == 0 {
			return Kernel{}, false
		}
		version = string(rel)
	}
	names, _ := filepath.Glob(filepath.Join(store, "[0-9]*"))
	var found []string
	for _, n := range names {
		if rel := filepath.Base(n); ofVersion(rel, version) && !strings.Contains(rel, ".part") {
			found = append(found, rel)
		}
	}
	if len(found) == 0 {
		return Kernel{}, false
	}
	sort.Slice(found, func(i, j int) bool { return versionLess(found[i], found[j]) })
	rel := found[len(found)-1]
	dir := filepath.Join(store, rel)
	k := Kernel{Name: version, Release: rel, Image: filepath.Join(dir, "boot/vmlinuz-"+rel), Modules: filepath.Join(dir, "lib/modules", rel)}
	if v := filepath.Join(dir, "vmlinux"); fileExists(v) {
		k.BzImage, k.Image = k.Image, v
	}
	return k, fileExists(k.Image)
}

// ofVersion tells whether a release is of a version: 6.1.0-56-amd64 is of 6.1, of 6.1.0, not of 6.12.
func ofVersion(rel, version string) bool {
	if version == "" {
		return true
	}
	rest, ok := strings.CutPrefix(rel, version)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '-' || rest[0] == '+')
}

// versionLess compares releases by the numbers in them.
func versionLess(a, b string) bool {
	na, nb := numbers(a), numbers(b)
	for i := 0; i < len(na) && i < len(nb); i++ {
		if na[i] != nb[i] {
			return na[i] < nb[i]
		}
	}
	return len(na) < len(nb)
}

func numbers(s string) []int {
	var out []int
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(f)
		out = append(out, n)
	}
	return out
}

// apt runs apt with a configuration of its own in dir.
type apt struct{ dir string }

func (a apt) run(ctx context.Context, program string, args ...string) (string, error) {
	opts := []string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + filepath.Join(a.dir, "lists"), "-o", "Dir::Cache=" + a.dir,
		"-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3", "-o", "Acquire::Languages=none", "-qq",
	}
	cmd := exec.CommandContext(ctx, program, append(opts, args...)...)
	cmd.Dir = a.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// update writes the private sources and loads their lists.
func (a apt) update(ctx context.Context) error {
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return fmt.Errorf("apt-get indextargets: %w", err)
	}
	sources := aptSources(string(out))
	if sources == "" {
		return fmt.Errorf("%w: apt has no sources of Debian configured", ErrKernel)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(sources), 0o644); err != nil {
		return err
	}
	_, err = a.run(ctx, "apt-get", "update")
	return err
}

// aptSources turns the targets apt knows (lines of URI, suite, component) into source lines, and adds
// the backports of every plain suite of Debian. A suite that is not there is no error to apt-get update.
func aptSources(targets string) string {
	const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
	signed := ""
	if fileExists(keys) {
		signed = "[signed-by=" + keys + "] "
	}
	lines := map[string]bool{}
	for _, l := range strings.Split(targets, "\n") {
		f := strings.Fields(l)
		if len(f) != 3 || !strings.Contains(f[0], "debian") {
			continue
		}
		lines["deb "+signed+l] = true
		if !strings.ContainsAny(f[1], "-/") {
			lines[fmt.Sprintf("deb %s%s %s-backports %s", signed, f[0], f[1], f[2])] = true
		}
	}
	var out []string
	for l := range lines {
		out = append(out, l+"\n")
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// choose names the newest signed kernel package of the version.
func (a apt) choose(ctx context.Context, version string) (string, error) {
	const prefix, suffix = "linux-image-", "-amd64"
	if version == "" {
		out, err := a.run(ctx, "apt-cache", "depends", "--important", "linux-image-amd64")
		if err != nil {
			return "", err
		}
		for _, w := range strings.Fields(out) {
			if strings.HasPrefix(w, prefix) && w != "linux-image-amd64" {
				return w, nil
			}
		}
		return "", fmt.Errorf("%w: linux-image-amd64 depends on no kernel", ErrKernel)
	}
	out, err := a.run(ctx, "apt-cache", "pkgnames", prefix+version)
	if err != nil {
		return "", err
	}
	best := ""
	for _, p := range strings.Fields(out) {
		rel := strings.TrimPrefix(p, prefix)
		numeric := strings.TrimSuffix(rel, suffix)
		// "linux-image-6.12-amd64" is a metapackage; -rt-, -cloud- and -unsigned ones are other kernels
		if !strings.HasSuffix(rel, suffix) || strings.Contains(numeric, "-cloud") || strings.Contains(numeric, "-rt") ||
			len(numbers(numeric)) < 3 || !ofVersion(rel, version) {
			continue
		}
		if best == "" || versionLess(best, p) {
			best = p
		}
	}
	if best == "" {
		return "", fmt.Errorf("%w: Debian's archive has no kernel of this version for this release, nor in its backports", ErrKernel)
	}
	return best, nil
}

// fetch downloads a kernel package and unpacks it as dir.
func (a apt) fetch(ctx context.Context, pkg, dir string) error {
	for _, old := range globAll(filepath.Join(a.dir, pkg+"_*.deb")) {
		os.Remove(old)
	}
	if _, err := a.run(ctx, "apt-get", "download", pkg); err != nil {
		return err
	}
	debs := globAll(filepath.Join(a.dir, pkg+"_*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d files", pkg, len(debs))
	}
	defer os.Remove(debs[0])
	tmp := dir + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb -x %s: %w: %s", filepath.Base(debs[0]), err, out)
	}
	image := filepath.Join(tmp, "boot/vmlinuz-"+filepath.Base(dir))
	if err := uncompressKernel(ctx, image, filepath.Join(tmp, "vmlinux")); err != nil && !errors.Is(err, errCompressed) {
		return err
	}
	if err := depmod(ctx, tmp, filepath.Base(dir)); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// depmod lists which module needs which, for modprobe in a guest. A host without depmod has no modprobe to use it.
func depmod(ctx context.Context, base, release string) error {
	for _, program := range []string{"depmod", "/sbin/depmod"} {
		if path, err := exec.LookPath(program); err == nil {
			if out, err := exec.CommandContext(ctx, path, "-b", base, release).CombinedOutput(); err != nil {
				return fmt.Errorf("%s -b %s: %w: %s", path, base, err, out)
			}
			return nil
		}
	}
	return nil
}

func globAll(pattern string) []string {
	m, _ := filepath.Glob(pattern)
	return m
}

func fileExists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// lockFile takes an exclusive lock on a file, which it creates, and returns what gives it back.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
