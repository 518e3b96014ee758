package p9srv

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/answers.txt anew from what the server answers")

// asked is one message of a script; its tag is 9.
type asked struct {
	what string
	f    frame
}

// answersScript sends every message in every state of a fid that matters.
func answersScript() []asked {
	var all []asked
	add := func(what string, f frame) { all = append(all, asked{what, f}) }
	attach := func(fid, afid uint32, uname, aname string) frame {
		return newFrame(tAttach, 9).u32(fid).u32(afid).str(uname).str(aname).u32(noFid)
	}
	getattr := func(fid uint32, mask uint64) frame { return newFrame(tGetattr, 9).u32(fid).u64(mask) }
	readdir := func(fid uint32, off uint64, count uint32) frame {
		return newFrame(tReaddir, 9).u32(fid).u64(off).u32(count)
	}
	clunk := func(fid uint32) frame { return newFrame(tClunk, 9).u32(fid) }
	statfs := func(fid uint32) frame { return newFrame(tStatfs, 9).u32(fid) }
	fsync := func(fid uint32) frame { return newFrame(tFsync, 9).u32(fid) }

	add("statfs before attach", statfs(0))
	add("auth", newFrame(tAuth, 9).u32(1).str("u").str("").u32(0))
	add("auth, 9P2000", newFrame(tAuth, 9).u32(1).str("u").str(""))
	for _, a := range []string{"", "/", "head", "/head/", "@03e5a3342bc5ab22", "@03E5A3342BC5AB22", "@03e5a3342bc5ab23", ".wcfs", "head/at", "..", "//", strings.Repeat("a", 300)} {
		add(fmt.Sprintf("attach %.20q", a), attach(100, noFid, "u", a))
		add("its attributes", getattr(100, 0x7ff))
		add("its clunk", clunk(100))
	}
	add("attach with afid", attach(0, 5, "u", ""))
	add("attach again", attach(0, noFid, "", ""))
	add("attach as NOFID", attach(noFid, noFid, "", ""))
	for i, mask := range []uint64{0, 0x7ff, 0x3fff, 0x200, ^uint64(0)} {
		add(fmt.Sprintf("getattr mask %d", i), getattr(0, mask))
	}
	paths := []string{"head", "head/at", "head/watch", bigPath, revPath, ".wcfs/zurl"}
	for i, p := range paths {
		fid := uint32(10 * (i + 1))
		add("walk "+p, walkFrame(9, 0, fid, splitPath(p)...))
		add("walk, again", walkFrame(9, 0, fid, splitPath(p)...))
		add("getattr", getattr(fid, 0x7ff))
		add("statfs", statfs(fid))
		add("fsync, not open", fsync(fid))
		add("read, not open", readFrame(9, fid, 0, 8))
		add("write, not open", writeFrame(9, fid, "x"))
		add("readdir, not open", readdir(fid, 0, 500))
		for mode := range uint32(4) {
			for j, flags := range []uint32{0, openTrunc, 0100000 | 02000000, 040, 0200000} {
				at := fid + 1 + mode
				add("clone", walkFrame(9, fid, at))
				add(fmt.Sprintf("open mode %d flags %d", mode, j), openFrame(9, at, mode|flags))
				add("open again", openFrame(9, at, 0))
				if p != "head/watch" || mode == 1 {
					add("read", readFrame(9, at, 3, 40))
				}
				add("read of nothing", readFrame(9, at, 0, 0))
				add("write", writeFrame(9, at, "1 bye\n"))
				add("write of nothing", writeFrame(9, at, ""))
				add("fsync", fsync(at))
				add("fsync with datasync", fsync(at).u32(1))
				add("getattr, open", getattr(at, 1))
				add("truncate", setattrFrame(9, at, setSize, 0))
				add("set times", setattrFrame(9, at, 0x1f0, 0))
				add("walk from it", walkFrame(9, at, 90, "at"))
				add("clunk of that", clunk(90))
				add("walk onto itself", walkFrame(9, at, at, "at"))
				add("clunk", clunk(at))
				add("clunk again", clunk(at))
			}
		}
		add("walk on, in place", walkFrame(9, fid, fid))
		add("statfs after that", statfs(fid))
		add("walk on, in place, nowhere", walkFrame(9, fid, fid, "nope"))
		add("getattr after that", getattr(fid, 1))
		add("remove", newFrame(tRemove, 9).u32(fid))
		add("remove again", newFrame(tRemove, 9).u32(fid))
	}
	add("walk in place", walkFrame(9, 0, 200, "head"))
	add("walk in place, on", walkFrame(9, 200, 200, "bigfile"))
	add("open it", openFrame(9, 200, 0))
	for off := range uint64(6) {
		add(fmt.Sprintf("readdir at %d", off), readdir(200, off, 4096))
		add("readdir of one", readdir(200, off, 26+24-1))
		add("readdir of none", readdir(200, off, 20))
	}
	add("readdir far", readdir(200, 1<<63, 4096))
	add("readdir of a large count", readdir(200, 0, 1<<31))
	add("walk of nothing", walkFrame(9, 0, 201))
	add("walk from no fid", walkFrame(9, 999, 202))
	add("walk to NOFID", walkFrame(9, 0, noFid))
	for _, names := range [][]string{{"nope"}, {"head", "nope"}, {"head", "bigfile", "0000000000000003"}, {"head", "at", "x"}, {"nope", "at"}, {"head", "nope", "x"}} {
		add(fmt.Sprintf("walk %q", names), walkFrame(9, 0, 203, names...))
		add("its fid", statfs(203))
	}
	for typ := range 256 {
		switch msgType(typ) {
		case tVersion, tFlush:
			continue
		}
		add(fmt.Sprintf("type %d without a body", typ), newFrame(msgType(typ), 9))
		add(fmt.Sprintf("type %d with a long body", typ), append(newFrame(msgType(typ), 9), make([]byte, 300)...))
		add(fmt.Sprintf("type %d with a very long body", typ), append(newFrame(msgType(typ), 9), make([]byte, 9000)...))
	}
	for _, msize := range []uint32{0, 4095, 4096, 5000, 8191, 8192, 70000, 1 << 20, 1 << 30} {
		for _, v := range []string{version9P, "9P2000.u", "9P2000.L.x", goVersion + "5", ""} {
			add(fmt.Sprintf("version %d %q", msize, v), newFrame(tVersion, noTag).u32(msize).str(v))
		}
	}
	add("statfs after Tversion", statfs(0))
	return all
}

// TestAnswers compares every byte that the server answers with what it answered before. A change there is a
// change that clients see.
func TestAnswers(t *testing.T) {
	w := serve(t, nil)
	c := w.raw()
	c.version(64<<10, version9P)
	var b strings.Builder
	for _, a := range answersScript() {
		c.send(a.f)
		r := c.recv()
		if r.typ == tGetattr+1 {
			clear(r.body[8+13+4:][:8]) // uid and gid are those of the server's process
		}
		fmt.Fprintf(&b, "%s: %d %x %x\n", a.what, r.typ, r.tag, r.body)
		if r.typ == tVersion+1 && strings.HasSuffix(string(r.body), "unknown") {
			c.c.Close() // no session any more
			c = w.raw()
			c.version(64<<10, version9P)
		}
	}
	name := filepath.Join("testdata", "answers.txt")
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) {
			t.Fatalf("%d answers, want %d", len(got), len(lines))
		}
		if got[i] != lines[i] {
			t.Errorf("got  %s\nwant %s", got[i], lines[i])
		}
	}
}
