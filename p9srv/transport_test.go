package p9srv

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hugelgupf/p9/linux"
)

// tlsWorld is a server with TLS and a map.
func tlsWorld(t *testing.T) (*world, *authority, string) {
	t.Helper()
	ca := newAuthority(t)
	ca.issue("server", time.Hour, true)
	ca.issue("guest7", time.Hour, false)
	ca.issue("guest8", time.Hour, false)
	ca.issue("stranger", time.Hour, false)
	ca.issue("old", -time.Minute, false)
	setMap(t, ca, "guest7 /\nguest8 /head /@* # no control files\nold /\n")
	w := serve(t, func(o *Options) {
		o.TLSCert, o.TLSKey, o.TLSClientCA, o.Map = ca.file("server.pem"), ca.file("server.key"), ca.file("ca.pem"), ca.file("map")
		o.HandshakeTimeout = 5 * time.Second
	})
	addr, err := w.srv.Listen(t.Context(), "tls:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return w, ca, addr
}

func setMap(t *testing.T, ca *authority, text string) {
	t.Helper()
	if err := os.WriteFile(ca.file("map"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reads tells whether a client gets data.
func reads(c *Client) error {
	f, err := c.Open(bigPath[len("head/"):], false)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(make([]byte, 4<<20), 0)
	return err
}

// TestTLS: who is let in, and to what.
func TestTLS(t *testing.T) {
	w, ca, addr := tlsWorld(t)
	ctx := t.Context()
	good, err := NewClient(ctx, addr, "/head", ca.dial("guest7"))
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	if err := reads(good); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		name, aname string
		ok          bool
	}{
		{"guest7", "", true}, {"guest7", "/@03e5a3342bc5ab22", true},
		{"guest8", "/head", true}, {"guest8", "@03e5a3342bc5ab22", true}, {"guest8", "", false}, {"guest8", "/", false},
	} {
		c, err := NewClient(ctx, addr, tc.aname, ca.dial(tc.name))
		if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, linux.EACCES) {
			t.Errorf("%s attaches to %q: %v", tc.name, tc.aname, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if err := reads(good); err != nil {
		t.Errorf("client beside: %v", err)
	}
	_ = w
}

// TestTLSRefusals: each is refused, and logged once.
func TestTLSRefusals(t *testing.T) {
	w, ca, addr := tlsWorld(t)
	other := newAuthority(t)
	other.issue("guest7", time.Hour, false)
	wrongCA := other.dial("guest7")
	wrongCA.TLSCA = ca.file("ca.pem")
	for what, o := range map[string]DialOptions{
		"failed to verify certificate": wrongCA, "expired": ca.dial("old"), "is not in --9p-map": ca.dial("stranger"),
	} {
		before := w.log.count("connection closed")
		if c, err := NewClient(t.Context(), addr, "/head", o); err == nil {
			c.Close()
			t.Errorf("%s: was let in", what)
		}
		eventually(t, what+" logged", func() bool { return w.log.count("connection closed") == before+1 })
		if w.log.count(what) == 0 {
			t.Errorf("the log does not say %q:\n%s", what, w.log.b.String())
		}
	}
	for what, conf := range map[string]*tls.Config{
		"client didn't provide a certificate":   {InsecureSkipVerify: true},
		"client offered only unsupported versi": {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
	} {
		c, err := tls.Dial("tcp", strings.TrimPrefix(addr, "tls:"), conf)
		if err == nil {
			if _, err = c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: was let in", what)
			}
			c.Close()
		}
		eventually(t, what+" logged", func() bool { return w.log.count(what) == 1 })
	}
	// Plain text and silence end too.
	c, err := net.Dial("tcp", strings.TrimPrefix(addr, "tls:"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "hello, is this 9P?\n")
	(&rawClient{t: t, c: c}).closed()
	c.Close()
	eventually(t, "plain text logged", func() bool { return w.log.count("first record does not look like a TLS handshake") == 1 })
}

// TestTLSReload: what is revoked by a reload is cut off and not let in again; a reload that fails changes
// nothing; a new server certificate is used.
func TestTLSReload(t *testing.T) {
	w, ca, addr := tlsWorld(t)
	g7, err := NewClient(t.Context(), addr, "/head", ca.dial("guest7"))
	if err != nil {
		t.Fatal(err)
	}
	defer g7.Close()
	g8, err := NewClient(t.Context(), addr, "/head", ca.dial("guest8"))
	if err != nil {
		t.Fatal(err)
	}
	defer g8.Close()
	setMap(t, ca, "guest7\n") // wrong
	if err := w.srv.Reload(); err == nil || !strings.Contains(err.Error(), "map:1") {
		t.Errorf("reload of a bad map: %v", err)
	}
	if err := errors.Join(reads(g7), reads(g8)); err != nil {
		t.Fatalf("after a failed reload: %v", err)
	}
	setMap(t, ca, "guest7 /\n")
	ca.issue("server", time.Hour, true)
	if err := w.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := reads(g7); err != nil {
		t.Errorf("guest7 after reload: %v", err)
	}
	if err := reads(g8); err == nil {
		t.Error("guest8 still reads after its name was taken from the map")
	}
	eventually(t, "logged", func() bool { return w.log.count("not trusted after reload") == 1 })
	if c, err := NewClient(t.Context(), addr, "/head", ca.dial("guest8")); err == nil {
		c.Close()
		t.Error("guest8 was let in again")
	}
	c, err := NewClient(t.Context(), addr, "/head", ca.dial("guest7"))
	if err != nil {
		t.Fatalf("guest7 with the new server certificate: %v", err)
	}
	c.Close()
}

// TestSilence: who connects and says nothing, or half of something, is cut off.
func TestSilence(t *testing.T) {
	w := serve(t, func(o *Options) { o.HandshakeTimeout, o.StallTimeout = 100*time.Millisecond, 100*time.Millisecond })
	silent := w.raw()
	half := w.raw()
	half.c.Write(newFrame(tVersion, noTag).u32(8192).str(version9P).done(0)[:8])
	silent.closed()
	half.closed()
	eventually(t, "logged", func() bool { return w.log.count(ErrHandshake.Error()) == 2 })
	c := w.client()
	c.c.Write(walkFrame(1, 0, 1, "head").done(0)[:9])
	c.closed()
	eventually(t, "logged", func() bool { return w.log.count(ErrStalled.Error()) == 1 })
}

// TestIdle: between messages there is no deadline.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := New(Options{Tree: newFakeTree(), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			srv.ServeConn(theirs, "idle")
		}()
		c := &rawClient{t: t, c: ours}
		c.version(8192, version9P)
		c.ok(newFrame(tAttach, 1).u32(0).u32(noFid).str("").str("").u32(noFid), tAttach+1)
		time.Sleep(24 * time.Hour)
		c.ok(newFrame(tStatfs, 1).u32(0), tStatfs+1)
		ours.Close()
		<-ended
	})
}

// TestUnixSocket: mode, stale sockets, and sockets in use.
func TestUnixSocket(t *testing.T) {
	w := serve(t, nil)
	path := strings.TrimPrefix(w.addr, "unix:")
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	if _, err := w.srv.Listen(t.Context(), w.addr); err == nil || !strings.Contains(err.Error(), "another server listens") {
		t.Errorf("socket in use: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, err := w.srv.Listen(t.Context(), "unix:"+file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("file in the way: %v", err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := w.srv.Listen(ctx, "unix:"+stale); err != nil {
		t.Errorf("stale socket: %v", err)
	}
	cancel()
	eventually(t, "socket removed", func() bool { _, err := os.Lstat(stale); return os.IsNotExist(err) })
}

// TestUnixPeer: other users are let in only when named.
func TestUnixPeer(t *testing.T) {
	s := &Server{uid: 1000, opts: Options{AllowUID: []uint32{1007}}}
	for uid, want := range map[uint32]bool{0: true, 1000: true, 1007: true, 1001: false, 65534: false} {
		if got := s.allowed(uid); got != want {
			t.Errorf("uid %d: %v", uid, got)
		}
	}
	w := serve(t, func(o *Options) { o.AllowUID = []uint32{1007} })
	if st, err := os.Lstat(strings.TrimPrefix(w.addr, "unix:")); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("socket for several users: %v, %v", st.Mode(), err)
	}
	w.client()
}

// TestOtherUsers: the kernel's word decides who is let in.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("to connect as another user this test needs root")
	}
	w := serve(t, func(o *Options) { o.AllowUID = []uint32{1007} })
	for uid, let := range map[int]bool{1007: true, 1008: false} {
		c := w.rawAs(uid)
		if let {
			c.version(8192, version9P)
		} else {
			c.closed()
			eventually(t, "logged", func() bool { return w.log.count("user 1008 is not the server's") == 1 })
		}
	}
}

