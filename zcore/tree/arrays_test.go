package tree_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// commitRoot commits a root object that is a PersistentMapping with these items.
func (w *world) commitRoot(t *testing.T, after zodb.Tid, items map[any]any) zodb.Tid {
	t.Helper()
	tid := max(w.core.Head(), after) + 0x10000
	root := record.Py3().Encode(record.Class{Module: "persistent.mapping", Name: "PersistentMapping"}, map[any]any{"data": items})
	if err := w.stor.Commit(tid, map[zodb.Oid][]byte{0: root}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); w.core.Head() < tid; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("head does not get to %s", tid)
		}
	}
	return tid
}

func (w *world) readlink(path string) (string, error) {
	n, err := w.in.walk(path)
	if err != nil {
		return "", err
	}
	defer n.Release()
	l, ok := n.(tree.Linker)
	if !ok || n.Kind() != tree.Link {
		return "", syscall.EINVAL
	}
	target, err := l.Readlink(context.Background())
	return target, errno(err)
}

// TestArrays: links and JSON below head follow commits, those below @tid stay, and a revision in which only names were
// looked at is forgotten.
func TestArrays(t *testing.T) {
	w := serve(t, tree.Options{Arrays: true})
	file := func(i int) any {
		return record.Py3().Ref(w.man.Files[i].Oid, record.Class{Module: record.ModBigFile, Name: "ZBigFile"})
	}
	t0 := w.man.Head
	t1 := w.commitRoot(t, 0, map[any]any{"a": file(0), "d": map[any]any{"e/f": file(1)}, strings.Repeat("y", 300): file(0), "n": int64(7)})
	t2 := w.commitRoot(t, 0, map[any]any{"a": file(1)})
	w.commitRoot(t, 0, map[any]any{"a": file(0), "d": map[any]any{"e/f": file(1)}, strings.Repeat("y", 300): file(0)})
	long := strings.Repeat("y", 240) + "%+"
	oid0, oid1 := w.man.Files[0].Oid.String(), w.man.Files[1].Oid.String()
	for path, want := range map[string]string{
		"head/arrays/a": "../bigfile/" + oid0, "head/arrays/d/e%2Ff": "../../bigfile/" + oid1, "@" + t2.String() + "/arrays/a": "../bigfile/" + oid1,
		"@" + t1.String() + "/arrays/a": "../bigfile/" + oid0, "head/arrays/" + long + "/" + strings.Repeat("y", 60): "../../bigfile/" + oid0,
	} {
		if got, err := w.readlink(path); err != nil || got != want {
			t.Errorf("%s leads to %q (%v), want %q", path, got, err, want)
		}
		f, err := w.in.Open(path+".json", false)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 4096)
		n, _ := f.ReadAt(text, 0)
		var info tree.ArrayInfo
		if err := json.Unmarshal(text[:n], &info); err != nil || info.Kind != "bigfile" || !strings.HasSuffix(want, info.Oid) {
			t.Errorf("%s.json: %s (%v)", path, text[:n], err)
		}
		f.Close()
	}
	for dir, want := range map[string][]string{
		"head/arrays": {"a", "a.json", "d", long}, "head/arrays/d": {"e%2Ff", "e%2Ff.json"}, "@" + t2.String() + "/arrays": {"a", "a.json"},
		"@" + t0.String() + "/arrays": nil, "head/arrays/" + long: {strings.Repeat("y", 60), strings.Repeat("y", 60) + ".json"},
	} {
		got, err := w.in.ReadDir(dir)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s lists %q (%v), want %q", dir, got, err, want)
		}
	}
	for _, path := range []string{"head/arrays/b", "head/arrays/n", "head/arrays/d.json", "head/arrays/a/b", "@" + t2.String() + "/arrays/d",
		"@" + t0.String() + "/arrays/a", "head/arrays/z%+", "head/arrays/%zz"} {
		if _, err := w.in.Stat(path); !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := stat(t, w, "RevHead"); n != 0 {
		t.Errorf("%d revisions are still known", n)
	}
}

// TestArraysOff: what existing clients start has no names of arrays and no moments.
func TestArraysOff(t *testing.T) {
	w := serve(t, tree.Options{OldNames: true})
	for _, path := range []string{"head/arrays", "@" + w.man.Head.String() + "/arrays", "@now"} {
		if _, err := w.in.Stat(path); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestMoments: @MOMENT leads to a revision, and is not listed.
func TestMoments(t *testing.T) {
	w := serve(t, tree.Options{Arrays: true, Tag: func(name string) (string, bool) { return w0, name == "release-1" }})
	for path, want := range map[string]string{"@now": "@" + w.man.Head.String(), "@2200-01-01": "@" + w.man.Head.String(), "@release-1": "@" + w0} {
		if got, err := w.readlink(path); err != nil || got != want {
			t.Errorf("%s leads to %q (%v), want %q", path, got, err, want)
		}
	}
	if list, err := w.in.ReadDir(""); err != nil || slices.ContainsFunc(list, func(s string) bool { return s[0] == '@' }) {
		t.Errorf("the root lists %q (%v)", list, err)
	}
	for _, path := range []string{"@release-2", "@yesterday"} {
		if _, err := w.in.Stat(path); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

const w0 = "03e5a3342bc5ab22"
