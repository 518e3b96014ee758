package qemu

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		rel, version string
		want         bool
	}{
		{"6.1.0-56-amd64", "6.1", true}, {"6.1.0-56-amd64", "6.1.0", true}, {"6.12.1+deb12-amd64", "6.1", false},
		{"6.12.1+deb12-amd64", "6.12", true}, {"6.12.1+deb12-amd64", "6.12.1", true}, {"6.12.11+deb12-amd64", "6.12.1", false},
		{"6.1.0-56-amd64", "", true},
	} {
		if got := ofVersion(c.rel, c.version); got != c.want {
			t.Errorf("ofVersion(%q, %q) = %v", c.rel, c.version, got)
		}
	}
	list := []string{"6.12.9+deb12-amd64", "6.1.0-9-amd64", "6.12.10+deb12-amd64", "6.1.0-10-amd64"}
	slices.SortFunc(list, func(a, b string) int {
		if versionLess(a, b) {
			return -1
		}
		return 1
	})
	if got := strings.Join(list, " "); got != "6.1.0-9-amd64 6.1.0-10-amd64 6.12.9+deb12-amd64 6.12.10+deb12-amd64" {
		t.Errorf("sorted: %s", got)
	}
	for name, want := range map[string]bool{"6.1": true, "6.12.95": true, "6": false, "6.x": false, "./6.1": false, "bzImage": false, "6..1": false} {
		if isVersion(name) != want {
			t.Errorf("isVersion(%q) = %v", name, !want)
		}
	}
}

func TestAptSources(t *testing.T) {
	got := aptSources("http://mirror.example/debian/ bookworm main\nhttp://mirror.example/debian/ bookworm-updates main\n" +
		"http://other.example/stuff/ stable main\n")
	for _, want := range []string{"debian/ bookworm main\n", "debian/ bookworm-updates main\n", "debian/ bookworm-backports main\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Count(got, "\n") != 3 || strings.Contains(got, "stuff") {
		t.Errorf("too much:\n%s", got)
	}
}

// TestCpio has busybox unpack an archive.
func TestCpio(t *testing.T) {
	var buf bytes.Buffer
	c := newCpio(&buf)
	c.file("a/b/c", 0o640, []byte("hello"))
	c.file("a/d", 0o755, bytes.Repeat([]byte("x"), 4097))
	c.symlink("a/l", "b/c")
	c.file("empty", 0o600, nil)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("busybox", "cpio", "-i", "-m")
	cmd.Dir, cmd.Stdin = dir, &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{"a/b/c": "hello", "a/l": "hello", "a/d": strings.Repeat("x", 4097), "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "a/b/c")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode: %v %v", st, err)
	}
	bad := newCpio(failingWriter{})
	bad.file("x", 0o644, []byte("y"))
	if bad.close() == nil {
		t.Error("an error of the writer was lost")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestShellQuote(t *testing.T) {
	for _, s := range []string{"", "a b", "it's", "$HOME `x` \\ \"", "new\nline", "-n"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q came back as %q, %v", s, out, err)
		}
	}
}