// rawAs connects as another user: on Linux that is a matter of the thread, for this one's time.
func (w *world) rawAs(uid int) *rawClient {
	w.t.Helper()
	path := strings.TrimPrefix(w.addr, "unix:")
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const same = ^uintptr(0)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); e != 0 {
		w.t.Fatal(e)
	}
	c := w.raw()
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, same, 0, same); e != 0 {
		panic(e) // the thread must not go on so
	}
	return c
}

// TestInherited: a listening socket and a connection that the process was started with.
func TestInherited(t *testing.T) {
	w := serve(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fd := dupOf(t, l.(*net.TCPListener))
	l.Close()
	if _, err := w.srv.Listen(t.Context(), "fd:"+strconv.Itoa(fd)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	(&rawClient{t: t, c: c}).version(8192, version9P)
	c.Close()

	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.srv.Listen(t.Context(), "fd:"+strconv.Itoa(pair[0])); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "pair")
	c, err = net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	(&rawClient{t: t, c: c}).version(8192, version9P)
	c.Close()

	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	fd = dupOf(t, open.(*net.TCPListener))
	open.Close()
	if _, err := w.srv.Listen(t.Context(), "fd:"+strconv.Itoa(fd)); err == nil || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("inherited socket that is not loopback: %v", err)
	}
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if _, err := w.srv.Listen(t.Context(), "systemd"); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("sockets for another process: %v", err)
	}
}

