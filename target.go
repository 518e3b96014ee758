package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"wcfs/p9srv"
	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/open"
)

// target is what ls, stat and cat look at: the tree, however it is reached.
type target interface {
	stat(ctx context.Context, path string) (tree.Attr, error)
	list(ctx context.Context, path string) ([]tree.Entry, error)
	readlink(ctx context.Context, path string) (string, error)
	// open returns a reader that blocks for streams.
	open(ctx context.Context, path string) (readAtCloser, error)
	close()
}

type readAtCloser interface {
	io.ReaderAt
	io.Closer
}

// targetArgs are the arguments that ls, stat and cat share.
type targetArgs struct {
	Target string `arg:"" help:"Mount directory, database URL, or 9P address (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT)."`
	Path   string `arg:"" optional:"" default:"/" help:"Path in the tree, like head/bigfile; arrays/NAME is short for head/arrays/NAME."`

	Aname string `placeholder:"PATH" help:"With a 9P address: the subtree to attach to, such as /head; PATH is below it."`
	Tags  string `placeholder:"FILE" help:"With a database URL: the file whose lines are NAME TID-or-MOMENT, for @NAME."`

	Dial p9srv.DialOptions `embed:""`
	storageOptions
}

// targetKind is what a word of the command line can be.
type targetKind string

const (
	aMount   targetKind = "mount directory"
	aNine    targetKind = "9P address"
	aZURL    targetKind = "database URL"
	mountArg            = "a mount directory, like /mnt/x"
)

// kindOf tells by its form alone what is meant; a directory with a colon in its name is ./it.
func kindOf(name string) targetKind {
	scheme, _, ok := strings.Cut(name, ":")
	switch {
	case ok && isNineScheme(scheme):
		return aNine
	case ok && !strings.Contains(scheme, "/"):
		return aZURL
	}
	return aMount
}

// mustBe refuses a target of a kind that a subcommand cannot use; want says what it can.
func mustBe(name, want string, kinds ...targetKind) error {
	kind := kindOf(name)
	if slices.Contains(kinds, kind) {
		return nil
	}
	return usagef("%s is a %s: give %s", open.Redact(name), kind, want)
}

// openTarget tells what kind of target is meant, and opens it.
func (a *targetArgs) openTarget(p *program) (target, error) {
	switch kindOf(a.Target) {
	case aNine:
		return dialTarget(p.ctx, a.Target, a.Aname, a.Dial)
	case aZURL:
		return openZodbTarget(p, a.Target, a.Tags, &a.storageOptions)
	}
	fi, err := os.Stat(a.Target)
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return nil, a.explain(err)
	case err != nil:
		return nil, fmt.Errorf("%w: TARGET is a mount directory, a database URL or a 9P address", err)
	case !fi.IsDir():
		return nil, fmt.Errorf("%s is no directory; a database file is named as file://%s", a.Target, a.Target)
	}
	return dirTarget(a.Target), nil
}

// explain says what to do about an error of PATH, which every kind of target words in its own way.
func (a *targetArgs) explain(err error) error {
	is := func(kind error, errno syscall.Errno) bool {
		return errors.Is(err, kind) || errors.Is(err, errno) || p9srv.ErrnoOf(err) == errno
	}
	name := cleanPath(a.Path)
	dir, base := path.Split(name)
	switch {
	case is(syscall.ENOTCONN, syscall.ENOTCONN):
		return deadMount(a.Target)
	case is(tree.ErrIsDir, syscall.EISDIR):
		return fmt.Errorf("%s is a directory: look into it with `wcfs ls`", a.Path)
	case path.Base(dir) == "bigfile" && (is(tree.ErrInvalid, syscall.EINVAL) || is(tree.ErrNotExist, syscall.ENOENT) && !isOid(base)):
		if _, err := zodb.ParseOid(base); err != nil {
			return fmt.Errorf("%s: the files in bigfile/ are named by their oids: %w", a.Path, err)
		}
		return fmt.Errorf("%s: no bigfile has this oid at this revision; `wcfs ls ZURL %s` lists those that there are", a.Path, strings.TrimSuffix(dir, "/"))
	case is(tree.ErrNotExist, syscall.ENOENT):
		return a.explainAbsent(name)
	}
	if pe := new(fs.PathError); errors.As(err, &pe) {
		err = pe.Err // the rest is the path once more
	}
	return fmt.Errorf("%s: %w", a.Path, err)
}

func isOid(name string) bool {
	_, err := zodb.ParseOid(name)
	return err == nil
}

