package p9srv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// DialOptions are how a client reaches a server. Exported fields with a name are options of the command line.
type DialOptions struct {
	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Certificate to show to a tls: server, PEM."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"Private key of it, PEM."`
	TLSCA   string `name:"tls-ca" placeholder:"FILE" help:"Certificates that sign that of the server, PEM. Without it: those of the system."`
	TLSName string `name:"tls-name" placeholder:"NAME" help:"Name that the server's certificate must have, when it is not HOST."`

	// Uname is who the client says it is. Connections of one uname are one domain to the server; without
	// one, each is its own.
	Uname string `kong:"-"`
	// Msize is the largest message to ask for; 1 MiB when zero.
	Msize uint32 `kong:"-"`
}

// dialTimeout bounds how long connecting and the TLS handshake may take.
const dialTimeout = 10 * time.Second

// Check tells what is wrong with addr, or with the options for it, without connecting.
func (o DialOptions) Check(addr string) error {
	var err error
	switch kind, rest, _ := strings.Cut(addr, ":"); kind {
	case "unix":
		if rest == "" {
			err = errors.New("no path: use unix:PATH")
		}
	case "tcp":
		_, _, err = net.SplitHostPort(rest)
	case "tls":
		_, err = o.config(rest)
	default:
		err = errors.New("use unix:PATH, tcp:HOST:PORT or tls:HOST:PORT")
	}
	if bad := new(net.AddrError); errors.As(err, &bad) {
		err = fmt.Errorf("use HOST:PORT: %s", bad.Err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", addr, err)
	}
	return nil
}

// Dial connects to unix:PATH, tcp:HOST:PORT or tls:HOST:PORT.
func (o DialOptions) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if err := o.Check(addr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	kind, rest, _ := strings.Cut(addr, ":")
	var c net.Conn
	var err error
	switch kind {
	case "unix", "tcp":
		var d net.Dialer
		c, err = d.DialContext(ctx, kind, rest)
	case "tls":
		var conf *tls.Config
		if conf, err = o.config(rest); err == nil {
			d := tls.Dialer{Config: conf}
			c, err = d.DialContext(ctx, "tcp", rest)
		}
	}
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" {
		err = fmt.Errorf("no server listens there: %w", op.Err) // it names the address once more
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return c, nil
}

func (o DialOptions) config(hostport string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host}
	if o.TLSName != "" {
		conf.ServerName = o.TLSName
	}
	if o.TLSCert == "" || o.TLSKey == "" {
		return nil, errors.New("--tls-cert and --tls-key are needed: the server asks for a certificate")
	}
	cert, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	conf.Certificates = []tls.Certificate{cert}
	if o.TLSCA != "" {
		var pool *x509.CertPool
		if pool, err = loadPool(o.TLSCA); err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		conf.RootCAs = pool
	}
	return conf, nil
}

// introduced changes the first two messages of the library's client. Its Tversion asks for an extension of
// 9P2000.L, which some servers answer by an error where it expects another version. Its Tattach does
// not say who the user is. It sends both before anything else, and waits for the replies.
type introduced struct {
	net.Conn
	version frame // instead of Tversion; nil: as it is
	attach  frame // instead of Tattach, but for tag and fid; nil when sent
	seen    frame // of the message being sent
}

func (c *introduced) Write(p []byte) (int, error) {
	if c.attach == nil {
		return c.Conn.Write(p)
	}
	c.seen = append(c.seen, p...)
	if len(c.seen) < headerLen || len(c.seen) < int(binary.LittleEndian.Uint32(c.seen)) {
		return len(p), nil
	}
	out := c.seen
	switch {
	case msgType(out[4]) == tAttach:
		copy(c.attach[5:headerLen+4], out[5:])
		out, c.attach = c.attach, nil
	case c.version != nil:
		copy(c.version[5:headerLen], out[5:])
		out = c.version
	}
	c.seen = nil
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
