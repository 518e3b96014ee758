package p9srv

import (
	"errors"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"wcfs/zcore/tree"
)

// TestCodec: the codec of the library, which is not ours, and the server mean the same by every message.
func TestCodec(t *testing.T) {
	w := serve(t, nil)
	conn, err := net.Dial("unix", strings.TrimPrefix(w.addr, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p9.NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root, err := c.Attach("")
	if err != nil {
		t.Fatal(err)
	}
	file := func(path string) p9.File {
		t.Helper()
		qids, f, err := root.Walk(splitPath(path))
		if last := len(qids) - 1; err != nil || last+1 != len(splitPath(path)) || qids[last].Path != w.tree.at(path).ino {
			t.Fatalf("%s: %v, %v", path, qids, err)
		}
		return f
	}
	checkCodecAttr(t, w, file("head/at"))
	st, err := root.StatFS()
	if want := (p9.FSStat{Type: 0x01021997, BlockSize: 4096, NameLength: 255}); err != nil || st != want {
		t.Errorf("statfs: %+v, %v", st, err)
	}
	head := file("head")
	if q, unit, err := head.Open(p9.ReadOnly); err != nil || q.Path != w.tree.at("head").ino || q.Type != p9.TypeDir || unit != 0 {
		t.Errorf("open: %+v, %d, %v", q, unit, err)
	}
	checkCodecDir(t, w, head)
	big := file(bigPath)
	if _, _, err := big.Open(p9.ReadOnly); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 100)
	if n, err := big.ReadAt(buf, 4096); n != 100 || err != nil || string(buf) != string(w.tree.at(bigPath).data[4096:4196]) {
		t.Errorf("read: %d, %v", n, err)
	}
	if _, err := big.ReadAt(buf, 1<<40); err != io.EOF {
		t.Errorf("read past the end: %v", err)
	}
	watch := file("head/watch")
	if _, _, err := watch.Open(p9.ReadWrite); err != nil {
		t.Error(err)
	}
	if n, err := watch.WriteAt([]byte("1 bye\n"), 0); n != 6 || err != nil || w.tree.at("head/watch").written() != "1 bye\n" {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := errors.Join(watch.FSync(), watch.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}), watch.Close(), big.Close()); err != nil {
		t.Error(err)
	}
	checkCodecRefusals(t, head, file("head/at"))
}

func checkCodecAttr(t *testing.T, w *world, f p9.File) {
	t.Helper()
	q, mask, a, err := f.GetAttr(p9.AttrMaskAll)
	n := w.tree.at("head/at")
	sec, nsec := uint64(1600000000), uint64(123456000)
	want := p9.Attr{
		Mode: p9.ModeRegular | 0o444, UID: p9.UID(os.Geteuid()), GID: p9.GID(os.Getegid()), NLink: 1, Size: 16, BlockSize: 2 << 20, Blocks: 1,
		ATimeSeconds: sec, ATimeNanoSeconds: nsec, MTimeSeconds: sec, MTimeNanoSeconds: nsec, CTimeSeconds: sec, CTimeNanoSeconds: nsec,
	}
	if err != nil || q.Path != n.ino || a != want || mask != (p9.AttrMask{
		Mode: true, NLink: true, UID: true, GID: true, RDev: true, ATime: true, MTime: true, CTime: true, INo: true, Size: true, Blocks: true,
	}) {
		t.Errorf("attributes: %+v, %+v, %+v, %v", q, mask, a, err)
	}
}

// checkCodecDir reads head entry by entry and at once.
func checkCodecDir(t *testing.T, w *world, head p9.File) {
	t.Helper()
	want := []string{".", "..", "at", "bigfile", "watch"}
	for _, room := range []uint32{direntLen + 10, 4096} {
		var got []string
		for off := uint64(0); ; {
			list, err := head.Readdir(off, room)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			for _, e := range list {
				off = e.Offset
				got = append(got, e.Name)
				if n := w.tree.at(path.Join("head", e.Name)); e.Name[0] != '.' && (e.QID.Path != n.ino || (e.QID.Type == p9.TypeDir) != (n.kind == tree.Dir)) {
					t.Errorf("entry %+v", e)
				}
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("with room for %d bytes: %q, want %q", room, got, want)
		}
	}
}

// checkCodecRefusals sends what a tree that cannot change refuses.
func checkCodecRefusals(t *testing.T, dir, file p9.File) {
	t.Helper()
	_, _, _, createErr := dir.Create("x", p9.ReadWrite, 0o644, 0, 0)
	_, mkdirErr := dir.Mkdir("x", 0o755, 0, 0)
	_, symlinkErr := dir.Symlink("a", "b", 0, 0)
	_, mknodErr := dir.Mknod("x", p9.ModeRegular, 1, 1, 0, 0)
	_, readlinkErr := file.Readlink()
	_, lockErr := file.Lock(1, p9.ReadLock, 0, 0, 1, "c")
	for what, e := range map[string]struct {
		err  error
		want linux.Errno
	}{
		"create": {createErr, linux.EROFS}, "mkdir": {mkdirErr, linux.EROFS}, "symlink": {symlinkErr, linux.EROFS}, "mknod": {mknodErr, linux.EROFS},
		"readlink": {readlinkErr, linux.EINVAL}, "lock": {lockErr, linux.ENOLCK},
		"link": {dir.Link(file, "x"), linux.EROFS}, "rename": {file.Rename(dir, "x"), linux.EROFS}, "renameat": {dir.RenameAt("at", dir, "x"), linux.EROFS},
		"unlink": {dir.UnlinkAt("at", 0), linux.EROFS}, "setattr": {file.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}), linux.EROFS},
	} {
		if !errors.Is(e.err, e.want) {
			t.Errorf("%s: %v, want %v", what, e.err, e.want)
		}
	}
}
