package p9srv

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

const (
	bigPath = "head/bigfile/0000000000000002"
	revPath = "@03e5a3342bc5ab22/bigfile/0000000000000002"
)

// TestMessages sends each message type, good and bad.
func TestMessages(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, bigPath, 0)
	c.open(2, "head/watch", 2)
	c.open(3, "head", 0)
	c.open(4, "head/watch", 0)
	c.open(5, "head/watch", 1)
	c.send(walkFrame(9, 0, 6, "head", "watch"))
	c.recv()
	long := strings.Repeat("x", 256)
	str := func(n int) []string { return make([]string, n) }
	names17 := str(17)
	for i := range names17 {
		names17[i] = "head"
	}
	for _, tc := range []struct {
		what string
		f    frame
		typ  msgType     // of the reply
		err  linux.Errno // when it is Rlerror
	}{
		{"Tstatfs", newFrame(tStatfs, 9).u32(0), tStatfs + 1, 0},
		{"Tstatfs of no fid", newFrame(tStatfs, 9).u32(99), rLerror, linux.EBADF},
		{"Tgetattr", newFrame(tGetattr, 9).u32(1).u64(0x7ff), tGetattr + 1, 0},
		{"Tgetattr of no fid", newFrame(tGetattr, 9).u32(99).u64(0), rLerror, linux.EBADF},
		{"Tgetattr too short", newFrame(tGetattr, 9).u32(1), rLerror, linux.EPROTO},
		{"Tgetattr too long", newFrame(tGetattr, 9).u32(1).u64(0).u8(0), rLerror, linux.EPROTO},
		{"Tattach again", newFrame(tAttach, 9).u32(20).u32(noFid).str("").str("/head").u32(0), tAttach + 1, 0},
		{"Tattach of a fid in use", newFrame(tAttach, 9).u32(0).u32(noFid).str("").str("").u32(0), rLerror, linux.EBADF},
		{"Tattach elsewhere", newFrame(tAttach, 9).u32(21).u32(noFid).str("").str("/.wcfs").u32(0), rLerror, linux.ENOENT},
		{"Tattach of no snapshot", newFrame(tAttach, 9).u32(21).u32(noFid).str("").str("@ffffffffffffffff").u32(0), rLerror, linux.ENOENT},
		{"Tauth", newFrame(tAuth, 9).u32(22).str("u").str(""), rLerror, linux.ENOENT},
		{"Twalk", walkFrame(9, 0, 23, "head", "bigfile"), tWalk + 1, 0},
		{"Twalk nowhere", walkFrame(9, 0, 24, "nope"), rLerror, linux.ENOENT},
		{"Twalk to no bigfile", walkFrame(9, 0, 24, "head", "bigfile", "0000000000000003"), tWalk + 1, 0}, // of two of three names
		{"Twalk to no bigfile has made no fid", newFrame(tStatfs, 9).u32(24), rLerror, linux.EBADF},
		{"Twalk through a file", walkFrame(9, 0, 24, "head", "at", "x"), tWalk + 1, 0},
		{"Twalk to a fid in use", walkFrame(9, 0, 23), rLerror, linux.EBADF},
		{"Twalk from no fid", walkFrame(9, 99, 24), rLerror, linux.EBADF},
		{"Twalk to NOFID", walkFrame(9, 0, noFid), rLerror, linux.EBADF},
		{"Twalk onto an open fid", walkFrame(9, 3, 3, "at"), rLerror, linux.EBUSY},
		{"Twalk from an open fid", walkFrame(9, 3, 25, "at"), tWalk + 1, 0},
		{"Twalk clones", walkFrame(9, 23, 26), tWalk + 1, 0},
		{"Twalk ..", walkFrame(9, 23, 27, ".."), rLerror, linux.EINVAL},
		{"Twalk .", walkFrame(9, 23, 27, "."), rLerror, linux.EINVAL},
		{"Twalk empty name", walkFrame(9, 23, 27, ""), rLerror, linux.EINVAL},
		{"Twalk with /", walkFrame(9, 0, 27, "head/at"), rLerror, linux.EINVAL},
		{"Twalk with NUL", walkFrame(9, 0, 27, "head\x00"), rLerror, linux.EINVAL},
		{"Twalk long name", walkFrame(9, 0, 27, long), rLerror, linux.ENAMETOOLONG},
		{"Twalk very long name", walkFrame(9, 0, 27, strings.Repeat("y", 60000)), rLerror, linux.ENAMETOOLONG},
		{"Twalk 17 names", walkFrame(9, 0, 27, names17...), rLerror, linux.EINVAL},
		{"Twalk 16 names", walkFrame(9, 0, 27, names17[:16]...), tWalk + 1, 0},
		{"Twalk names missing", newFrame(tWalk, 9).u32(0).u32(27).u16(3), rLerror, linux.EPROTO},
		{"Tlopen of what is open", openFrame(9, 1, 0), rLerror, linux.EBUSY},
		{"Tlopen of no fid", openFrame(9, 99, 0), rLerror, linux.EBADF},
		{"Tlopen a directory to write", openFrame(9, 26, 2), rLerror, linux.EISDIR},
		{"Tlopen a file to write", openFrame(9, 25, 1), rLerror, linux.EROFS},
		{"Tlopen to truncate", openFrame(9, 25, openTrunc), rLerror, linux.EROFS},
		{"Tlopen after that", openFrame(9, 25, 0), tLopen + 1, 0},
		{"Tread", readFrame(9, 1, 0, 4096), tRead + 1, 0},
		{"Tread of no bytes", readFrame(9, 1, 0, 0), tRead + 1, 0},
		{"Tread past the end", readFrame(9, 1, 1<<40, 4096), tRead + 1, 0},
		{"Tread too far", readFrame(9, 1, 1<<63, 4096), rLerror, linux.EINVAL},
		{"Tread of a directory", readFrame(9, 3, 0, 4096), rLerror, linux.EISDIR},
		{"Tread of what is not open", readFrame(9, 23, 0, 4096), rLerror, linux.EISDIR},
		{"Tread of what is only written", readFrame(9, 5, 0, 10), rLerror, linux.EBADF},
		{"Tread of no fid", readFrame(9, 99, 0, 4096), rLerror, linux.EBADF},
		{"Treaddir", newFrame(tReaddir, 9).u32(3).u64(0).u32(4096), tReaddir + 1, 0},
		{"Treaddir with no room", newFrame(tReaddir, 9).u32(3).u64(0).u32(10), rLerror, linux.EINVAL},
		{"Treaddir of a file", newFrame(tReaddir, 9).u32(1).u64(0).u32(4096), rLerror, linux.ENOTDIR},
		{"Treaddir of what is not open", newFrame(tReaddir, 9).u32(26).u64(0).u32(4096), rLerror, linux.EBADF},
		{"Twrite to a watch", writeFrame(9, 2, "1 bye\n"), tWrite + 1, 0},
		{"Twrite to a watch open to be read", writeFrame(9, 4, "1 bye\n"), rLerror, linux.EBADF},
		{"Twrite to a file", writeFrame(9, 1, "x"), rLerror, linux.EROFS},
		{"Twrite to a directory", writeFrame(9, 3, "x"), rLerror, linux.EROFS},
		{"Twrite with less than it says", newFrame(tWrite, 9).u32(2).u64(0).u32(10).u8(1), rLerror, linux.EPROTO},
		{"Twrite with more than it says", newFrame(tWrite, 9).u32(2).u64(0).u32(1).u16(1), rLerror, linux.EPROTO},
		{"Tfsync", newFrame(tFsync, 9).u32(2).u32(0), tFsync + 1, 0},
		{"Tfsync of what is not open", newFrame(tFsync, 9).u32(23).u32(0), rLerror, linux.EBADF},
		{"Tlcreate", newFrame(tLcreate, 9).u32(0).str("x").u32(0).u32(0).u32(0), rLerror, linux.EROFS},
		{"Tsymlink", newFrame(tSymlink, 9).u32(0).str("x").str("y").u32(0), rLerror, linux.EROFS},
		{"Tmknod", newFrame(tMknod, 9).u32(0).str("x").u32(0).u32(0).u32(0).u32(0), rLerror, linux.EROFS},
		{"Trename", newFrame(tRename, 9).u32(1).u32(0).str("x"), rLerror, linux.EROFS},
		{"Trenameat", newFrame(tRenameat, 9).u32(0).str("x").u32(0).str("y"), rLerror, linux.EROFS},
		{"Tunlinkat", newFrame(tUnlinkat, 9).u32(0).str("head").u32(0), rLerror, linux.EROFS},
		{"Tsetattr of a file", setattrFrame(9, 1, setSize, 0), rLerror, linux.EROFS},
		{"Tsetattr of a directory", setattrFrame(9, 3, 1<<5, 0), rLerror, linux.EROFS},
		{"Tsetattr truncates a watch", setattrFrame(9, 2, setSize|1<<5|1<<6, 0), tSetattr + 1, 0},
		{"Tsetattr makes a watch larger", setattrFrame(9, 2, setSize, 1), rLerror, linux.EROFS},
		{"Tsetattr of a watch's mode", setattrFrame(9, 2, setSize|setMode, 0), rLerror, linux.EROFS},
		{"Tsetattr of a watch's owner", setattrFrame(9, 2, setUID, 0), rLerror, linux.EROFS},
		{"Tsetattr of a watch's group", setattrFrame(9, 2, setGID, 0), rLerror, linux.EROFS},
		{"Tsetattr of no fid", setattrFrame(9, 99, setSize, 0), rLerror, linux.EBADF},
		{"Tsetattr too short", newFrame(tSetattr, 9).u32(2).u32(setSize), rLerror, linux.EPROTO},
		{"Tlopen a watch to truncate", openFrame(9, 6, 1|openTrunc), tLopen + 1, 0},
		{"Tlink", newFrame(tLink, 9).u32(0).u32(1).str("x"), rLerror, linux.EROFS},
		{"Tmkdir", newFrame(tMkdir, 9).u32(0).str("x").u32(0).u32(0), rLerror, linux.EROFS},
		{"Treadlink", newFrame(tReadlink, 9).u32(1), rLerror, linux.EINVAL},
		{"Txattrwalk", newFrame(tXattrwalk, 9).u32(1).u32(30).str("user.x"), rLerror, linux.EOPNOTSUPP},
		{"Txattrcreate", newFrame(tXattrcreate, 9).u32(1).str("user.x").u64(1).u32(0), rLerror, linux.EOPNOTSUPP},
		{"Tlock", newFrame(tLock, 9).u32(1), rLerror, linux.ENOLCK},
		{"Tgetlock", newFrame(tGetlock, 9).u32(1), rLerror, linux.ENOLCK},
		{"Tremove", newFrame(tRemove, 9).u32(26), rLerror, linux.EROFS},
		{"Tremove has clunked", newFrame(tStatfs, 9).u32(26), rLerror, linux.EBADF},
		{"Tremove of no fid", newFrame(tRemove, 9).u32(26), rLerror, linux.EBADF},
		{"Tclunk", newFrame(tClunk, 9).u32(1), tClunk + 1, 0},
		{"Tclunk again", newFrame(tClunk, 9).u32(1), rLerror, linux.EBADF},
		{"Tread after clunk", readFrame(9, 1, 0, 1), rLerror, linux.EBADF},
		{"Tflush of nothing", flushFrame(9, 77), tFlush + 1, 0},
		{"Tflush of itself", flushFrame(9, 9), tFlush + 1, 0},
		{"Tflush too short", newFrame(tFlush, 9), rLerror, linux.EPROTO},
		{"Tlerror", newFrame(tLerror, 9), rLerror, linux.EOPNOTSUPP},
		{"a reply", newFrame(tRead+1, 9).u32(0), rLerror, linux.EOPNOTSUPP},
		{"unknown type", newFrame(251, 9), rLerror, linux.EOPNOTSUPP},
		{"no tag", newFrame(tStatfs, noTag).u32(0), rLerror, linux.EINVAL},
	} {
		c.send(tc.f)
		r := c.recv()
		tag := binary.LittleEndian.Uint16(tc.f[5:])
		if r.typ != tc.typ || r.errno() != tc.err || r.tag != tag {
			t.Errorf("%s: got %v, want type %d, %v", tc.what, r, tc.typ, tc.err)
		}
	}
	if got := w.tree.at("head/watch").written(); got != "1 bye\n" {
		t.Errorf("watch got %q", got)
	}
}

