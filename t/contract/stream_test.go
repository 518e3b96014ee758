package contract

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zodb"
)

func mincore(mem, vec []byte) error {
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&vec[0])))
	if e != 0 {
		return e
	}
	return nil
}

func mem(m *mapping) uintptr { return uintptr(unsafe.Pointer(&m.mem[0])) }

// stream is an open stream; a goroutine reads its lines, which waits in read(2) as clients' threads do.
type stream struct {
	t     *testing.T
	fd    int
	lines chan string // closed at the end of the stream
	err   error       // how it ended; set before lines is closed
	shut  atomic.Bool
}

func openStream(t *testing.T, path string, flags int) *stream {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	s := &stream{t: t, fd: fd, lines: make(chan string, 100000)}
	go s.read()
	t.Cleanup(s.close)
	return s
}

func (s *stream) read() {
	defer close(s.lines)
	var rest string
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(s.fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			s.err = err
			return
		}
		rest += string(buf[:n])
		for {
			line, after, ok := strings.Cut(rest, "\n")
			if !ok {
				break
			}
			s.lines <- line
			rest = after
		}
	}
}

// close closes the descriptor. A read(2) under way keeps the file open until it ends, so say bye first
// where the server is to see the close.
func (s *stream) close() {
	if !s.shut.Swap(true) {
		unix.Close(s.fd)
	}
}

// line returns the next line; the end of the stream is "EOF", or the error it ended with.
func (s *stream) line() string {
	s.t.Helper()
	select {
	case line, ok := <-s.lines:
		switch {
		case ok:
			return line
		case s.err != nil:
			return s.err.Error()
		}
		return "EOF"
	case <-time.After(patience):
		s.t.Fatal("no line came")
		return ""
	}
}

func (s *stream) expect(want string) {
	s.t.Helper()
	if got := s.line(); got != want {
		s.t.Fatalf("the server sent %q, want %q", got, want)
	}
}

// quiet expects that no line is there. What must have been sent before is sent before an answer to
// something that is asked now.
func (s *stream) quiet() {
	s.t.Helper()
	s.send("9999 probe\n")
	s.expect(`9999 error bad watch: not a watch request: "probe"`)
}

// send writes as one write(2).
func (s *stream) send(text string) {
	s.t.Helper()
	if n, err := unix.Write(s.fd, []byte(text)); err != nil || n != len(text) {
		s.t.Fatalf("write %q: %d, %v", text, n, err)
	}
}

// link opens head/watch.
func (w *world) link() *stream {
	w.t.Helper()
	return openStream(w.t, w.at("head/watch"), unix.O_RDWR)
}

func watchMsg(f zodb.Oid, at zodb.Tid) string { return fmt.Sprintf("watch %s @%s", f, at) }

// toHead as a revision of pins: back to the head file.
const toHead = zodb.TidMax

// pins expects a pin for each block of want, in any order but on ascending streams, and returns the
// stream of each.
func (s *stream) pins(f zodb.Oid, want map[int]zodb.Tid) map[int]uint64 {
	s.t.Helper()
	streams := map[int]uint64{}
	var last uint64
	for len(streams) < len(want) {
		line := s.line()
		var stream uint64
		var oid, rev string
		var blk int
		if n, err := fmt.Sscanf(line, "%d pin %s #%d @%s", &stream, &oid, &blk, &rev); n != 4 || err != nil {
			s.t.Fatalf("the server sent %q, want pins %v", line, want)
		}
		if stream%2 != 0 || stream <= last {
			s.t.Fatalf("%q: stream %d after %d", line, stream, last)
		}
		last = stream
		wantRev := want[blk].String()
		if want[blk] == toHead {
			wantRev = "head"
		}
		if _, ok := want[blk]; !ok || streams[blk] != 0 || rev != wantRev || oid != f.String() ||
			line != fmt.Sprintf("%d pin %s #%d @%s", stream, oid, blk, rev) {
			s.t.Fatalf("the server sent %q, want pins %v", line, want)
		}
		streams[blk] = stream
	}
	return streams
}

func (s *stream) ack(streams map[int]uint64) {
	s.t.Helper()
	for _, stream := range streams {
		s.send(fmt.Sprintf("%d ack\n", stream))
	}
}

// watch sets up a watch, acknowledges the initial pins, which must be want, and expects ok.
func (s *stream) watch(f zodb.Oid, at zodb.Tid, want map[int]zodb.Tid) {
	s.t.Helper()
	s.send("1 " + watchMsg(f, at) + "\n")
	s.ack(s.pins(f, want))
	s.expect("1 ok")
}

// bye ends the link as clients do.
func (s *stream) bye() {
	s.t.Helper()
	s.send("5 bye\n")
	for line := s.line(); line != "EOF"; line = s.line() {
		s.t.Errorf("after bye the server sent %q", line)
	}
	s.close()
}

// inBackground runs fn, which waits for the server.
func inBackground[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	return c
}

// await waits for what inBackground runs.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited too long for: %s", what)
	}
	return v
}

// pending checks that something has not ended yet.
func pending[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
		t.Fatalf("%s did not wait", what)
	default:
	}
}

// access reads the first byte of a block through a mapping of head.
func (w *world) access(m *mapping, blk int) <-chan error {
	return inBackground(func() error {
		_, err := m.copy(blk*blksize, 1)
		return err
	})
}
