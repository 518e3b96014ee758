package httpsrv

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"wcfs/zcore"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

const blksize = 4096

// shown is a server over a database in memory.
type shown struct {
	t    *testing.T
	stor *memstorage.Store
	db   *zgen.DB
	file zodb.Oid
	core *zcore.Core
	srv  *Server
	url  string
}

// show serves a database with one bigfile of some blocks.
func show(t *testing.T, opts zcore.Options, blocks ...zdata.Blk) *shown {
	s := &shown{t: t, stor: memstorage.New()}
	s.db = zgen.New(s.stor, zgen.Options{})
	tx := s.db.Begin()
	s.file = tx.NewFile(blksize)
	for _, blk := range blocks {
		tx.Write(s.file, blk, []byte("first"), zgen.Blk0)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.core, err = zcore.New(t.Context(), s.stor, opts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.core.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s.srv = New(Options{Core: s.core, Storage: s.stor, Version: "test", Log: slog.New(slog.DiscardHandler), Stats: func() []Counter {
		return []Counter{{"P9Conn", 1}, {"P9Fid", 2}, {"P9Req", 3}, {"P9Bytes", 4}, {"p9accept", 5}, {"p9msg", 6}, {"p9connrefused", 7}, {"p9reqrefused", 8}}
	}})
	if s.url, err = s.srv.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.srv.Close)
	return s
}

// write commits text to blocks, and waits until head shows it.
func (s *shown) write(text string, blocks ...zdata.Blk) zodb.Tid {
	s.t.Helper()
	tx := s.db.Begin()
	for _, blk := range blocks {
		tx.Write(s.file, blk, []byte(text), zgen.Blk0)
	}
	tid, err := tx.Commit()
	if err != nil {
		s.t.Fatal(err)
	}
	s.until("head to be "+tid.String(), func() bool { return s.core.Head() >= tid })
	return tid
}

func (s *shown) until(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited too long for %s", what)
		}
	}
}

func (s *shown) get(path string) (code int, body string, header http.Header) {
	s.t.Helper()
	resp, err := http.Get(strings.TrimSuffix(s.url, "/") + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// The metrics are as Prometheus wants them named, and say what happened.
func TestMetrics(t *testing.T) {
	s := show(t, zcore.Options{}, 0, 1)
	f, err := s.core.Lookup(t.Context(), s.file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.Read(t.Context(), s.core.Host(), 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	data.Done()
	s.write("second", 0)
	code, text, _ := s.get("/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	problems, err := testutil.CollectAndLint(&collector{s.srv})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	for _, line := range []string{
		`wcfs_health{state="ok"} 1`, `wcfs_health{state="failed"} 0`, `wcfs_build_info{version="test"} 1`,
		`wcfs_commits_total 1`, `wcfs_changed_blocks_total 1`, `wcfs_commit_apply_seconds_count 1`, `wcfs_bigfiles 1`, `wcfs_tracked_blocks 1`,
		`wcfs_reads_total{front="fuse",tree="head"} 1`, `wcfs_read_bytes_total{front="fuse",tree="head"} 100`, `wcfs_reads_total{front="9p",tree="revision"} 0`,
		`wcfs_p9_connections 1`, `wcfs_p9_refused_requests_total 8`, `wcfs_storage_connected 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// The health check fails with the reason.
func TestHealthz(t *testing.T) {
	s := show(t, zcore.Options{}, 0)
	if code, text, _ := s.get("/healthz"); code != 200 || text != "ok\n" {
		t.Fatalf("%d %q", code, text)
	}
	s.stor.FailFollow(errors.New("broken on purpose"))
	s.until("failure", func() bool { code, _, _ := s.get("/healthz"); return code == 503 })
	if _, text, _ := s.get("/healthz"); !strings.HasPrefix(text, "failed since ") || !strings.Contains(text, "broken on purpose") {
		t.Errorf("%q", text)
	}
	if code, text, _ := s.get("/metrics"); code != 200 || !strings.Contains(text, `wcfs_health{state="failed"} 1`) {
		t.Errorf("metrics after a failure: %d", code)
	}
}

// Nothing but GET by a name of this host is answered, and browsers are told to stay here.
func TestGuard(t *testing.T) {
	s := show(t, zcore.Options{}, 0)
	req, _ := http.NewRequest("POST", s.url+"healthz", strings.NewReader("x"))
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v %v", resp, err)
	}
	req, _ = http.NewRequest("GET", s.url+"metrics", nil)
	req.Host = "elsewhere.example:80"
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 403 {
		t.Errorf("asked by another name: %v %v", resp, err)
	}
	for _, host := range []string{"localhost", "localhost:8000", "127.0.0.1", "[::1]:8000", "127.3.2.1:1"} {
		req.Host = host
		if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 200 {
			t.Errorf("asked as %s: %v %v", host, resp, err)
		}
	}
	if _, _, h := s.get("/healthz"); !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; ") {
		t.Errorf("%v", h)
	}
	if code, text, _ := s.get("/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("pprof: %d %.100s", code, text)
	}
}

// Addresses that others could reach are refused.
func TestListen(t *testing.T) {
	s := show(t, zcore.Options{}, 0)
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:80", ":0", "example.org:80", "80", "", "tcp:0.0.0.0:0", "unix:", "tls:127.0.0.1:0"} {
		srv := New(s.srv.opts)
		if url, err := srv.Listen(addr); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %s %v; want ErrUsage", addr, url, err)
		}
		srv.Close()
	}
	path := filepath.Join(t.TempDir(), "s")
	srv := New(s.srv.opts)
	if _, err := srv.Listen("unix:" + path); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	again := New(s.srv.opts)
	if _, err := again.Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a second server at one socket: %v", err)
	}
	again.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	if resp, err := client.Get("http://wcfs/healthz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %v", resp, err)
	}
	srv.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
