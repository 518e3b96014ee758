package zeo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// fake is a ZEO server that answers what a test wants, in Z5.
type fake struct {
	t   testing.TB
	l   net.Listener
	url string

	// answer is called for each call but register, and sends what it likes.
	answer func(c *fakeConn, id int64, method string, args []any)

	iterates bool          // answer lists transactions; else it is not asked to: the storage cannot
	last     atomic.Uint64 // what register answers
	conns    atomic.Int64  // made so far
}

type fakeConn struct {
	net.Conn
	n int64 // which connection this is, from 1 on
}

func newFake(t testing.TB, answer func(c *fakeConn, id int64, method string, args []any)) *fake {
	return startFake(&fake{t: t, answer: answer})
}

func startFake(f *fake) *fake {
	t := f.t
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.l, f.url = l, zeotest.URL("tcp", l.Addr().String())
	f.last.Store(100)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(&fakeConn{nc, f.conns.Add(1)})
		}
	}()
	return f
}

func (f *fake) serve(c *fakeConn) {
	defer c.Close()
	c.frame([]byte("Z5"))
	r := bufio.NewReader(c)
	if _, err := readFrame(r, 10); err != nil {
		return
	}
	for {
		b, err := readFrame(r, 1<<20)
		if err != nil {
			return
		}
		m, err := pickleWire{maxValues}.decode(b)
		if err != nil {
			f.t.Errorf("the client sends what cannot be read: %v", err)
			return
		}
		if m.name == "register" {
			c.reply(m.id, idBytes(zodb.Tid(f.last.Load())))
			continue
		}
		if m.name == "iterator_start" && !f.iterates {
			c.send(m.id, int64(2), replyName, []any{"builtins.NotImplementedError", []any{}})
			continue
		}
		args, _ := m.args.([]any)
		f.answer(c, m.id, m.name, args)
	}
}

func (c *fakeConn) frame(b []byte) {
	c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
}

// send sends a message of these parts.
func (c *fakeConn) send(id int64, flag any, name string, args any) {
	c.frame(append(pickleValue([]byte("\x80\x03"), []any{id, flag, name, args}), '.'))
}

func (c *fakeConn) reply(id int64, v any) { c.send(id, int64(0), replyName, v) }

func (c *fakeConn) invalidate(tid zodb.Tid, oids ...zodb.Oid) {
	list := []any{}
	for _, oid := range oids {
		list = append(list, idBytes(oid))
	}
	c.send(0, true, "invalidateTransaction", []any{idBytes(tid), list})
}

// revision answers a load.
func (c *fakeConn) revision(id int64, data string, serial, end zodb.Tid) {
	var e any
	if end != 0 {
		e = idBytes(end)
	}
	c.reply(id, []any{[]byte(data), idBytes(serial), e})
}

