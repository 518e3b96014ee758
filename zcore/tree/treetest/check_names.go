package treetest

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"wcfs/zcore/zodb"
)

// statNames are the counters that .wcfs/stats always has, in no particular order.
var statNames = []string{"BigFile", "RevHead", "ZHeadLink", "WatchLink", "Watch", "PinnedBlk", "pin", "pinkill"}

func checkLayout(e *Env) error {
	want := map[string][]string{
		"":      {".wcfs", "head"},
		".wcfs": {"zurl", "pintimeout", "version", "health", "stats", "state"},
		"head":  {"at", "watch", "watch9", "base", "bigfile"},
	}
	if !e.NoBase {
		want[""] = append(want[""], "base")
	}
	if e.Manifest.Debug {
		want[".wcfs"] = append(want[".wcfs"], "debug")
		want[".wcfs/debug"] = []string{"zhead"}
	}
	for dir, names := range want {
		got, err := e.FS.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("readdir %q: %w", dir, err)
		}
		for _, name := range names {
			if !slices.Contains(got, name) {
				return fmt.Errorf("readdir %q: %q is missing in %q", dir, name, got)
			}
			if _, err := e.FS.Stat(join(dir, name)); err != nil {
				return fmt.Errorf("listed, but: %w", err)
			}
		}
	}
	if !e.Manifest.Debug {
		return wantErr(e, ".wcfs/debug", syscall.ENOENT)
	}
	return nil
}

func checkControl(e *Env) error {
	for name, want := range map[string]string{
		".wcfs/zurl":       e.Manifest.ZURL,
		".wcfs/pintimeout": e.Manifest.PinTimeout,
	} {
		if err := wantText(e, name, want); err != nil {
			return err
		}
	}
	return nil
}

var statLine = regexp.MustCompile(`^([A-Za-z0-9_.]+)\t: (\d+)$`)

func checkStats(e *Env) error {
	text, err := readText(e, ".wcfs/stats")
	if err != nil {
		return err
	}
	if !strings.HasSuffix(text, "\n") {
		return fmt.Errorf(".wcfs/stats does not end with a newline: %q", text)
	}
	var names []string
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		m := statLine.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf(".wcfs/stats: bad line %q", line)
		}
		names = append(names, m[1])
	}
	for _, name := range statNames {
		if !slices.Contains(names, name) {
			return fmt.Errorf(".wcfs/stats: %q is missing in %q", name, names)
		}
	}
	return nil
}

// noOid is how a name in bigfile/ is answered that is no oid.
func noOid(e *Env) syscall.Errno {
	if e.OldNames {
		return syscall.EINVAL
	}
	return syscall.ENOENT
}

func checkBadNames(e *Env) error {
	m := e.Manifest
	type bad struct {
		path string
		want syscall.Errno
	}
	list := []bad{
		{"x", syscall.ENOENT}, {"@", syscall.ENOENT}, {"@x", syscall.ENOENT}, {"Head", syscall.ENOENT},
		{"@" + strings.ToUpper("00000000000000aa"), syscall.ENOENT},
		{"@" + m.Head.String()[1:], syscall.ENOENT}, {"@" + m.Head.String() + "0", syscall.ENOENT},
		{m.Head.String(), syscall.ENOENT},
		{"@" + zodb.TidMax.String(), syscall.ENOENT}, {"@ffffffffffffffff", syscall.ENOENT},
		{"head/x", syscall.ENOENT}, {".wcfs/x", syscall.ENOENT}, {"@" + m.Head.String() + "/x", syscall.ENOENT},
	}
	if !e.HeadMoves {
		list = append(list, bad{"@" + (m.Head + 1).String(), syscall.ENOENT})
	}
	if !e.NoBase {
		list = append(list, bad{"base/x", syscall.EINVAL}, bad{"base/" + zodb.TidMax.String(), syscall.ENOENT},
			bad{"base/" + m.Head.String() + "/x", syscall.ENOENT}, bad{"base/" + m.Head.String() + "/at", syscall.ENOENT})
	}
	bigfiles := []string{"head/bigfile/", "@" + m.Head.String() + "/bigfile/"}
	if !e.NoBase {
		bigfiles = append(bigfiles, "base/"+m.Head.String()+"/bigfile/")
	}
	for _, dir := range bigfiles {
		for _, name := range []string{"x", "000000000000000", "00000000000000001", "0x00000000000001", "00000000000000AA", "@000000000000001"} {
			list = append(list, bad{dir + name, noOid(e)})
		}
		for _, oid := range m.NotFiles {
			list = append(list, bad{dir + oid.String(), syscall.EINVAL})
		}
	}
	for _, f := range m.Files {
		list = append(list,
			bad{revPath(f.Revs[0].Tid-1, f.Oid), syscall.EINVAL},
			bad{revPath(0, f.Oid), syscall.EINVAL})
	}
	for _, b := range list {
		if err := wantErr(e, b.path, b.want); err != nil {
			return err
		}
	}
	return nil
}

