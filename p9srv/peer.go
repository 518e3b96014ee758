package p9srv

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
)

// peer is what the transport knows of a client.
type peer struct {
	name   string // the credential: "unix:UID", "tls:NAME", "tcp", "fd"; of TLS after the handshake
	addr   string // for logs
	tls    *tls.Conn
	checks *tlsState // of a TLS connection
	// anames are what it may attach to; nil: everything. Set by the handshake.
	anames []string
}

func (p *peer) credential() string { return p.name }

func (p *peer) String() string {
	return strings.TrimSpace(p.name + " " + p.addr)
}

// handshake makes sure who the client is; others than TLS are known already.
func (p *peer) handshake(ctx context.Context) error {
	if p.tls == nil {
		return nil
	}
	if err := p.tls.HandshakeContext(ctx); err != nil {
		return err
	}
	name := certName(p.tls.ConnectionState().PeerCertificates[0])
	p.name, p.anames = "tls:"+name, p.checks.current().anames(name)
	return nil
}

// hangUp closes the transport at once; for TLS without a farewell, which could block.
func (p *peer) hangUp(c net.Conn) {
	if p.tls != nil {
		c = p.tls.NetConn()
	}
	c.Close()
}

// allows reports whether the peer may attach to aname: by the name itself, by "/", which is
// everything, or by "/@*", which is every snapshot.
func (p *peer) allows(aname string) bool {
	if p.anames == nil {
		return true
	}
	name := strings.Trim(aname, "/")
	for _, a := range p.anames {
		a = strings.Trim(a, "/")
		if a == "" || a == name || a == "@*" && isSnapshot(name) {
			return true
		}
	}
	return false
}
