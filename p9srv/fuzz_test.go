package p9srv

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"wcfs/t/wait"
)

// FuzzMessages sends any bytes after a Tversion and an attach, and then, on a new connection, wants a working
// server that has forgotten the first.
func FuzzMessages(f *testing.F) {
	tree := newFakeTree()
	srv, err := New(Options{Tree: tree, Log: slog.New(slog.DiscardHandler), StallTimeout: time.Second, WriteTimeout: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	paths := [][]string{splitPath(bigPath), {"head", "watch"}, {"head"}, {}, {".."}}
	for seed := range 40 { // half of them use tags again
		var all frame
		for i := range 10 {
			all = append(all, fuzzed(rng, uint16(i%(10-seed%2*7)), paths).done(0)...)
		}
		f.Add([]byte(all))
	}
	f.Add([]byte(newFrame(tVersion, noTag).u32(1 << 20).str(version9P).done(0)))
	f.Fuzz(func(t *testing.T, in []byte) {
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			srv.ServeConn(theirs, "fuzz")
		}()
		go io.Copy(io.Discard, ours)
		for _, p := range [][]byte{
			newFrame(tVersion, noTag).u32(65536).str(version9P).done(0),
			newFrame(tAttach, 1).u32(0).u32(noFid).str("x").str("").u32(noFid).done(0),
			in,
		} {
			ours.SetWriteDeadline(time.Now().Add(wait.Patience))
			if _, err := ours.Write(p); err != nil {
				break
			}
		}
		ours.Close()
		receive(t, "connection ends", ended)
		if st := srv.Stats(); st.Conns != 0 || st.Fids != 0 || st.Requests != 0 || st.Bytes != 0 || tree.handles.Load() != 0 || tree.refs.Load() != 0 {
			t.Fatalf("left: %+v, %d handles, %d nodes", st, tree.handles.Load(), tree.refs.Load())
		}
	})
}

// FuzzParse: no body makes the parser do anything but return.
func FuzzParse(f *testing.F) {
	f.Add(uint8(tWalk), []byte(walkFrame(1, 0, 1, "a", "b")[headerLen:]))
	f.Add(uint8(tAttach), []byte(newFrame(tAttach, 1).u32(0).u32(noFid).str("u").str("a").u32(0)[headerLen:]))
	f.Add(uint8(tWrite), []byte(writeFrame(1, 1, "x")[headerLen:]))
	f.Fuzz(func(t *testing.T, typ uint8, body []byte) {
		m := message{header: header{size: uint32(headerLen + len(body)), typ: msgType(typ)}}
		if m.parseBody(body) == nil && m.typ == tWalk {
			for _, n := range m.names {
				if checkName(n) != nil {
					t.Errorf("name %q got through", n)
				}
			}
		}
	})
}