// TestReadWhole reads a file to its end at every msize.
func TestReadWhole(t *testing.T) {
	w := serve(t, nil)
	for _, msize := range []uint32{4096, 8192, 65536, 1 << 20, 64 << 20} {
		for _, path := range []string{bigPath, revPath, "head/at"} {
			c := w.raw()
			r := c.version(msize, version9P)
			got := binary.LittleEndian.Uint32(r.body)
			if got > msize || got > capMsize || msize >= 8192 && (got-ioHeader)%4096 != 0 {
				t.Errorf("msize %d: server says %d", msize, got)
			}
			c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("/").u32(noFid), tAttach+1)
			c.open(1, path, 0)
			var all []byte
			for {
				p := c.ok(readFrame(3, 1, uint64(len(all)), 10<<20), tRead+1).data()
				if len(p)+ioHeader > int(got) {
					t.Fatalf("msize %d: %d bytes in one reply", got, len(p))
				}
				if len(p) == 0 {
					break
				}
				all = append(all, p...)
			}
			if !bytes.Equal(all, w.tree.at(path).data) {
				t.Errorf("%s at msize %d: wrong bytes", path, msize)
			}
			c.c.Close()
		}
	}
	n := w.tree.at(bigPath)
	eventually(t, "every read's Done called", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.done >= 5
	})
}

