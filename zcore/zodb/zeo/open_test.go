package zeo_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/zeo"
)

// openError opens what cannot be opened and checks that the error says so, once and in one line.
func openError(t *testing.T, url string, want ...string) {
	t.Helper()
	opt := options(t)
	opt.Timeout = 2 * time.Second
	s, err := zeo.Open(context.Background(), url, opt)
	if err == nil {
		s.Close()
		t.Errorf("%s could be opened", url)
		return
	}
	for _, w := range want {
		text := strings.ReplaceAll(err.Error(), url, "URL")
		if n := strings.Count(text, w); n != 1 {
			t.Errorf("%s: error %q has %q %d times, not once", url, err, w, n)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: error of more than one line: %q", url, err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 5})
	m5 := zeotest.Start(t, zeotest.Config{Version: 6, Msgpack: true})
	openError(t, zeotest.URL("tcp", srv.Addr, "storage=other"), `storage "other"`, "unknown storage: other")
	openError(t, zeotest.URL("tcp", m5.Addr, "storage=other"), `storage "other"`, "unknown storage: other")
	openError(t, zeotest.URL("tcp", zeotest.FreeAddr(t)), "connection refused", "wait_timeout=SECONDS")
	openError(t, zeotest.URL("unix", "/nonexistent/zeo.sock"), "/nonexistent/zeo.sock:", "no such file")
	openError(t, srv.URL("tls=1"), "TLS handshake: ")
	for greeting, want := range map[string]string{
		"SSH-2.0-OpenSSH_9.2\r\n":        "more than the 64 allowed",
		"HTTP/1.0 400 Bad Request\r\n":   "more than the 64 allowed",
		"\x00\x00\x00\x04Z309":           `ZEO protocol "Z309", of another version than 5`,
		"\x00\x00\x00\x04Zabc":           `ZEO protocol "Zabc", of another version than 5`,
		"\x00\x00\x00\x00":               `greets with ""`,
		"\x00\x00\x00\x02X5":             `greets with "X5"`,
		"\x00\x00":                       "no greeting of a ZEO server",
		"":                               "no greeting of a ZEO server",
		"\x00\x00\x00\x02Z5\xff\xff\xff": "connection lost",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(nc, greeting)
				nc.(*net.TCPConn).CloseWrite()
				defer nc.Close()
			}
		}()
		openError(t, zeotest.URL("tcp", l.Addr().String()), want)
		l.Close()
	}
	// Nothing is sent at all: the handshake ends in time.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	openError(t, zeotest.URL("tcp", l.Addr().String()), "no greeting of a ZEO server", "no answer")
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"zeo://user:secret@host:1/":            "must not carry a user or password",
		"zeo://us%zzer:secret@host:1/":         "cannot be read",
		"zeo:///":                              "names neither",
		"zeo://":                               "names neither",
		"zeo:host:1":                           "must be zeo://",
		"http://host:1":                        "must be zeo://",
		"zeo://host:1/main":                    "?storage=main",
		"zeo://host:1/?stroage=1":              `unknown parameter "stroage"`,
		"zeo://host:1/?wait=maybe":             "wait=maybe: not understood",
		"zeo://host:1/?wait_timeout=-1":        "wait_timeout=-1: not understood",
		"zeo://host:1/?tls_cert=/x":            "tls_cert and tls_key together",
		"zeo://host:1/#x":                      "#fragment",
		"zeo://127.0.0.1:1/?tls_ca=/no/such":   "connection refused",
		"zeo://127.0.0.1:notaport/?storage=1":  "cannot be read",
		"zeo://127.0.0.1:99999999/?storage=1":  "invalid port",
		"zeo://127.0.0.1:1/?wait_timeout=2.5":  "not understood",
		"zeo://127.0.0.1:1/?demostorage=1":     "demo:(BASE)/(CHANGES)",
		"zeo://127.0.0.1:1/?cache_size=10MB":   "connection refused", // for Python clients
		"zeo://127.0.0.1:1/?wait_timeout=0":    "connection refused",
		"zeo://[::1]:1/?wait=0&wait_timeout=9": "[::1]:1",
	} {
		openError(t, url, want)
		_, err := zeo.Open(context.Background(), url, zeo.Options{})
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password shows: %v", url, err)
		}
	}
}

