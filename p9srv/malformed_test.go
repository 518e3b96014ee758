package p9srv

import (
	"fmt"
	"os"
	"testing"

	"github.com/hugelgupf/p9/linux"
)

// samples are a good message of each type that has a body which is looked at.
func samples() map[string]frame {
	return map[string]frame{
		"attach":  newFrame(tAttach, 9).u32(50).u32(noFid).str("guest7").str("/head").u32(0),
		"walk":    walkFrame(9, 0, 51, "head", "bigfile"),
		"open":    openFrame(9, 3, 0),
		"getattr": newFrame(tGetattr, 9).u32(1).u64(0x7ff),
		"setattr": setattrFrame(9, 2, setSize, 0),
		"read":    readFrame(9, 1, 0, 100),
		"readdir": newFrame(tReaddir, 9).u32(4).u64(0).u32(200),
		"write":   writeFrame(9, 2, "1 bye\n"),
		"fsync":   newFrame(tFsync, 9).u32(1).u32(0),
		"clunk":   newFrame(tClunk, 9).u32(3),
		"remove":  newFrame(tRemove, 9).u32(3),
		"statfs":  newFrame(tStatfs, 9).u32(0),
		"flush":   flushFrame(9, 8),
		"version": newFrame(tVersion, noTag).u32(8192).str(version9P),
	}
}

// TestMalformed cuts and changes messages at each byte, sizes included: the next message is answered, or the connection has ended, and
// nothing is left.
func TestMalformed(t *testing.T) {
	w := serve(t, nil)
	for name, good := range samples() {
		var c *rawClient
		for i, bad := range spoiled(good.done(0)) {
			if c == nil {
				c = w.client()
				c.open(1, bigPath, 0)
				c.open(2, "head/watch", 2)
				c.ok(walkFrame(1, 0, 3, "head", "at"), tWalk+1)
				c.open(4, "head", 0)
			}
			if !c.survives(fmt.Sprintf("%s, way %d: %x", name, i, bad), bad) {
				c.c.Close()
				c = nil
			}
		}
	}
}

// spoiled are the ways in which a message can be wrong in one place.
func spoiled(good frame) (all []frame) {
	for at := range good {
		for _, b := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			bad := append(frame(nil), good...)
			bad[at] = b
			all = append(all, bad)
		}
		if at >= headerLen {
			all = append(all, append(frame(nil), good[:at]...).done(0)) // ends early
		}
		all = append(all, append(append(frame(nil), good...), make(frame, at+1)...).done(0)) // goes on after its end
	}
	return all
}

// survives sends bad and then a good message, which must be answered unless the server closes the connection.
// Half a message is closed at once: its rest never comes.
func (c *rawClient) survives(what string, bad frame) bool {
	c.t.Helper()
	const tag = 0x5555
	size := parseHeader((*[headerLen]byte)(bad)).size
	all := append(append(frame(nil), bad...), newFrame(tStatfs, tag).u32(99).done(0)...)
	if _, err := c.c.Write(all); err != nil || size > uint32(len(bad)) {
		return false
	}
	for {
		r, err := c.recvErr()
		switch {
		case err != nil:
			if os.IsTimeout(err) {
				c.t.Fatalf("%s: no answer, and the connection is open", what)
			}
			return false
		case r.tag == tag:
			if e := r.errno(); e != linux.EBADF && !(e == linux.EPROTO && msgType(bad[4]) == tVersion) {
				c.t.Fatalf("%s: then %v", what, r)
			}
			return size == uint32(len(bad)) && msgType(bad[4]) != tVersion
		}
	}
}