// TestVersion: what is agreed on, and what is not.
func TestVersion(t *testing.T) {
	w := serve(t, nil)
	for _, v := range []string{"9P2000", "9P2000.u", "", "9P2000.LX", "junk"} {
		c := w.raw()
		if r := c.version(8192, v); !bytes.HasSuffix(r.body, []byte("unknown")) {
			t.Errorf("version %q: got %q", v, r.body)
		}
		c.version(8192, version9P) // another try is allowed
	}
	for _, msize := range []uint32{0, 1, 23, 4095} {
		c := w.raw()
		c.fails(newFrame(tVersion, noTag).u32(msize).str(version9P), linux.EMSGSIZE)
	}
	for _, cause := range []string{"version is \\\"9P2000.u\\\", and only 9P2000.L is known", "msize is 23, and must be at least 4096"} {
		if n := w.log.count(cause); n != 1 {
			t.Errorf("%d lines in the log have %s", n, cause)
		}
	}
	c := w.raw()
	if r := c.version(65536, goVersion+"7"); binary.LittleEndian.Uint32(r.body) != 65536 {
		t.Errorf("the library's client must get the msize it asks for, got %d", binary.LittleEndian.Uint32(r.body))
	}
	c = w.raw()
	c.send(newFrame(tStatfs, 1).u32(0))
	if r := c.recv(); r.errno() != linux.EPROTO {
		t.Errorf("message before Tversion: got %v", r)
	}
	c.closed()
	eventually(t, "logged", func() bool { return w.log.count(ErrNoVersion.Error()) == 1 })
}