// The ways to name a server, and waiting for one that is not there yet.
func TestOpen(t *testing.T) {
	t.Parallel()
	tcp := zeotest.Start(t, zeotest.Config{Version: 5, Storage: "main"})
	tid := tcp.Client().Burst(1, oids, 100, 0)[0]
	_, port, _ := net.SplitHostPort(tcp.Addr)
	for _, url := range []string{
		"zeo://:" + port + "/?storage=main", "zeo://localhost:" + port + "?storage=main&wait=1&cache_size=5MB",
		"zeo://127.0.0.1:" + port + "/?storage=main&read_only_fallback=1&wait_timeout=5",
	} {
		s := open(t, url, options(t))
		if head(t, s) != tid || s.URL() != url {
			t.Errorf("%s: head %s, URL %s", url, head(t, s), s.URL())
		}
	}
	tcp.Kill()
	opened := make(chan error, 1)
	go func() {
		s, err := zeo.Open(context.Background(), tcp.URL("wait_timeout=60"), options(t))
		if err == nil {
			s.Close()
		}
		opened <- err
	}()
	tcp.Run()
	if err := <-opened; err != nil {
		t.Errorf("waiting for the server: %v", err)
	}
	// A wait that is given up.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := zeo.Open(ctx, zeotest.URL("tcp", zeotest.FreeAddr(t), "wait_timeout=60"), options(t)); err == nil {
		t.Error("opened a server that is not there")
	}
}

// An empty database, and one that is served read-only.
func TestReadOnlyServer(t *testing.T) {
	t.Parallel()
	srv := zeotest.Start(t, zeotest.Config{Version: 6})
	s := open(t, srv.URL(), options(t))
	if h := head(t, s); h != 0 {
		t.Errorf("head of an empty database is %s", h)
	}
	if _, err := s.LoadAt(context.Background(), 0, zodb.TidMax); !errors.Is(err, zodb.ErrNoObject) {
		t.Errorf("load from an empty database: %v", err)
	}
	if err := s.Oids(context.Background(), zodb.TidMax, func(zodb.Oid) error { return errors.New("one") }); err != nil {
		t.Errorf("objects of an empty database: %v", err)
	}
	py := srv.Client()
	tids := py.Burst(3, oids, 100, 0)
	py.Close()
	srv.Kill()
	ro := zeotest.Start(t, zeotest.Config{Version: 5, Data: srv.Data, ReadOnly: true})
	s2 := open(t, ro.URL(), options(t))
	mustLoad(t, s2, 2, tids[1], zeotest.Content(2, 1, 100), tids[1])
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs, others := zeotest.NewCerts(t), zeotest.NewCerts(t)
	srv := zeotest.Start(t, zeotest.Config{Version: 5, Certs: certs})
	url := func(ca, cert, key string, more ...string) string {
		p := append([]string{"tls_ca=" + ca}, more...)
		if cert != "" {
			p = append(p, "tls_cert="+cert, "tls_key="+key)
		}
		return srv.URL(p...)
	}
	tid := srv.Client().Burst(1, oids, 1<<20, 0)[0]
	s := open(t, url(certs.CA, certs.ClientCert, certs.ClientKey), options(t))
	mustLoad(t, s, 1, tid, zeotest.Content(1, 0, 1<<20), tid)
	openError(t, url(others.CA, certs.ClientCert, certs.ClientKey), "unknown authority")
	openError(t, url(certs.CA, "", ""), "does it trust the client certificate")
	openError(t, url(certs.CA, others.ClientCert, others.ClientKey), "does it trust the client certificate")
	openError(t, url(certs.CA, certs.ClientCert, certs.ClientKey, "tls_server_name=elsewhere"), "elsewhere")
	openError(t, url(certs.ClientKey, certs.ClientCert, certs.ClientKey), "holds no certificate")
	openError(t, url("/no/such", "", ""), "tls_ca: open /no/such")
	openError(t, srv.URL(), "does it want TLS")
}
