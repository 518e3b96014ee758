package fusesrv

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServe(t *testing.T) {
	f := mountFake(t, nil)
	for name, want := range map[string]string{
		".wcfs/zurl": f.tree.zurl, "head/at": "0000000000000010", ".wcfs/stats": "BigFile\t: 2\npin\t: 7\n",
	} {
		got, err := os.ReadFile(f.path(name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"head/bigfile/0000000000000001", "@0000000000000005/bigfile/0000000000000001"} {
		got, err := os.ReadFile(f.path(name))
		if err != nil || !bytes.Equal(got, fakeBytes(1, 0, 0, 64*fakeBlk)) {
			t.Errorf("%s: wrong bytes (%d of them), %v", name, len(got), err)
		}
	}
	ents, err := os.ReadDir(f.path("head"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range ents {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	if got := strings.Join(names, " "); got != "at bigfile watch watch9" {
		t.Errorf("readdir of head: %s", got)
	}
}

func TestStat(t *testing.T) {
	f := mountFake(t, nil)
	var st syscall.Stat_t
	if err := syscall.Stat(f.path("head/bigfile/0000000000000002"), &st); err != nil {
		t.Fatal(err)
	}
	var ino uint64
	f.tree.set(func() { ino = f.tree.heads[2].id })
	if st.Mode != syscall.S_IFREG|0o444 || st.Size != 64*fakeBlk || int64(st.Blksize) != fakeBlk ||
		st.Ino != ino || st.Mtim.Nano() != 1e18+123456000 {
		t.Errorf("stat: %+v", st)
	}
	f.tree.set(func() { f.tree.sizes[2] += fakeBlk })
	if err := syscall.Stat(f.path("head/bigfile/0000000000000002"), &st); err != nil || st.Size != 65*fakeBlk {
		t.Errorf("stat after growth: size %d, %v", st.Size, err)
	}
}

func TestErrno(t *testing.T) {
	f := mountFake(t, nil)
	_, err := os.Stat(f.path("nope"))
	for _, c := range []struct {
		what string
		err  error
		want syscall.Errno
	}{
		{"no such name", err, syscall.ENOENT},
		{"not an oid", second(os.Stat(f.path("head/bigfile/xyz"))), syscall.EINVAL},
		{"a long name", second(os.Stat(f.path("head/bigfile/" + strings.Repeat("y", 256)))), syscall.ENAMETOOLONG},
		{"a longer name", second(os.Stat(f.path(strings.Repeat("y", 5000)))), syscall.ENAMETOOLONG},
		{"no such bigfile", second(os.Stat(f.path("head/bigfile/0000000000000099"))), syscall.EINVAL},
		{"write a bigfile", second(os.OpenFile(f.path("head/bigfile/0000000000000001"), os.O_RDWR, 0)), syscall.EROFS},
		{"truncate", os.Truncate(f.path("head/at"), 0), syscall.EROFS},
		{"create", second(os.Create(f.path("head/new"))), syscall.EROFS},
		{"mkdir", os.Mkdir(f.path("head/new"), 0o777), syscall.EROFS},
		{"unlink", os.Remove(f.path("head/at")), syscall.EROFS},
		{"rename", os.Rename(f.path("head/at"), f.path("head/to")), syscall.EROFS},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	// as a shell's ">" opens it
	if err := os.WriteFile(f.path("head/watch"), []byte("1 bye\n"), 0o666); err != nil {
		t.Errorf("write to a watch file: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMountEntry(t *testing.T) {
	f := mountFake(t, nil)
	m, err := findMount(f.dir)
	if err != nil || m.fsType != "fuse.wcfs" || m.source != f.tree.zurl {
		t.Fatalf("%+v, %v", m, err)
	}
	raw, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if w := strings.Fields(line); w[1] == f.dir {
			if got := unescape(w[0]); got != f.tree.zurl || w[2] != "fuse.wcfs" {
				t.Errorf("/proc/mounts: source %q, type %s", got, w[2])
			}
			return
		}
	}
	t.Error("not in /proc/mounts")
}

func TestUnmountIsQuick(t *testing.T) {
	f := mountFake(t, nil)
	if _, err := os.ReadFile(f.path("head/bigfile/0000000000000001")); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := f.srv.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > atOnce/4 {
		t.Errorf("took %v", d)
	}
	if _, err := os.Stat(f.path("head")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