func checkNotDir(e *Env) error {
	for _, path := range []string{".wcfs/zurl/x", "head/at/x", headPath(e.Manifest.Files[0].Oid) + "/x"} {
		if err := wantErr(e, path, syscall.ENOTDIR); err != nil {
			return err
		}
	}
	return nil
}

func checkListings(e *Env) error {
	m := e.Manifest
	for _, f := range m.Files {
		if _, err := e.FS.Stat(headPath(f.Oid)); err != nil {
			return err
		}
		if err := wantListed(e, "head/bigfile", f.Oid.String()); err != nil {
			return err
		}
		// what is below a revision is known as long as it is in use
		file, err := e.FS.Open(revPath(m.Head, f.Oid), false)
		if err != nil {
			return err
		}
		err = errors.Join(
			wantListed(e, "", revsListed(e)...),
			wantListed(e, "@"+m.Head.String(), "at", "bigfile"),
			wantListed(e, "@"+m.Head.String()+"/bigfile", f.Oid.String()),
			file.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

// revsListed is the revision that a listing of the root must have: in the form of existing clients.
func revsListed(e *Env) []string {
	if e.OldNames {
		return []string{"@" + e.Manifest.Head.String()}
	}
	return nil
}

func checkReadOnly(e *Env) error {
	m := e.Manifest
	for _, path := range []string{
		".wcfs/zurl", ".wcfs/stats", "head/at", "@" + m.Head.String() + "/at",
		headPath(m.Files[0].Oid), revPath(m.Head, m.Files[0].Oid),
	} {
		f, err := e.FS.Open(path, true)
		if err == nil {
			f.Close()
			return fmt.Errorf("%s: could be opened for writing", path)
		}
		// a kernel may look at the permission bits before it asks the server
		if !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EACCES) {
			return fmt.Errorf("open %s for writing: %w; want EROFS", path, err)
		}
	}
	return nil
}

// wantListed checks that a directory lists names, and nothing twice.
func wantListed(e *Env, dir string, names ...string) error {
	got, err := e.FS.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("readdir %q: %w", dir, err)
	}
	slices.Sort(got)
	if n := len(got); len(slices.Compact(slices.Clone(got))) != n {
		return fmt.Errorf("readdir %q: a name is listed twice: %q", dir, got)
	}
	for _, name := range names {
		if !slices.Contains(got, name) {
			return fmt.Errorf("readdir %q: %q is missing in %q", dir, name, got)
		}
	}
	return nil
}

func wantErr(e *Env, path string, want syscall.Errno) error {
	_, err := e.FS.Stat(path)
	if !errors.Is(err, want) {
		return fmt.Errorf("stat %s: got %v, want %v", path, err, want)
	}
	return nil
}

func wantText(e *Env, path, want string) error {
	got, err := readText(e, path)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s: got %q, want %q", path, got, want)
	}
	return nil
}

// readText reads a small file as cat does: until the end.
func readText(e *Env, path string) (string, error) {
	f, err := e.FS.Open(path, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(text), nil
}

func join(dir, name string) string { return strings.TrimPrefix(dir+"/"+name, "/") }

func headPath(oid zodb.Oid) string { return "head/bigfile/" + oid.String() }

func revPath(tid zodb.Tid, oid zodb.Oid) string {
	return "@" + tid.String() + "/bigfile/" + oid.String()
}

func basePath(tid zodb.Tid, oid zodb.Oid) string {
	return "base/" + tid.String() + "/bigfile/" + oid.String()
}