// explainAbsent is explain for a name that the tree does not have.
func (a *targetArgs) explainAbsent(name string) error {
	first, rest, _ := strings.Cut(name, "/")
	if tid, err := zodb.ParseTid(strings.TrimPrefix(first, "@")); err == nil && (rest == "" || strings.HasPrefix(rest, "bigfile")) {
		return fmt.Errorf("%s: the database has not come to revision %s yet; head/at has the latest", a.Path, tid)
	}
	if kindOf(a.Target) == aMount && fileMissing(a.Target, "head") && fileMissing(a.Target, "at") {
		return fmt.Errorf("%s: no wcfs is mounted there", a.Target)
	}
	if moment, ok := strings.CutPrefix(first, "@"); ok {
		if _, err := zodb.ParseMoment(moment, time.Now()); err != nil {
			return fmt.Errorf("%s is no revision: neither a tid, nor a moment like @-10m or @2026-11-29T12:00, nor a tag of the server", first)
		}
	}
	return fmt.Errorf("%s: there is no such file; `wcfs ls %s /` shows what there is", a.Path, a.Target)
}

func fileMissing(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return errors.Is(err, fs.ErrNotExist)
}

// deadMount is what there is to say of a mount whose server does not serve it any more.
func deadMount(mnt string) error {
	return fmt.Errorf("%s: the server is gone or in EIO mode; `wcfs stop %s` unmounts", mnt, mnt)
}

// cleanPath makes "" of the root, and does not leave the tree.
func cleanPath(name string) string { return strings.Trim(path.Clean("/"+name), "/") }

// where is PATH as the target knows it: @MOMENT, which is a link, becomes the @TID that it leads to.
func (a *targetArgs) where(ctx context.Context, t target) (string, error) {
	name := cleanPath(a.Path)
	moment, rest, _ := strings.Cut(name, "/")
	if at, ok := strings.CutPrefix(moment, "@"); ok {
		if _, err := zodb.ParseTid(at); err == nil {
			return name, nil
		}
		to, err := t.readlink(ctx, moment)
		if err != nil {
			if _, bad := zodb.ParseMoment(at, time.Now()); bad != nil && a.Tags == "" && kindOf(a.Target) == aZURL {
				return "", usagef("%v", bad)
			}
			return "", a.explain(err)
		}
		return cleanPath(path.Join(to, rest)), nil
	}
	if moment == "arrays" && a.Aname == "" {
		name = "head/" + name
	}
	return name, nil
}

// follow returns the path that a symbolic link leads to, or the path as it is.
func follow(ctx context.Context, t target, name string) (string, error) {
	attr, err := t.stat(ctx, name)
	if err != nil || !attr.Link {
		return name, err
	}
	to, err := t.readlink(ctx, name)
	if err != nil {
		return name, err
	}
	return cleanPath(path.Join(path.Dir(name), to)), nil
}

// dirTarget is a mounted tree.
type dirTarget string

func (d dirTarget) stat(_ context.Context, path string) (tree.Attr, error) {
	fi, err := os.Lstat(filepath.Join(string(d), path))
	if err != nil {
		return tree.Attr{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return tree.Attr{
		Ino: st.Ino, Dir: fi.IsDir(), Link: fi.Mode()&fs.ModeSymlink != 0, Perm: uint32(fi.Mode().Perm()), Size: fi.Size(),
		Blksize: int64(st.Blksize), Nlink: uint32(st.Nlink), Mtime: fi.ModTime(),
	}, nil
}

func (d dirTarget) list(_ context.Context, path string) ([]tree.Entry, error) {
	list, err := os.ReadDir(filepath.Join(string(d), path))
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for _, e := range list {
		entries = append(entries, tree.Entry{Name: e.Name(), Dir: e.IsDir(), Link: e.Type()&fs.ModeSymlink != 0})
	}
	return entries, nil
}

func (d dirTarget) open(_ context.Context, path string) (readAtCloser, error) {
	f, err := os.Open(filepath.Join(string(d), path))
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, "head/watch") || strings.HasSuffix(path, ".wcfs/debug/zhead") {
		return streamReader{f}, nil // a stream has no position to read at
	}
	return f, nil
}

func (d dirTarget) readlink(_ context.Context, path string) (string, error) {
	return os.Readlink(filepath.Join(string(d), path))
}

func (d dirTarget) close() {}

// streamReader reads on, wherever it is asked to.
type streamReader struct{ *os.File }

func (s streamReader) ReadAt(p []byte, _ int64) (int, error) { return s.Read(p) }

// mode is attributes as ls -l shows them.
func mode(a tree.Attr) fs.FileMode {
	m := fs.FileMode(a.Perm)
	if a.Dir {
		m |= fs.ModeDir
	}
	if a.Link {
		m |= fs.ModeSymlink
	}
	return m
}

// timeFormat shows microseconds: that is how exact mtimes are.
const timeFormat = "2006-01-02 15:04:05.000000"

func showTime(t time.Time) string { return t.UTC().Format(timeFormat) }
