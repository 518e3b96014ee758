package neo

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/urlparam"
)

// place is what a URL says.
type place struct {
	cluster string
	masters []address // in the order of the URL
	normal  string    // the URL as it is shown

	tls           bool
	ca, cert, key string // files
}

// parseURL reads neo://CLUSTER@master1:port,master2:port?ca=FILE&cert=FILE&key=FILE, or neos://.
func parseURL(raw string) (*place, error) {
	p, err := readURL(raw)
	if err != nil {
		return nil, &zodb.URLError{Err: err}
	}
	return p, nil
}

const form = "neo://CLUSTER@host:port,host:port?..., or neos:// for TLS"

func readURL(raw string) (*place, error) {
	proto, rest, ok := strings.Cut(raw, "://")
	if !ok || proto != "neo" && proto != "neos" {
		return nil, errors.New("NEO URL must be " + form)
	}
	if strings.Contains(rest, "#") {
		return nil, errors.New("NEO URL must not have a #fragment")
	}
	where, query, _ := strings.Cut(rest, "?")
	where, path, _ := strings.Cut(where, "/")
	cluster, masters, ok := strings.Cut(where, "@")
	if path != "" {
		return nil, olderForm(proto, where, path, query)
	}
	if !ok || cluster == "" || masters == "" {
		return nil, errors.New("NEO URL must name the cluster and its masters: " + form)
	}
	if strings.Contains(cluster, ":") {
		return nil, errors.New("NEO URL must not carry a password: NEO knows none. Write a colon in the name of a cluster as %3A")
	}
	p := &place{tls: proto == "neos"}
	var err error
	if p.cluster, err = url.PathUnescape(cluster); err != nil {
		return nil, fmt.Errorf("NEO URL has a cluster name that cannot be read: %w", err)
	}
	for m := range strings.SplitSeq(masters, ",") {
		a, err := parseMaster(m)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.masters, a) {
			p.masters = append(p.masters, a)
		}
	}
	if err := p.parameters(query); err != nil {
		return nil, err
	}
	p.normal = p.normalize(cluster, strings.Split(masters, ","), query)
	return p, nil
}

// olderForm spells out what a URL of the form that wendelin.core had until 2023 has become:
// neo://[ca=FILE;cert=FILE;key=FILE@]master1,master2/CLUSTER.
func olderForm(scheme, where, path, query string) error {
	cred, masters, ok := strings.Cut(where, "@")
	if !ok {
		cred, masters = "", where
	}
	params := []string{}
	for c := range strings.SplitSeq(cred, ";") {
		switch name, _, _ := strings.Cut(c, "="); name {
		case "ca", "cert", "key":
			params = append(params, c)
		case "":
		default:
			return errors.New("NEO URL must not have a /path: " + form)
		}
	}
	if query != "" {
		params = append(params, query)
	}
	now := scheme + "://" + path + "@" + masters
	if len(params) > 0 {
		now += "?" + strings.Join(params, "&")
	}
	return fmt.Errorf("NEO URL is of the form that was in use until 2023; write %s", now)
}

func parseMaster(s string) (address, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("NEO URL names the master %q, which is not host:port (an IPv6 address is written in brackets)", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return address{}, fmt.Errorf("NEO URL names the master %q, which is not host:port", s)
	}
	return address{host, uint16(n)}, nil
}

var scheme = urlparam.Scheme{
	Name: "NEO URL", Taken: "ca cert key", Dashes: true,
	Python: "compress read_only logfile cache_size dynamic_master_list ignore_wrong_checksum",
}

func (p *place) parameters(query string) error {
	vals, err := scheme.Parse(query)
	if err != nil {
		return err
	}
	p.ca, p.cert, p.key = vals["ca"], vals["cert"], vals["key"]
	files := []*string{&p.ca, &p.cert, &p.key}
	given := slices.ContainsFunc(files, func(f *string) bool { return *f != "" })
	if p.tls && !given {
		for i, env := range []string{"NEO_CA", "NEO_CERT", "NEO_KEY"} {
			*files[i] = os.Getenv(env)
		}
	}
	if p.tls = p.tls || given; !p.tls {
		return nil
	}
	for i, name := range []string{"ca", "cert", "key"} {
		if *files[i] == "" {
			return fmt.Errorf("NEO URL must give ca, cert and key together, as parameters or in $NEO_CA, $NEO_CERT and $NEO_KEY: %s is missing", name)
		}
	}
	return nil
}

// normalize makes the URL the same for all clients of a cluster: without what is one client's own, and sorted.
func (p *place) normalize(cluster string, masters []string, query string) string {
	scheme := "neo"
	if p.tls {
		scheme = "neos"
	}
	slices.Sort(masters)
	var params []string
	for param := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(param, "=")
		switch strings.ReplaceAll(strings.ToLower(name), "_", "-") {
		case "", "ca", "cert", "key", "compress", "read-only", "logfile", "cache-size":
		default:
			params = append(params, param)
		}
	}
	slices.Sort(params)
	s := scheme + "://" + cluster + "@" + strings.Join(masters, ",")
	if len(params) > 0 {
		s += "?" + strings.Join(params, "&")
	}
	return s
}

func (a address) String() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }
