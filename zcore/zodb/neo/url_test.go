package neo

import (
	"reflect"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	for _, tt := range []struct {
		url     string
		cluster string
		masters []address
		tls     bool
		normal  string
	}{
		{"neo://c@h:1", "c", []address{{"h", 1}}, false, "neo://c@h:1"},
		{"neo://my%20c%40%2f@h2:2,h1:1", "my c@/", []address{{"h2", 2}, {"h1", 1}}, false, "neo://my%20c%40%2f@h1:1,h2:2"},
		{"neo://c@[::1]:5,10.0.0.1:6?compress=0&read_only=1&read-only=1&logfile=x&cache_size=9&cache-size=1MB", "c",
			[]address{{"::1", 5}, {"10.0.0.1", 6}}, false, "neo://c@10.0.0.1:6,[::1]:5"},
		{"neo://c@h:1/?dynamic_master_list=f&connection_pool_size=3&ignore-wrong-checksum=1", "c", []address{{"h", 1}}, false,
			"neo://c@h:1?connection_pool_size=3&dynamic_master_list=f&ignore-wrong-checksum=1"},
		{"neo://c@h:1?key=k&ca=a&cert=b", "c", []address{{"h", 1}}, true, "neos://c@h:1"},
		{"neos://c@h:1?ca=a&cert=b&key=k&compress=1", "c", []address{{"h", 1}}, true, "neos://c@h:1"},
		{"neo://c@h:1?ca=&cert=&key=", "c", []address{{"h", 1}}, false, "neo://c@h:1"},
		{"neo://c@h:1,h:1", "c", []address{{"h", 1}}, false, "neo://c@h:1,h:1"},
	} {
		p, err := parseURL(tt.url)
		if err != nil || p.cluster != tt.cluster || !reflect.DeepEqual(p.masters, tt.masters) || p.tls != tt.tls || p.normal != tt.normal {
			t.Errorf("%s: %+v, %v; want %+v", tt.url, p, err, tt)
		}
	}
}

func TestURLErrors(t *testing.T) {
	for url, want := range map[string]string{
		"neo:c@h:1":               "must be neo://CLUSTER@host:port",
		"neo://h:1":               "must name the cluster and its masters",
		"neo://@h:1":              "must name the cluster",
		"neo://c@":                "must name the cluster",
		"neo://c@h":               `names the master "h", which is not host:port`,
		"neo://c@h:0":             "not host:port",
		"neo://c@h:70000":         "not host:port",
		"neo://c@h:1,":            `names the master ""`,
		"neo://c@::1:5":           "written in brackets",
		"neo://c:pw@h:1":          "must not carry a password",
		"neo://c@h:1#f":           "#fragment",
		"neo://c@h:1?color=red":   `unknown parameter "color"`,
		"neo://c@h:1?ca=a&ca=b":   "cert is missing",
		"neo://c@h:1?ca=a&key=k":  "cert is missing",
		"neos://c@h:1":            "$NEO_CA",
		"neo://m1:1,m2:2/c":       "write neo://c@m1:1,m2:2",
		"neo://m1:1/c?compress=1": "write neo://c@m1:1?compress=1",
		"neo://c@h:1/x":           "must not have a /path",
		"neos://ca=a.crt;cert=b;key=k@m1:1,m2:2/c%20d": "write neos://c%20d@m1:1,m2:2?ca=a.crt&cert=b&key=k",
	} {
		if _, err := parseURL(url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", url, err, want)
		}
	}
}

// neos:// without files takes those of the environment, as Python's client does.
func TestURLEnvironment(t *testing.T) {
	t.Setenv("NEO_CA", "/a")
	t.Setenv("NEO_CERT", "/c")
	t.Setenv("NEO_KEY", "/k")
	p, err := parseURL("neos://c@h:1")
	if err != nil || !p.tls || p.ca != "/a" || p.cert != "/c" || p.key != "/k" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = parseURL("neo://c@h:1"); err != nil || p.tls {
		t.Errorf("%+v, %v", p, err)
	}
	t.Setenv("NEO_KEY", "")
	if _, err := parseURL("neos://c@h:1"); err == nil {
		t.Error("there is no key")
	}
}
