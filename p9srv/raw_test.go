package p9srv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// world is a server over a fakeTree on a Unix socket.
type world struct {
	t    testing.TB
	tree *fakeTree
	srv  *Server
	addr string // unix:PATH
	log  *logBuffer
}

// logBuffer is where a server logs to.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count returns how many lines have text in them.
func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range strings.Split(l.b.String(), "\n") {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// serve starts a server that must leave nothing behind when the test ends.
func serve(t testing.TB, change func(*Options)) *world {
	t.Helper()
	before := runtime.NumGoroutine()
	w := &world{t: t, tree: newFakeTree(), log: &logBuffer{}}
	opts := Options{Tree: w.tree, Log: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&opts)
	}
	var err error
	if w.srv, err = New(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.srv.Close()
		w.clean(before)
	})
	if w.addr, err = w.srv.Listen(context.Background(), "unix:"+filepath.Join(t.TempDir(), "s")); err != nil {
		t.Fatal(err)
	}
	return w
}

// clean waits until nothing of any connection is left.
func (w *world) clean(goroutines int) {
	w.t.Helper()
	eventually(w.t, "all handles closed", func() bool { return w.tree.handles.Load() == 0 })
	eventually(w.t, "all nodes released", func() bool { return w.tree.refs.Load() == 0 })
	eventually(w.t, "stats back to zero", func() bool {
		st := w.srv.Stats()
		return st.Conns == 0 && st.Fids == 0 && st.Requests == 0 && st.Bytes == 0
	})
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			w.t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

// rawClient speaks 9P frame by frame.
type rawClient struct {
	t testing.TB
	c net.Conn
}

func (w *world) raw() *rawClient {
	w.t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(w.addr, "unix:"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &rawClient{t: w.t, c: c}
}

// client is a raw client after Tversion and an attach of the root as fid 0.
func (w *world) client() *rawClient {
	w.t.Helper()
	c := w.raw()
	c.version(64<<10, version9P)
	c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("guest7").str("").u32(noFid), tAttach+1)
	return c
}

func (c *rawClient) version(msize uint32, v string) reply {
	c.t.Helper()
	return c.ok(newFrame(tVersion, noTag).u32(msize).str(v), tVersion+1)
}

func (c *rawClient) send(f frame) {
	c.t.Helper()
	if _, err := c.c.Write(f.done(0)); err != nil {
		c.t.Fatal(err)
	}
}

// reply is a message from the server.
type reply struct {
	typ  msgType
	tag  uint16
	body []byte
}

func (r reply) String() string {
	if r.typ == rLerror {
		return fmt.Sprintf("tag %d: %v", r.tag, r.errno())
	}
	return fmt.Sprintf("tag %d: type %d, %d bytes", r.tag, r.typ, len(r.body))
}

func (r reply) errno() linux.Errno {
	if r.typ != rLerror || len(r.body) != 4 {
		return 0
	}
	return linux.Errno(binary.LittleEndian.Uint32(r.body))
}

func (c *rawClient) recvErr() (reply, error) {
	c.c.SetReadDeadline(time.Now().Add(patience))
	var hdr [headerLen]byte
	if _, err := io.ReadFull(c.c, hdr[:]); err != nil {
		return reply{}, err
	}
	h := parseHeader(&hdr)
	r := reply{typ: h.typ, tag: h.tag, body: make([]byte, h.size-headerLen)}
	_, err := io.ReadFull(c.c, r.body)
	return r, err
}

func (c *rawClient) recv() reply {
	c.t.Helper()
	r, err := c.recvErr()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// ok sends f and wants a reply of the type.
func (c *rawClient) ok(f frame, want msgType) reply {
	c.t.Helper()
	c.send(f)
	r := c.recv()
	if r.typ != want {
		c.t.Fatalf("message %d: got %v, want type %d", f[4], r, want)
	}
	return r
}

// fails sends f and wants an error.
func (c *rawClient) fails(f frame, want linux.Errno) {
	c.t.Helper()
	c.send(f)
	if r := c.recv(); r.errno() != want {
		c.t.Fatalf("message %d: got %v, want %v", f[4], r, want)
	}
}

// closed wants the server to close the connection, maybe after some replies.
func (c *rawClient) closed() {
	c.t.Helper()
	for {
		if _, err := c.recvErr(); err != nil {
			if os.IsTimeout(err) {
				c.t.Fatal("connection was not closed")
			}
			return
		}
	}
}

func walkFrame(tag uint16, fid, newfid uint32, names ...string) frame {
	f := newFrame(tWalk, tag).u32(fid).u32(newfid).u16(uint16(len(names)))
	for _, n := range names {
		f = f.str(n)
	}
	return f
}

func readFrame(tag uint16, fid uint32, off uint64, count uint32) frame {
	return newFrame(tRead, tag).u32(fid).u64(off).u32(count)
}

func openFrame(tag uint16, fid, flags uint32) frame { return newFrame(tLopen, tag).u32(fid).u32(flags) }

func setattrFrame(tag uint16, fid, valid uint32, size uint64) frame {
	return newFrame(tSetattr, tag).u32(fid).u32(valid).u32(0).u32(0).u32(0).u64(size).u64(0).u64(0).u64(0).u64(0)
}

func flushFrame(tag, old uint16) frame { return newFrame(tFlush, tag).u16(old) }

func writeFrame(tag uint16, fid uint32, data string) frame {
	return append(newFrame(tWrite, tag).u32(fid).u64(0).u32(uint32(len(data))), data...)
}

// open walks from the root to path and opens it as fid.
func (c *rawClient) open(fid uint32, path string, flags uint32) {
	c.t.Helper()
	c.ok(walkFrame(1, 0, fid, splitPath(path)...), tWalk+1)
	c.ok(openFrame(1, fid, flags), tLopen+1)
}

// data is what an Rread carries.
func (r reply) data() []byte {
	if r.typ != tRead+1 || len(r.body) < 4 || int(binary.LittleEndian.Uint32(r.body)) != len(r.body)-4 {
		return nil
	}
	return r.body[4:]
}
