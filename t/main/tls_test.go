package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	zeotest "wcfs/t/zeo"

	"wcfs/t/served"
)

var boundTLS = regexp.MustCompile(`9p=(tls:127\.0\.0\.1:\d+)`)

// A server that strangers can reach: a certificate is needed; a kernel gets through by `wcfs dial`; SIGHUP
// puts other certificates in force.
func TestTLS(t *testing.T) {
	zurl, db := database(t)
	head := manifest(zurl, db, false).Head.String()
	good, other := zeotest.NewCerts(t), zeotest.NewCerts(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, read(t, good.CA))
	p := spawn(t, "serve", "--9p", "tls:127.0.0.1:0", "--tls-cert", good.Cert, "--tls-key", good.Key, "--tls-client-ca", ca, zurl)
	var addr string
	served.Eventually(t, "the server to listen", func() bool {
		m := boundTLS.FindStringSubmatch(p.Log.String())
		if m != nil {
			addr = m[1]
		}
		return m != nil
	})
	trusted := []string{"--tls-cert", good.ClientCert, "--tls-key", good.ClientKey, "--tls-ca", good.CA}
	at := func(options ...string) (string, int) {
		out, _, code := run(t, append(append([]string{"cat"}, options...), addr, "head/at")...)
		return out, code
	}
	if out, code := at(trusted...); code != 0 || out != head {
		t.Errorf("with a certificate: exit %d, %q; want %s", code, out, head)
	}
	if out, code := at("--tls-cert", other.ClientCert, "--tls-key", other.ClientKey, "--tls-ca", good.CA); code != 1 || out != "" {
		t.Errorf("with a certificate of another authority: exit %d, %q", code, out)
	}
	if _, code := at(); code != 2 {
		t.Errorf("without a certificate: exit %d", code)
	}

	sock := filepath.Join(t.TempDir(), "relay")
	relay := spawn(t, append([]string{"dial", "--listen", "unix:" + sock, addr}, trusted...)...)
	served.Eventually(t, "the relay to listen", func() bool {
		_, err := os.Lstat(sock)
		return err == nil
	})
	if out := mustRun(t, "cat", "unix:"+sock, "head/at"); out != head {
		t.Errorf("through the relay: %q, want %s", out, head)
	}
	relay.End()
	if _, err := os.Lstat(sock); !os.IsNotExist(err) {
		t.Errorf("the relay left its socket: %v", err)
	}

	write(t, ca, read(t, other.CA))
	p.Cmd.Process.Signal(syscall.SIGHUP)
	served.Eventually(t, "the reload", func() bool { return strings.Contains(p.Log.String(), "certificates were read anew") })
	if _, code := at(trusted...); code != 1 {
		t.Errorf("with a certificate that is trusted no more: exit %d", code)
	}
	if out, code := at("--tls-cert", other.ClientCert, "--tls-key", other.ClientKey, "--tls-ca", good.CA); code != 0 || out != head {
		t.Errorf("with a certificate that is trusted now: exit %d, %q", code, out)
	}
	p.End()
}