// TestVersionAnew: a second Tversion ends all that the first session had.
func TestVersionAnew(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	for i := range 20 {
		c.send(readFrame(uint16(100+i), 1, 0, 100))
	}
	eventually(t, "reads wait", func() bool { return w.tree.waiting.Load() == 20 })
	c.version(8192, version9P) // the next reply is that of Tversion: those reads get none
	if w.tree.handles.Load() != 0 || w.tree.refs.Load() != 0 {
		t.Errorf("after Tversion: %d handles, %d nodes", w.tree.handles.Load(), w.tree.refs.Load())
	}
	c.fails(newFrame(tStatfs, 1).u32(0), linux.EBADF)
	c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("").u32(noFid), tAttach+1)
}

// TestDuplicateTag: the connection is closed, and logged once.
func TestDuplicateTag(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.open(1, "head/watch", 2)
	f := readFrame(7, 1, 0, 100).done(0)
	c.c.Write(bytes.Repeat(f, 3))
	c.closed()
	eventually(t, "logged", func() bool { return w.log.count(ErrDuplicateTag.Error()) == 1 })
}

// TestDomain: the first attach decides, aname selects, and the domain can be closed.
func TestDomain(t *testing.T) {
	dom := &zcore.Domain{}
	type asked struct{ uname, cred string }
	var got []asked
	gone := make(chan *zcore.Domain, 10)
	w := serve(t, func(o *Options) {
		o.Domain = func(uname, cred string) *zcore.Domain {
			got = append(got, asked{uname, cred})
			return dom
		}
		o.DomainGone = func(d *zcore.Domain) { gone <- d }
	})
	c := w.client()
	c.ok(newFrame(tAttach, 1).u32(9).u32(noFid).str("").str("/@03e5a3342bc5ab22/").u32(1000), tAttach+1)
	c.ok(walkFrame(1, 9, 10, "bigfile"), tWalk+1)
	c.fails(walkFrame(1, 9, 11, "head"), linux.ENOENT)
	c.open(2, "head/watch", 2)
	if who := w.tree.at("head/watch").who.Load(); who.Domain != dom || !who.Padded || who.Process != nil {
		t.Errorf("caller of open is %+v", who)
	}
	if len(got) != 1 || got[0].uname != "guest7" || !strings.HasPrefix(got[0].cred, "unix:") {
		t.Errorf("domain asked for %v", got)
	}
	w.srv.CloseDomain(&zcore.Domain{})
	c.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)
	w.srv.CloseDomain(dom)
	c.closed()
	if d := receive(t, "DomainGone", gone); d != dom {
		t.Error("DomainGone was told of another")
	}
}

