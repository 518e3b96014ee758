package p9srv

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// tlsState is what TLS connections are checked by; Reload replaces it as a whole.
type tlsState struct {
	server *tls.Config // for tls.Server: takes what is current
	cur    atomic.Pointer[trust]
}

// trust is one reading of the files named by the options. It is immutable.
type trust struct {
	config *tls.Config
	pool   *x509.CertPool
	names  map[string][]string // anames by name of certificate; nil: no --9p-map
}

func (t *tlsState) current() *trust { return t.cur.Load() }

// tlsOnce reads certificates when they are first needed.
func (s *Server) tlsOnce() (*tlsState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls != nil {
		return s.tls, nil
	}
	now, err := loadTrust(&s.opts)
	if err != nil {
		return nil, err
	}
	t := &tlsState{}
	t.cur.Store(now)
	t.server = &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current().config, nil },
	}
	s.tls = t
	return t, nil
}

// ServerTLS is for another front beside this one: what it is to listen with for clients with certificates, and admit, which
// tells whether one may attach to everything. Reload changes both.
func (s *Server) ServerTLS() (config *tls.Config, admit func(tls.ConnectionState) error, err error) {
	for _, o := range []struct{ name, value string }{
		{"--tls-cert", s.opts.TLSCert}, {"--tls-key", s.opts.TLSKey}, {"--tls-client-ca", s.opts.TLSClientCA},
	} {
		if o.value == "" {
			return nil, nil, fmt.Errorf("%s is needed too", o.name)
		}
	}
	t, err := s.tlsOnce()
	if err != nil {
		return nil, nil, err
	}
	return t.server, func(cs tls.ConnectionState) error {
		now := t.current()
		if err := now.verify(cs); err != nil {
			return err
		}
		name := certName(cs.PeerCertificates[0])
		if p := (peer{anames: now.anames(name)}); !p.allows("") {
			return fmt.Errorf("certificate %q may not attach to everything", name)
		}
		return nil
	}, nil
}

// Reload reads certificates, the client CA and the map anew, as on SIGHUP. Connections whose certificate
// is not trusted any more are closed. When something is wrong all stays as it was.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls == nil {
		return nil
	}
	now, err := loadTrust(&s.opts)
	if err != nil {
		return fmt.Errorf("9p: certificates not reloaded, the old ones stay: %w", err)
	}
	s.tls.cur.Store(now)
	for c := range s.live {
		if p := c.peer; p.tls != nil && p.tls.ConnectionState().HandshakeComplete {
			if err := now.verify(p.tls.ConnectionState()); err != nil {
				c.end(fmt.Errorf("certificate is not trusted after reload: %w", err))
			}
		}
	}
	return nil
}

func loadTrust(o *Options) (*trust, error) {
	cert, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	t := &trust{}
	if t.pool, err = loadPool(o.TLSClientCA); err != nil {
		return nil, fmt.Errorf("--tls-client-ca: %w", err)
	}
	if o.Map != "" {
		if t.names, err = loadMap(o.Map); err != nil {
			return nil, fmt.Errorf("--9p-map: %w", err)
		}
	}
	t.config = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              t.pool,
		SessionTicketsDisabled: true, // every connection is checked against what is current
		VerifyConnection:       t.verify,
	}
	return t, nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in it", file)
	}
	return pool, nil
}

// verify checks a client's certificate against pool and map.
func (t *trust) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := cs.PeerCertificates[0]
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: t.pool, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return err
	}
	if name := certName(leaf); t.names != nil && t.names[name] == nil {
		return fmt.Errorf("certificate %q is not in --9p-map", name)
	}
	return nil
}

// anames are what the certificate name may attach to; nil: everything.
func (t *trust) anames(name string) []string {
	if t.names == nil {
		return nil
	}
	return append([]string{}, t.names[name]...)
}

// certName is the name a certificate goes by: its common name, else its first DNS name.
func certName(c *x509.Certificate) string {
	if c.Subject.CommonName == "" && len(c.DNSNames) > 0 {
		return c.DNSNames[0]
	}
	return c.Subject.CommonName
}

// loadMap reads lines "NAME ANAME..."; # starts a comment.
func loadMap(file string) (map[string][]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	names := make(map[string][]string)
	sc := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 2 {
			return nil, fmt.Errorf("%s:%d: want a certificate's name and anames", file, n)
		}
		for _, a := range f[1:] {
			if name := strings.Trim(a, "/"); name != "" && name != "head" && name != "@*" && !isSnapshot(name) {
				return nil, fmt.Errorf("%s:%d: %q is not /, /head, /@TID or /@*", file, n, a)
			}
		}
		names[f[0]] = append(names[f[0]], f[1:]...)
	}
	return names, sc.Err()
}