func openFake(t testing.TB, f *fake, timeout time.Duration) *Storage {
	t.Helper()
	opt := Options{Timeout: timeout, MaxBackoff: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	s, err := Open(context.Background(), f.url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A load that was answered before a commit was told of, and one that was answered after it, in every
// order in which they can come: each is what the server knew then, the commit is reported, and what is
// reported last is not what was first.
func TestOrderOfRepliesAndCommits(t *testing.T) {
	t.Parallel()
	var first atomic.Int64
	f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
		switch method {
		case "loadBefore":
			before, _ := asTid(args[1])
			if before == 101 { // as of 100: the reply waits until the next question
				first.Store(id)
				return
			}
			c.revision(first.Load(), "old", 90, 0) // answered before the commit ...
			c.invalidate(110, 7)                   // ... which comes now ...
			c.revision(id, "new", 110, 0)          // ... and after it
			c.invalidate(120, 8)
		case "lastTransaction":
			c.reply(id, idBytes(zodb.Tid(120)))
		}
	})
	s := openFake(t, f, 10*time.Second)
	old := make(chan zodb.Record, 1)
	go func() {
		rec, err := s.LoadAt(context.Background(), 7, 100)
		if err != nil {
			t.Error(err)
		}
		old <- rec
	}()
	zeotest.Eventually(t, "the first load is on the wire", func() bool { return first.Load() != 0 })
	rec, err := s.LoadAt(context.Background(), 7, 115)
	if err != nil || string(rec.Data) != "new" || rec.Serial != 110 || rec.Until != zodb.TidMax {
		t.Errorf("as of 115: %+v, %v", rec, err)
	}
	if rec := <-old; string(rec.Data) != "old" || rec.Serial != 90 {
		t.Errorf("as of 100: %+v", rec)
	}
	var got []zodb.Commit
	stop := errors.New("enough")
	err = s.Follow(context.Background(), 100, func(c zodb.Commit) error {
		got = append(got, c)
		if len(got) == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || fmt.Sprint(got) != "[{000000000000006e [0000000000000007] 0000000000000000} {0000000000000078 [0000000000000008] 0000000000000000}]" {
		t.Errorf("reported %v, %v", got, err)
	}
}

// A server that answers with nonsense: one clear error for that load, or another connection.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		evil func(c *fakeConn, id int64)
		want string // in the error; empty where a new connection helps
	}{
		"revision later than asked":   {func(c *fakeConn, id int64) { c.revision(id, "x", 101, 0) }, "something else than it should"},
		"end not after what is asked": {func(c *fakeConn, id int64) { c.revision(id, "x", 50, 100) }, "something else than it should"},
		"a tid beyond all":            {func(c *fakeConn, id int64) { c.reply(id, []any{[]byte("x"), idBytes(zodb.Tid(1 << 63)), nil}) }, "something else"},
		"no data":                     {func(c *fakeConn, id int64) { c.reply(id, []any{nil, idBytes(zodb.Tid(5)), nil}) }, "something else"},
		"another shape":               {func(c *fakeConn, id int64) { c.reply(id, "hello") }, "something else"},
		"an exception": {func(c *fakeConn, id int64) {
			c.send(id, int64(2), replyName, []any{"builtins.OSError", []any{int64(5), "disk"}})
		}, "builtins.OSError"},
		"an odd exception":            {func(c *fakeConn, id int64) { c.send(id, int64(2), replyName, nil) }, "an exception"},
		"an unasked answer":           {func(c *fakeConn, id int64) { c.reply(id+1000, nil) }, ""},
		"a second answer":             {func(c *fakeConn, id int64) { c.reply(id-1000, nil); c.reply(id, nil) }, ""},
		"a call":                      {func(c *fakeConn, id int64) { c.send(0, true, "formatDisk", []any{}) }, ""},
		"garbage":                     {func(c *fakeConn, id int64) { c.frame([]byte("garbage")) }, ""},
		"an empty frame":              {func(c *fakeConn, id int64) { c.frame(nil) }, ""},
		"an oversized frame":          {func(c *fakeConn, id int64) { c.Write([]byte{0xff, 0xff, 0xff, 0xff}) }, ""},
		"a large claim, then nothing": {func(c *fakeConn, id int64) { c.Write([]byte{0x3f, 0xff, 0xff, 0xff}); c.Close() }, ""},
		"a commit that goes back":     {func(c *fakeConn, id int64) { c.invalidate(200, 1); c.invalidate(150, 1) }, ""},
		"a commit of what is no oid": {func(c *fakeConn, id int64) {
			c.send(0, true, "invalidateTransaction", []any{idBytes(zodb.Tid(300)), []any{"x"}})
		}, ""},
		"the end": {func(c *fakeConn, id int64) { c.Close() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f *fake
			f = newFake(t, func(c *fakeConn, id int64, method string, args []any) {
				switch {
				case method != "loadBefore":
					c.reply(id, idBytes(zodb.Tid(f.last.Load())))
				case c.n == 1:
					if strings.HasPrefix(name, "a commit that goes back") {
						f.last.Store(200)
					}
					tt.evil(c, id)
				default:
					c.revision(id, "good", 50, 0)
				}
			})
			s := openFake(t, f, 20*time.Second)
			rec, err := s.LoadAt(context.Background(), 1, 100)
			switch {
			case tt.want == "" && (err != nil || string(rec.Data) != "good" || f.conns.Load() != 2):
				t.Errorf("%+v, %v, %d connections; want good data of the second", rec, err, f.conns.Load())
			case tt.want != "" && (err == nil || zodb.IsAbsent(err) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%+v, %v; want an error with %q", rec, err, tt.want)
			}
		})
	}
}

// A connection on which nothing happens is kept: the server is asked something now and then.
func TestIdle(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
		asked.Add(1)
		c.reply(id, idBytes(zodb.Tid(100)))
	})
	openFake(t, f, 2*time.Second)
	zeotest.Eventually(t, "the server is asked", func() bool { return asked.Load() >= 4 })
	if n := f.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// The window bounds what is on the wire, also when callers give up, and it opens again.
func TestWindow(t *testing.T) {
	t.Parallel()
	asked := make(chan int64, 1000)
	var conn atomic.Pointer[fakeConn]
	f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
		conn.Store(c)
		if method == "loadBefore" {
			if before, _ := asTid(args[1]); before == 41 {
				c.revision(id, "x", 30, 0)
				return
			}
			asked <- id
		} else {
			c.reply(id, idBytes(zodb.Tid(100)))
		}
	})
	opt := Options{Window: 4, Timeout: time.Minute, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	s, err := Open(context.Background(), f.url, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 20 { // replies are small
		if _, err := s.LoadAt(t.Context(), 1, 40); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 100)
	for range 10 {
		go func() {
			_, err := s.LoadAt(ctx, 1, 50)
			done <- err
		}()
	}
	var ids []int64
	for range 4 {
		ids = append(ids, <-asked)
	}
	cancel()
	for range 10 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled load: %v", err)
		}
	}
	for range 6 {
		go func() {
			_, err := s.LoadAt(context.Background(), 1, 50)
			done <- err
		}()
	}
	if _, err := s.Head(context.Background()); err != nil { // is not held up by loads
		t.Error(err)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d loads more on the wire than the window is wide", n)
	}
	for range 6 {
		conn.Load().revision(ids[0], "x", 50, 0)
		ids = append(ids[1:], <-asked)
	}
	for _, id := range ids {
		conn.Load().revision(id, "x", 50, 0)
	}
	for range 6 {
		if err := <-done; err != nil {
			t.Errorf("load: %v", err)
		}
	}
}

