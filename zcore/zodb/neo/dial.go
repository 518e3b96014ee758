package neo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// connect makes a connection to a node, up to the handshake. The caller has it started.
func (p *place) connect(ctx context.Context, a address, opt Options) (*conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 3}}
	raw, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, &dialError{err}
	}
	nc := raw
	if p.tls {
		if nc, err = p.secure(ctx, raw); err != nil {
			raw.Close()
			return nil, fmt.Errorf("%s: %w", a, err)
		}
	}
	c, err := newConn(ctx, nc, raw, opt)
	if err != nil {
		switch {
		case isRefusal(err):
		case p.tls && isAlert(err):
			err = &refusal{fmt.Errorf("%w: it does not accept our certificate (cert, key)", err)}
		case !p.tls:
			err = fmt.Errorf("%w: does it want TLS (neos://)?", err)
		}
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	return c, nil
}

// dialError is that there was nobody to connect to.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// secure does the TLS handshake. Both ends have certificates of one authority, and there is no check of names.
// Files are read anew each time, so that renewed certificates are used.
func (p *place) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	cfg, err := p.tlsConfig()
	if err != nil {
		return nil, &refusal{err}
	}
	tc := tls.Client(raw, cfg)
	err = tc.HandshakeContext(ctx)
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	switch {
	case err == nil:
		return tc, nil
	case errors.As(err, &record):
		return nil, &refusal{fmt.Errorf("it does not speak TLS: write neo:// and no ca, cert, key (%w)", err)}
	case errors.As(err, &cert):
		return nil, &refusal{fmt.Errorf("its certificate is not of the authority given as ca: %w", err)}
	case isAlert(err):
		return nil, &refusal{fmt.Errorf("it does not accept our certificate (cert, key): %w", err)}
	}
	return nil, fmt.Errorf("TLS handshake: %w", err)
}

// isAlert tells whether the other end ended TLS with an alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func (p *place) tlsConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(p.ca)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM form", p.ca)
	}
	cert, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, fmt.Errorf("cert, key: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true, // of the name; verify does the rest
		VerifyConnection:   func(cs tls.ConnectionState) error { return verify(cs, roots) },
	}, nil
}

// verify checks the server's certificate against our authority.
func verify(cs tls.ConnectionState, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return nil
}