func TestTail(t *testing.T) {
	var c tail
	for _, s := range []string{"one\r\n", "[ 1.0] Kernel pan", "ic - not syncing: oh\n", "\x1b[0mtwo\n"} {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.panicLine(); got != "[ 1.0] Kernel panic - not syncing: oh" {
		t.Errorf("panic: %q", got)
	}
	if got := c.lastLines(); !strings.HasPrefix(got, "one\n") || !strings.HasSuffix(got, "two") || strings.ContainsRune(got, 0x1b) {
		t.Errorf("last lines: %q", got)
	}
	var seen bytes.Buffer
	c.also = &seen
	for _, s := range []string{"\x1bc\x1b[?7l\x1b[2J\x1b[0m[ 0.1] Lin", "ux\r\n[ 0.2] \x1b[31mred\x1b[m", "\n\x1b]0;title\x07half"} {
		_, _ = c.Write([]byte(s))
	}
	if got := seen.String(); got != "[ 0.1] Linux\n[ 0.2] red\n" {
		t.Errorf("lines passed on: %q", got)
	}
	for range 100 {
		_, _ = c.Write(bytes.Repeat([]byte("0123456789abcde\n"), 1024))
	}
	if got := len(c.text()); got != tailSize {
		t.Errorf("kept %d bytes", got)
	}
}

// TestMark: whatever pieces output comes in, all up to the mark is passed on, and nothing of that is kept back
// that cannot be a mark's beginning.
func TestMark(t *testing.T) {
	const mark = "\x1eMARK"
	for _, c := range []struct{ in, want string }{
		{"all" + mark, "all"}, {mark, ""}, {"a\x1eb" + mark + "rest", "a\x1eb"}, {"\x1eMAR\x1e" + mark + mark, "\x1eMAR\x1e"}, {"no end\x1eMA", "no end\x1eMA"}, {"", ""},
	} {
		for n := 1; n <= len(c.in)+1; n++ {
			r, w := io.Pipe()
			go func() {
				for s := c.in; s != ""; s = s[min(n, len(s)):] {
					_, _ = io.WriteString(w, s[:min(n, len(s))])
				}
				w.Close()
			}()
			var got bytes.Buffer
			ended := make(chan struct{})
			copyStream(&got, r, mark, ended, func(err error) { t.Error(err) })
			<-ended
			if got.String() != c.want {
				t.Errorf("%q in pieces of %d: %q", c.in, n, got.String())
			}
		}
	}
	if give, kept, found := splitAtMark([]byte("prompt> "), mark); string(give) != "prompt> " || kept != nil || found {
		t.Errorf("%q is kept back", kept)
	}
	ended := make(chan struct{})
	var failures []error
	in := io.MultiReader(strings.NewReader("x"), strings.NewReader("y"+mark))
	copyStream(failingWriter{}, in, mark, ended, func(err error) { failures = append(failures, err) }) // reads on
	<-ended
	if len(failures) != 1 {
		t.Errorf("a writer that fails was reported %d times: %v", len(failures), failures)
	}
}

func TestEscape(t *testing.T) {
	quits := 0
	e := &escapeReader{r: strings.NewReader("ab\x1d\x1dc\x1dxd\x1dqe"), quit: func() { quits++ }}
	got, err := io.ReadAll(e)
	if err != nil || string(got) != "ab\x1dcxde" || quits != 1 {
		t.Errorf("%q, %d quits, %v", got, quits, err)
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts("22 1 0:21 / /proc rw - proc proc rw\n36 22 0:50 / /mnt/a\\040b rw,nosuid shared:5 - fuse.wcfs wcfs rw\nbroken\n", "fuse.wcfs")
	if len(got) != 1 || got[0] != "/mnt/a b" {
		t.Errorf("%q", got)
	}
}

func TestExposed(t *testing.T) {
	for _, c := range []struct{ dir, program, want string }{
		{"/home", "/bin/true", ""}, {"/tmp", "/tmp/prog", "/tmp/prog"}, {"/tmp/a", "/tmp/a/b/prog", "/tmp/a"}, {"/tmp/a", "/tmp/ab", "/tmp/a /tmp/ab"},
		{"/", "/run/x/prog", "/run/x/prog"}, {"/dev/shm/w", "/bin/true", "/dev/shm/w"}, {"/runner", "/tmpfs/prog", ""},
	} {
		if got := strings.Join(exposed(c.dir, c.program), " "); got != c.want {
			t.Errorf("%s from %s: %q", c.program, c.dir, got)
		}
	}
}

// TestRefusals: what cannot work is refused with a word that helps.
func TestRefusals(t *testing.T) {
	notKernel := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notKernel, make([]byte, 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, say := range map[string]string{notKernel: "not a bzImage", "/nonexistent": "neither a file", t.TempDir(): "not a build tree"} {
		if _, err := FindKernel(t.Context(), name, t.TempDir(), nil); !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), say) {
			t.Errorf("kernel %s: %v", name, err)
		}
	}
	k := Kernel{Name: "k", Image: "/nonexistent"}
	for say, s := range map[string]Spec{
		"no kernel":       {Program: []string{"x"}},
		"no program":      {Kernel: k},
		"zero byte":       {Kernel: k, Program: []string{"x\x00"}},
		"MiB":             {Kernel: k, Program: []string{"x"}, Memory: 1},
		"is not a folder": {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "t", Dir: notKernel, Mount: "/x"}}},
		"is no tag":       {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "a,b", Dir: "/", Mount: "/x"}}},
		"folders below":   {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "t", Dir: "/", Mount: "/"}}},
		"of its own":      {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "t", Dir: "/proc", Mount: "/proc/"}}},
		"have the tag":    {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "t", Dir: "/usr", Mount: "/usr"}, {Tag: "t", Dir: "/etc", Mount: "/etc"}}},
		"at most 175":     {Kernel: k, Program: []string{"x"}, Shares: make([]Share, 176)},
		"not absolute":    {Kernel: k, Program: []string{"x"}, Shares: []Share{{Tag: "t", Dir: "/", Mount: "x"}}},
	} {
		if _, err := Run(t.Context(), s); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("want %q: %v", say, err)
		}
	}
	for _, addr := range []string{"tcp:192.0.2.1:5640", "tcp:127.0.0.1:x", "/path", "unix:/nonexistent", "tcp:127.0.0.1"} {
		o := RunOptions{NineP: addr}
		if _, err := o.server(t.Context(), &Spec{}); err == nil || !strings.Contains(err.Error(), "--9p "+addr) {
			t.Errorf("--9p %s: %v", addr, err)
		}
	}
}