// Fewer are asked for at once where replies are large, as they are taken to be at first.
func TestWindowOfBytes(t *testing.T) {
	t.Parallel()
	type question struct {
		c  *fakeConn
		id int64
	}
	asked := make(chan question, 100)
	f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
		if method == "loadBefore" {
			asked <- question{c, id}
		} else {
			c.reply(id, idBytes(zodb.Tid(100)))
		}
	})
	s := openFake(t, f, time.Minute)
	for _, tt := range []struct{ width, size int }{{3, 3 << 20}, {2, 1 << 20}, {6, 1}, {32, 1}} {
		const loads = 40
		done := make(chan error, loads)
		for range loads {
			go func() {
				_, err := s.LoadAt(context.Background(), 1, 50)
				done <- err
			}()
		}
		zeotest.Eventually(t, "as many are asked for as may be", func() bool { return len(asked) >= tt.width })
		if _, err := s.Head(t.Context()); err != nil { // comes after all that was asked
			t.Fatal(err)
		}
		if n := len(asked); n != tt.width {
			t.Errorf("%d loads on the wire; want %d", n, tt.width)
		}
		for range loads {
			q := <-asked
			q.c.revision(q.id, strings.Repeat("x", tt.size), 50, 0)
		}
		for range loads {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A follower that nobody follows for a long time does not keep what the server tells.
func TestQueueIsBounded(t *testing.T) {
	f := newFake(t, func(c *fakeConn, id int64, method string, args []any) {
		oids := make([]zodb.Oid, 1000)
		for i := range oids {
			oids[i] = zodb.Oid(i)
		}
		for tid := zodb.Tid(101); tid <= 600; tid++ {
			c.invalidate(tid, oids...)
		}
		c.reply(id, idBytes(zodb.Tid(600)))
	})
	opt := Options{MaxQueue: 5000, Timeout: time.Minute, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	s, err := Open(context.Background(), f.url, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Head(context.Background()); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 8<<20 {
		t.Errorf("%d MiB are in use", m.HeapAlloc>>20)
	}
	c := s.cur
	commits, missing := c.take()
	if len(commits) != 4 || missing != 600 {
		t.Errorf("%d commits queued, up to %s missing", len(commits), missing)
	}
}