// TestDomainFailsMeanwhile: between the answer who the connection is and its entry the domain fails, and all
// its connections are closed: this one must not stay in it, unnoticed, where it would read EIO for ever.
func TestDomainFailsMeanwhile(t *testing.T) {
	bad, good := &zcore.Domain{}, &zcore.Domain{}
	doms := []*zcore.Domain{bad, good}
	gone := make(chan *zcore.Domain, 10)
	var srv *Server
	w := serve(t, func(o *Options) {
		o.Domain = func(string, string) *zcore.Domain {
			d := doms[0]
			doms = doms[1:]
			if d == bad {
				bad.Fail()
				srv.CloseDomain(bad)
			}
			return d
		}
		o.DomainGone = func(d *zcore.Domain) { gone <- d }
	})
	srv = w.srv
	c := w.client()
	c.ok(newFrame(tAttach, 1).u32(9).u32(noFid).str("").str("").u32(1000), tAttach+1)
	c.open(2, "head/watch", 2)
	if who := w.tree.at("head/watch").who.Load(); who.Domain != good {
		t.Fatal("the connection is in the domain that has failed")
	}
	if d := receive(t, "DomainGone", gone); d != bad {
		t.Error("DomainGone was told of another")
	}
	w.srv.CloseDomain(good)
	c.closed()
}

// TestQids: numbers are the tree's, and only what never changes has a version.
func TestQids(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	for path, immutable := range map[string]bool{bigPath: false, revPath: true, "head/at": false, ".wcfs/zurl": true, "head": false} {
		r := c.ok(walkFrame(1, 0, 5, splitPath(path)...), tWalk+1)
		q := cursor{b: r.body[len(r.body)-13:]}
		typ, version, ino := q.take(1)[0], q.u32(), q.u64()
		n := w.tree.at(path)
		if (version != 0) != immutable || ino != n.ino || (typ == 0x80) != (n.kind == tree.Dir) {
			t.Errorf("%s: qid %x version %d path %d", path, typ, version, ino)
		}
		c.ok(newFrame(tClunk, 1).u32(5), tClunk+1)
	}
}

// TestWalkPart: a walk that ends at a later name has the qids before it, and makes no fid, nor changes one. An error
// that says nothing of the name ends the whole walk.
func TestWalkPart(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	c.ok(walkFrame(1, 0, 1), tWalk+1)
	for _, newfid := range []uint32{1, 2} {
		r := c.ok(walkFrame(1, 1, newfid, "head", "bigfile", "nope", "head"), tWalk+1)
		cur := cursor{b: r.body}
		if n := cur.u16(); n != 2 || len(cur.b) != 2*13 {
			t.Fatalf("%d qids in %d bytes", n, len(cur.b))
		}
		for _, path := range []string{"head", "head/bigfile"} {
			cur.take(5)
			if ino := cur.u64(); ino != w.tree.at(path).ino {
				t.Errorf("%s: qid %d", path, ino)
			}
		}
	}
	c.fails(newFrame(tStatfs, 1).u32(2), linux.EBADF)
	c.ok(walkFrame(1, 1, 2, "head"), tWalk+1) // fid 1 is the root as before
	w.tree.at("head/bigfile/0000000000000003").err = tree.ErrIO
	c.fails(walkFrame(1, 0, 3, "head", "bigfile", "0000000000000003"), linux.EIO)
	c.ok(walkFrame(1, 0, 3), tWalk+1)
}

// TestRefusedNames: what is wrong with a name is one line in the log for a connection.
func TestRefusedNames(t *testing.T) {
	w := serve(t, nil)
	c := w.client()
	for range 3 {
		c.fails(walkFrame(1, 0, 1, "head", strings.Repeat("x", 256)), linux.ENAMETOOLONG)
		c.fails(walkFrame(1, 0, 1, strings.Repeat("y", 60000)), linux.ENAMETOOLONG)
		c.fails(walkFrame(1, 0, 1, "a/b"), linux.EINVAL)
		c.fails(walkFrame(1, 0, 1, "nope"), linux.ENOENT) // which is nothing special
	}
	if n := w.log.count("name refused"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	other := w.raw()
	other.version(8192, version9P)
	other.fails(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("/.wcfs").u32(0), linux.ENOENT)
	if n := w.log.count("attach to /, /head or /@TID"); n != 1 {
		t.Errorf("%d lines in the log about the aname", n)
	}
}
