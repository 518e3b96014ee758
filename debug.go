package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// listenDebug serves Go's profiles at addr, which must be of this host only: a profile tells more of a
// process than its users should know. at is the address, with its port.
func (p *program) listenDebug(addr string) (stop func(), at string, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", usagef("--debug-addr %s: give HOST:PORT, like 127.0.0.1:6060: %v", addr, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, "", usagef("--debug-addr %s: only a loopback address, like 127.0.0.1:6060, is allowed", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, "", fmt.Errorf("--debug-addr: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("profiles are not served any more", "addr", addr, "cause", err)
		}
	}()
	return func() { srv.Close(); <-done }, l.Addr().String(), nil
}