// TestNoQEMU: without QEMU the error says which package has it.
func TestNoQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Run(context.Background(), Spec{Kernel: Kernel{Image: "/x"}, Program: []string{"x"}})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "Debian package qemu-system-x86") {
		t.Errorf("%v", err)
	}
}

// TestRelay: what goes through, and that a stranger's connection would not.
func TestRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	r, err := startRelay(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", r.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if uid, err := tcpOwner(c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)); err != nil || uid != os.Getuid() {
		t.Errorf("owner of the connection: %d, %v", uid, err)
	}
	if _, err := tcpOwner(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 1}, c.RemoteAddr().(*net.TCPAddr)); err == nil {
		t.Error("a connection that is not there has an owner")
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "ping" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestConfig: what a kernel lacks is named before the boot, from each place where its configuration may be.
func TestConfig(t *testing.T) {
	all := map[string]string{}
	s := Spec{HostRoot: true, Net: NetNeeded, Mounts: []Mount{{Options: "trans=tcp"}}}
	for _, n := range s.needs() {
		all[n.option] = "y"
	}
	write := func(path string, without string) {
		t.Helper()
		var b bytes.Buffer
		for name, v := range all {
			if name == without {
				fmt.Fprintf(&b, "# CONFIG_%s is not set\n", name)
			} else {
				fmt.Fprintf(&b, "CONFIG_%s=%s\n", name, v)
			}
		}
		text := b.Bytes()
		if filepath.Base(path) == "bzImage" {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, _ = w.Write(text)
			w.Close()
			text = slices.Concat([]byte("....IKCFG_ST"), z.Bytes(), []byte("IKCFG_ED...."))
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []string{".config", "config-6.66", "bzImage"} {
		dir := t.TempDir()
		s.Kernel = Kernel{Name: "own", Release: "6.66", Image: filepath.Join(dir, "bzImage"), Modules: dir}
		write(filepath.Join(dir, from), "")
		if err := s.checkConfig(t.Context()); err != nil {
			t.Errorf("%s: %v", from, err)
		}
		for _, n := range s.needs() {
			write(filepath.Join(dir, from), n.option)
			if err := s.checkConfig(t.Context()); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "lacks CONFIG_"+n.option+" for ") {
				t.Errorf("%s without %s: %v", from, n.option, err)
			}
		}
	}
	// a module does where there are modules and it comes in time
	dir := t.TempDir()
	s.Kernel = Kernel{Name: "own", Release: "6.66", Image: filepath.Join(dir, "bzImage"), Modules: dir}
	all["9P_FS"], all["TMPFS"] = "m", "m"
	write(filepath.Join(dir, ".config"), "")
	if err := s.checkConfig(t.Context()); err == nil || !strings.Contains(err.Error(), "lacks CONFIG_TMPFS=y for the start") || strings.Contains(err.Error(), "9P_FS") {
		t.Errorf("%v", err)
	}
}

// TestDefaultKernel: the default is what Debian's archive called current, whatever else is in the cache.
func TestDefaultKernel(t *testing.T) {
	store := t.TempDir()
	for _, rel := range []string{"6.1.0-57-amd64", "6.12.117+deb12-amd64"} {
		if err := os.MkdirAll(filepath.Join(store, rel, "boot"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(store, rel, "boot/vmlinuz-"+rel), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if k, ok := cachedKernel("", store); ok {
		t.Errorf("%s is taken for the current one", k.Release)
	}
	if err := os.WriteFile(filepath.Join(store, currentNote), []byte("6.1.0-57-amd64"), 0o644); err != nil {
		t.Fatal(err)
	}
	if k, ok := cachedKernel("", store); !ok || k.Release != "6.1.0-57-amd64" {
		t.Errorf("%+v", k)
	}
}
