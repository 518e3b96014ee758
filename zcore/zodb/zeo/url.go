package zeo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/urlparam"
)

// defaultPort is the one that zodburi assumes when a URL names none.
const defaultPort = "9991"

// place is what a URL says.
type place struct {
	network, addr string        // as net.Dial takes them
	storage       string        // name of the storage on the server
	wait          time.Duration // how long to wait for a server that is not there at first

	tls                             bool
	tlsCA, tlsCert, tlsKey, tlsName string
}

// parseURL reads zeo://host:port/?storage=1, zeo://:port (localhost) and zeo:///path/of/socket.
func parseURL(raw string) (*place, error) {
	p, err := readURL(raw)
	if err != nil {
		return nil, &zodb.URLError{Err: err}
	}
	return p, nil
}

func readURL(raw string) (*place, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("zeo URL cannot be read: %w", hideURL(err))
	}
	switch {
	case u.Scheme != "zeo" || u.Opaque != "":
		return nil, errors.New("zeo URL must be zeo://host:port/?storage=NAME or zeo:///path/of/socket?storage=NAME")
	case u.User != nil:
		return nil, errors.New("zeo URL must not carry a user or password: a ZEO 5 server knows none, use TLS client certificates")
	case u.Fragment != "":
		return nil, errors.New("zeo URL must not have a #fragment")
	}
	p := &place{network: "tcp", storage: "1"}
	switch {
	case u.Host != "" && u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("zeo URL has both a host and a path: is the storage meant by ?storage=%s", strings.Trim(u.Path, "/"))
	case u.Host != "":
		host, port := u.Hostname(), u.Port()
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			port = defaultPort
		}
		p.addr = net.JoinHostPort(host, port)
		p.tlsName = host
	case u.Path != "" && u.Path != "/":
		p.network, p.addr = "unix", socketPath(raw, u.Path)
		p.tlsName = "localhost"
	default:
		return nil, errors.New("zeo URL names neither host:port nor the path of a socket")
	}
	return p, p.parameters(u.RawQuery)
}

// socketPath takes the path of a socket as it stands in the URL, as Python does, if there is one, else unescaped.
func socketPath(raw, unescaped string) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(raw, "zeo://"), "?")
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	return unescaped
}

// hideURL drops the URL from an error of url.Parse: it may hold a password.
func hideURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

var scheme = urlparam.Scheme{
	Name:  "zeo URL",
	Taken: "storage wait wait_timeout tls tls_ca tls_cert tls_key tls_server_name",
	Python: "cache_size cache_path name client client_label label var min_disconnect_poll max_disconnect_poll disconnect_poll" +
		" read_only read_only_fallback drop_cache_rather_verify blob_dir shared_blob_dir blob_cache_size blob_cache_size_check" +
		" server_sync debug wait_for_server_on_startup username realm",
}

func (p *place) parameters(query string) error {
	vals, err := scheme.Parse(query)
	if err != nil {
		return err
	}
	_, wait := vals["wait_timeout"] // wait=... has the last word on whether
	timeout := 30 * time.Second
	for key, val := range vals {
		var err error
		switch key {
		case "storage":
			p.storage = val
		case "wait":
			wait, err = urlparam.Bool(val)
		case "wait_timeout":
			var n int
			if n, err = urlparam.Int(val); err == nil && (n < 0 || n > 1<<20) {
				err = strconv.ErrRange
			}
			timeout = time.Duration(n) * time.Second
		case "tls":
			p.tls, err = urlparam.Bool(val)
		case "tls_ca":
			p.tlsCA = val
		case "tls_cert":
			p.tlsCert = val
		case "tls_key":
			p.tlsKey = val
		case "tls_server_name":
			p.tlsName = val
		}
		if err != nil {
			return fmt.Errorf("zeo URL parameter %s=%s: not understood", key, val)
		}
	}
	p.tls = p.tls || p.tlsCA+p.tlsCert+p.tlsKey+vals["tls_server_name"] != ""
	if wait {
		p.wait = timeout
	}
	if (p.tlsCert == "") != (p.tlsKey == "") {
		return errors.New("zeo URL must give tls_cert and tls_key together")
	}
	return nil
}

// dial connects, TLS included. Certificates are read anew each time, so that renewed ones are used.
func (p *place) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, p.network, p.addr)
	if err != nil || !p.tls {
		return nc, err
	}
	cfg, err := p.tlsConfig()
	if err != nil {
		nc.Close()
		return nil, &refusal{err}
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return nil, &refusal{err}
		}
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return tc, nil
}

func (p *place) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{ServerName: p.tlsName}
	if p.tlsCA != "" {
		pem, err := os.ReadFile(p.tlsCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s holds no certificate in PEM form", p.tlsCA)
		}
	}
	if p.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(p.tlsCert, p.tlsKey)
		if err != nil {
			return nil, fmt.Errorf("tls_cert, tls_key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}
