package httpsrv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"wcfs/zcore"
	"wcfs/zcore/zodb"
)

// Options of a Server.
type Options struct {
	Core    *zcore.Core
	Storage zodb.Storage
	Version string
	Log     *slog.Logger

	// Stats returns counters of other fronts by the names of .wcfs/stats. It never waits. nil: there are none.
	Stats func() []Counter

	// TLS returns the configuration for tls:HOST:PORT, which must ask for client certificates, and says whom of those
	// with one to let in. nil: there is none.
	TLS func() (config *tls.Config, admit func(tls.ConnectionState) error, err error)
}

// Counter is a number of another front.
type Counter struct {
	Name  string
	Value int64
}

// Server serves one address.
type Server struct {
	opts    Options
	handler http.Handler
	maps    maps
	http    *http.Server
	done    chan struct{}
	cleanup func()
	local   bool // a loopback address: the name by which it is asked for is checked
	admit   func(tls.ConnectionState) error

	ctx    context.Context // ends with Close: streams of events end
	cancel context.CancelFunc
	users  users
	states states

	streams atomic.Int64 // of events
}

// ErrUsage says that an address is not one to serve at.
var ErrUsage = errors.New("not an address to serve HTTP at")

// New makes a server that serves nothing yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, done: make(chan struct{}), cleanup: func() {}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.maps.m, s.maps.next, s.maps.one = map[zodb.Oid]*fileMap{}, map[zodb.Oid]*fileMap{}, make(chan struct{}, 1)
	s.handler = s.routes()
	return s
}

// routes says what is where.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry(), promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	s.pageRoutes(mux)
	return mux
}

// Listen serves at HOST:PORT (or tcp:HOST:PORT) of this host, unix:PATH, or tls:HOST:PORT, and returns what it is bound to, as a URL where
// there is one.
func (s *Server) Listen(addr string) (url string, err error) {
	l, url, err := s.listen(addr)
	if err != nil {
		return "", err
	}
	s.http = &http.Server{
		Handler: s.guard(s.handler), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Log.Error("HTTP is not served any more", "addr", addr, "cause", err)
		}
	}()
	return url, nil
}

// Close ends all requests.
func (s *Server) Close() {
	s.cancel()
	if s.http != nil {
		s.http.Close()
		<-s.done
	}
	s.maps.running.Wait()
	s.cleanup()
}

func (s *Server) listen(addr string) (net.Listener, string, error) {
	kind, rest, _ := strings.Cut(addr, ":")
	switch kind {
	case "unix":
		l, err := s.listenUnix(rest)
		return l, addr, err
	case "tls":
		if s.opts.TLS == nil {
			return nil, "", fmt.Errorf("%w: --http %s: --tls-cert, --tls-key and --tls-client-ca are needed too", ErrUsage, addr)
		}
		config, admit, err := s.opts.TLS()
		if err != nil {
			return nil, "", fmt.Errorf("%w: --http %s: %w", ErrUsage, addr, err)
		}
		l, err := net.Listen("tcp", rest)
		if err != nil {
			return nil, "", fmt.Errorf("--http %s: %w", addr, err)
		}
		s.admit = admit
		return tls.NewListener(l, config), "https://" + l.Addr().String() + "/", nil
	case "tcp":
		addr = rest
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", fmt.Errorf("%w: --http %s: use HOST:PORT, unix:PATH or tls:HOST:PORT: %w", ErrUsage, addr, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, "", fmt.Errorf("%w: --http %s: not a loopback address, and anyone who reaches it could read the database; use tls:HOST:PORT", ErrUsage, addr)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, "", fmt.Errorf("--http %s: %w", addr, err)
	}
	s.local = true
	return l, "http://" + l.Addr().String() + "/", nil
}

// listenUnix listens at a socket for its owner only. One that nobody listens on any more is replaced.
func (s *Server) listenUnix(path string) (net.Listener, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: --http unix: no path: use unix:PATH", ErrUsage)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("--http: %s is there and is no socket: remove it", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fmt.Errorf("--http: another server listens on %s: stop it first", path)
		}
		os.Remove(path)
	}
	l, err := ownSocket(path)
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	ours, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("--http: %w", err)
	}
	l.SetUnlinkOnClose(false)
	var once sync.Once
	s.cleanup = func() {
		once.Do(func() {
			if now, err := os.Lstat(path); err == nil && os.SameFile(now, ours) {
				os.Remove(path)
			}
		})
	}
	return l, nil
}

// guard lets in who may come, and tells browsers to load nothing from elsewhere.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET: nothing can be changed here", http.StatusMethodNotAllowed)
		case s.local && !loopbackName(r.Host): // a page of somebody else's whose name leads here
			http.Error(w, "ask by a loopback address, or as localhost", http.StatusForbidden)
		case s.admit != nil && (r.TLS == nil || s.admit(*r.TLS) != nil):
			http.Error(w, "this certificate may not read everything: --9p-map says so", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func loopbackName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// healthz is 200 while all is served in time, else 503 with the reason.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	health := s.opts.Core.Health()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if health.State != zcore.HealthOK {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "%s since %s: %s\n", health.State, health.Since.Format(time.RFC3339), health.Why)
		return
	}
	fmt.Fprintln(w, "ok")
}
