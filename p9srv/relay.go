package p9srv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
)

// Relay carries local connections to a server through TLS, for clients that know none, like a kernel's
// mount. Each local connection is one connection to the server.
type Relay struct {
	Server string // tls:HOST:PORT
	Local  string // unix:PATH, of mode 0600 and only for the user who runs it, or tcp:HOST:PORT on loopback
	Dial   DialOptions
	Log    *slog.Logger // slog.Default() when nil
}

// Run listens and relays until ctx is done; then it closes everything and returns nil. bound, when not nil, is
// told where it listens.
func (r *Relay) Run(ctx context.Context, bound func(addr string)) error {
	log := r.Log
	if log == nil {
		log = slog.Default()
	}
	if !strings.HasPrefix(r.Server, "tls:") {
		return fmt.Errorf("dial %s: use tls:HOST:PORT", r.Server)
	}
	// Wrong certificates are told now, not at the first connection.
	if err := r.Dial.Check(r.Server); err != nil {
		return err
	}
	l, addr, err := r.listen(ctx)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", r.Local, err)
	}
	defer context.AfterFunc(ctx, l.close)()
	defer l.close()
	if bound != nil {
		bound(addr)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("--listen %s: %w", r.Local, err)
		}
		wg.Go(func() {
			defer c.Close()
			if err := r.carry(ctx, c); err != nil && ctx.Err() == nil {
				log.Warn("dial: connection lost", "server", r.Server, "cause", err)
			}
		})
	}
}

func (r *Relay) listen(ctx context.Context) (*listener, string, error) {
	kind, rest, _ := strings.Cut(r.Local, ":")
	switch kind {
	case "unix":
		l, err := listenUnix(ctx, rest, false)
		return l, r.Local, err
	case "tcp":
		host, _, err := net.SplitHostPort(rest)
		if err != nil {
			return nil, "", err
		}
		if !loopback(host) {
			return nil, "", errors.New("not a loopback address: what comes in there would be as good as your certificate")
		}
		var lc net.ListenConfig
		nl, err := lc.Listen(ctx, "tcp", rest)
		if err != nil {
			return nil, "", err
		}
		return &listener{Listener: nl}, "tcp:" + nl.Addr().String(), nil
	}
	return nil, "", errors.New("use unix:PATH or tcp:HOST:PORT")
}

// carry copies both ways until one side ends.
func (r *Relay) carry(ctx context.Context, local net.Conn) error {
	if uc, ok := local.(*net.UnixConn); ok {
		if uid, err := peerUID(uc); err != nil || uid != 0 && uid != uint32(os.Geteuid()) {
			return fmt.Errorf("user %d may not use this relay (%w)", uid, os.ErrPermission)
		}
	}
	remote, err := r.Dial.Dial(ctx, r.Server)
	if err != nil {
		return err
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() { local.Close(); remote.Close() })
	defer stop()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(remote, local)
		local.Close()
		remote.Close()
		done <- err
	}()
	_, err = io.Copy(local, remote)
	local.Close()
	remote.Close()
	if up := <-done; err == nil || errors.Is(err, net.ErrClosed) {
		err = up
	}
	if errors.Is(err, net.ErrClosed) || err != nil && isReset(err) {
		return nil // one side left
	}
	return err
}
