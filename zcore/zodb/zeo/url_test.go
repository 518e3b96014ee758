package zeo

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// db/17: a URL means what zodburi and Python's ClientStorage take it for.
func TestURLAsPython(t *testing.T) {
	for url, want := range map[string]place{
		"zeo://h:1":                                    {addr: "h:1", storage: "1"},
		"zeo://h":                                      {addr: "h:9991", storage: "1"},
		"zeo://h:1/?storage=":                          {addr: "h:1", storage: "1"},
		"zeo://h:1?storage=a+b":                        {addr: "h:1", storage: "a b"},
		"zeo://h:1?storage=semi;colon":                 {addr: "h:1", storage: "semi;colon"},
		"zeo://h:1?storage=p%25q":                      {addr: "h:1", storage: "p%q"},
		"zeo://h:1?storage=\u00fc":                     {addr: "h:1", storage: "\u00fc"},
		"zeo://h:1?storage=1&storage=main":             {addr: "h:1", storage: "main"},
		"zeo://[::1]:1?wait_timeout=":                  {addr: "[::1]:1", storage: "1"},
		"zeo://h:1?wait=true&storage=1&wait_timeout=":  {addr: "h:1", storage: "1", wait: 30 * time.Second},
		"zeo://h:1?wait=t&wait_timeout=5":              {addr: "h:1", storage: "1", wait: 5 * time.Second},
		"zeo://h:1?wait_timeout=5&wait=f&tls=&tls_ca=": {addr: "h:1", storage: "1"},
		"zeo://h:1?username=u&realm=r&cache_size=10MB": {addr: "h:1", storage: "1"},
	} {
		p, err := parseURL(url)
		if err != nil || p.addr != want.addr || p.storage != want.storage || p.wait != want.wait || p.tls {
			t.Errorf("%s: %+v, %v; want %+v", url, p, err, want)
		}
	}
	sock := filepath.Join(t.TempDir(), "s%20k")
	if p, err := parseURL("zeo://" + sock + "?storage=x"); err != nil || p.addr != filepath.Dir(sock)+"/s k" {
		t.Errorf("an escaped path: %+v, %v", p, err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := os.Lstat(sock); err != nil {
		t.Fatal(err)
	}
	if p, err := parseURL("zeo://" + sock + "?storage=x"); err != nil || p.addr != sock {
		t.Errorf("a path as it stands: %+v, %v", p, err)
	}
}
