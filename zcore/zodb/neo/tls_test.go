package neo_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	neotest "wcfs/t/neo"
	"wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/neo"
)

// Over TLS with certificates at both ends, master and storages are read and followed, and lost and found again.
func TestTLS(t *testing.T) {
	certs := zeo.NewCerts(t)
	both(t, neotest.Config{Storages: 2, Partitions: 2, Replicas: 1, Certs: certs}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		w := cl.Writer()
		objs, tid := fill(w)
		s := open(t, cl.URL(), options(t))
		if s.URL() != cl.Normal() {
			t.Errorf("it is shown as %s; want %s", s.URL(), cl.Normal())
		}
		f := follow(t, s, tid)
		loadAll(t, s, objs, tid)
		cl.Storages[0].Kill()
		loadAll(t, s, objs, tid)
		cl.Masters[0].Kill()
		cl.Masters[0].Start()
		cl.Storages[0].Start()
		t1 := w.Commit(map[zodb.Oid][]byte{1: data("over TLS")})
		f.want(commit(t1, 1))
		loadAll(t, s, map[zodb.Oid][]byte{2: objs[2]}, tid)

		base, _, _ := strings.Cut(cl.URL(), "?")
		with := func(ca, cert, key string) string { return base + "?ca=" + ca + "&cert=" + cert + "&key=" + key }
		other := zeo.NewCerts(t)
		for what, bad := range map[string][2]string{
			"without TLS":                 {strings.Replace(base, "neos:", "neo:", 1), "does it want TLS"},
			"another authority":           {with(other.CA, certs.ClientCert, certs.ClientKey), "not of the authority"},
			"a certificate not of theirs": {with(certs.CA, other.ClientCert, other.ClientKey), "does not accept our certificate"},
		} {
			opt := options(t)
			opt.Timeout = 10 * time.Second
			_, err := neo.Open(context.Background(), bad[0], opt)
			if err == nil || !strings.Contains(err.Error(), bad[1]) {
				t.Errorf("%s: %v; want %q", what, err, bad[1])
			}
		}
	})
}

// A TLS connection ends without close_notify: a master of 1.12.0 does not get over that.
func TestNoCloseNotify(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 6, Certs: zeo.NewCerts(t)})
	_, tid := fill(cl.Writer())
	rec := record(t, cl.Masters[0].Addr)
	opt := behind(t)
	s := open(t, strings.Replace(cl.URL(), cl.Masters[0].Addr, rec.addr, 1), opt)
	if _, err := s.LoadAt(context.Background(), 1, tid); err != nil {
		t.Fatal(err)
	}
	s.Close()
	sent := rec.sent()
	if len(sent) == 0 {
		t.Fatal("nothing was sent")
	}
	for len(sent) >= 5 {
		if kind, n := sent[0], int(binary.BigEndian.Uint16(sent[3:])); kind == 21 {
			t.Fatal("an alert was sent")
		} else {
			sent = sent[min(5+n, len(sent)):]
		}
	}
	// The master serves others on.
	again := open(t, cl.URL(), options(t))
	if _, err := again.LoadAt(context.Background(), 1, tid); err != nil {
		t.Error(err)
	}
}

// recorder passes connections on and keeps what clients send.
type recorder struct {
	addr string
	wg   sync.WaitGroup
	mu   sync.Mutex
	buf  bytes.Buffer // guarded by mu
}

func record(t testing.TB, target string) *recorder {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &recorder{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			r.wg.Add(1)
			go func() { io.Copy(client, server); client.Close() }()
			go func() {
				defer r.wg.Done()
				defer server.Close()
				io.Copy(io.MultiWriter(r, server), client)
			}()
		}
	}()
	return r
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

// sent waits until all clients have gone.
func (r *recorder) sent() []byte {
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Bytes()
}

// What is wrong at the start is said in one line.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 5})
	greet := func(hello string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(nc, hello)
				go func() { io.Copy(io.Discard, nc); nc.Close() }()
			}
		}()
		return l.Addr().String()
	}
	_, missing := os.Stat("/nonexistent")
	for url, want := range map[string]string{
		"neo://c@" + zeo.FreeAddr(t):                                              "does a NEO master run there?",
		"neo://c@" + zeo.FreeAddr(t) + "," + zeo.FreeAddr(t):                      "does a NEO master run there?",
		strings.Replace(cl.URL(), cl.Name, "another", 1):                          `is the cluster called "another"?`,
		"neo://c@" + greet("\x00\x00\x00\x05"):                                    "NEO protocol 5 (struct) is not supported",
		"neo://c@" + greet("\x92\xa3NEO\x03"):                                     "NEO protocol M3 (msgpack) is not supported",
		"neo://c@" + greet("HTTP/1.0 400"):                                        "it is not a NEO server",
		"neo://c@" + greet("\x00\x00\x00\x05") + "," + zeo.FreeAddr(t):            "is not supported",
		"neos://c@" + greet("\x00\x00\x00\x06") + "?ca=/nonexistent&cert=b&key=c": missing.(*os.PathError).Err.Error(),
		"neo://" + cl.Name + "@" + cl.Storages[0].Addr:                            "", // a storage: some error, soon
	} {
		opt := options(t)
		opt.Timeout = 3 * time.Second
		start := time.Now()
		_, err := neo.Open(context.Background(), url, opt)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q", url, err, want)
		}
		if took := time.Since(start); want != "" && took > patience/2 {
			t.Errorf("%s: that took %v", url, took)
		}
	}
}

// A cluster that is not operational yet is waited for.
func TestOpenWaits(t *testing.T) {
	t.Parallel()
	cl := neotest.Start(t, neotest.Config{Protocol: 5})
	objs, tid := fill(cl.Writer())
	cl.Storages[0].Kill()
	started := make(chan struct{})
	time.AfterFunc(time.Second, func() {
		defer close(started)
		cl.Storages[0].Start()
	})
	s := open(t, cl.URL(), options(t))
	<-started
	loadAll(t, s, objs, tid)
}

// An empty database is one of head 0, and is followed from there.
func TestEmpty(t *testing.T) {
	both(t, neotest.Config{}, func(t *testing.T, cfg neotest.Config) {
		cl := neotest.Start(t, cfg)
		s := open(t, cl.URL(), options(t))
		if h := head(t, s); h != 0 {
			t.Errorf("head is %s", h)
		}
		f := follow(t, s, 0)
		tid := cl.Writer().Commit(map[zodb.Oid][]byte{0: data("first")})
		f.want(commit(tid, 0))
	})
}