// dupOf is a descriptor of its own for the socket of l.
func dupOf(t *testing.T, l *net.TCPListener) int {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestRelay: a client that knows no TLS reaches the server through the relay.
func TestRelay(t *testing.T) {
	_, ca, addr := tlsWorld(t)
	for _, local := range []string{"unix:" + filepath.Join(t.TempDir(), "r"), "tcp:127.0.0.1:0"} {
		ctx, cancel := context.WithCancel(t.Context())
		r := &Relay{Server: addr, Local: local, Dial: ca.dial("guest7")}
		bound, done := make(chan string, 1), make(chan error, 1)
		go func() { done <- r.Run(ctx, func(a string) { bound <- a }) }()
		var at string
		select {
		case at = <-bound:
		case err := <-done:
			t.Fatal(err)
		case <-time.After(patience):
			t.Fatal("the relay does not listen")
		}
		c, err := NewClient(t.Context(), at, "/head", DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := reads(c); err != nil {
			t.Error(err)
		}
		cancel()
		if err := receive(t, "relay ends", done); err != nil {
			t.Error(err)
		}
		if err := reads(c); err == nil {
			t.Error("the relay has ended, its connection not")
		}
		c.Close()
	}
	for want, r := range map[string]*Relay{
		"use tls:":                  {Server: "tcp:127.0.0.1:1", Local: "tcp:127.0.0.1:0"},
		"not a loopback":            {Server: addr, Local: "tcp:0.0.0.0:0", Dial: ca.dial("guest7")},
		"--tls-cert and --tls-key":  {Server: addr, Local: "tcp:127.0.0.1:0"},
		"use unix:PATH or tcp:HOST": {Server: addr, Local: "x", Dial: ca.dial("guest7")},
	} {
		if err := r.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

// TestClient: the helper against our server.
func TestClient(t *testing.T) {
	w := serve(t, nil)
	c, err := NewClient(t.Context(), w.addr, "", DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.List("/")
	if err != nil || len(list) != 3 {
		t.Errorf("list: %v, %v", list, err)
	}
	n := w.tree.at(bigPath)
	info, err := c.Stat(bigPath)
	if err != nil || info.Ino != n.ino || info.Size != int64(len(n.data)) || info.Perm != 0o444 || info.Dir || info.Blksize != 2<<20 ||
		!info.Mtime.Equal(time.Unix(1600000000, 123456000)) || info.Name != "0000000000000002" {
		t.Errorf("stat: %+v, %v", info, err)
	}
	f, err := c.Open("/"+bigPath, false)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(n.data)+10)
	if k, err := f.ReadAt(got, 0); err != io.EOF || !bytes.Equal(got[:k], n.data) {
		t.Errorf("read: %d bytes, %v", k, err)
	}
	if k, err := f.ReadAt(got[:1000], 3<<20); err != nil || !bytes.Equal(got[:k], n.data[3<<20:3<<20+1000]) {
		t.Errorf("read of a range: %d bytes, %v", k, err)
	}
	f.Close()
	watch, err := c.Open("head/watch", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.WriteAt([]byte("1 bye\n"), 0); err != nil {
		t.Error(err)
	}
	w.tree.at("head/watch").msgs <- "1 ok\n"
	p := make([]byte, 4096)
	if k, err := watch.ReadMessage(p); err != nil || strings.TrimSpace(string(p[:k])) != "1 ok" {
		t.Errorf("message: %q, %v", p[:k], err)
	}
	watch.Close()
	if _, err := c.Open(bigPath, true); !errors.Is(err, linux.EROFS) {
		t.Errorf("open to write: %v", err)
	}
	for path, want := range map[string]linux.Errno{ // the reason, though the walk to it got some of the way
		"head/nope": linux.ENOENT, "head/bigfile/0000000000000003": linux.EINVAL, "head/at/x": linux.ENOTDIR, "nope": linux.ENOENT,
	} {
		if _, err := c.Stat(path); !errors.Is(err, want) {
			t.Errorf("stat of %s: %v", path, err)
		}
	}
	if _, err := NewClient(t.Context(), "udp:1", "", DialOptions{}); err == nil {
		t.Error("dialed udp")
	}
}
