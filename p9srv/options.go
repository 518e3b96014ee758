package p9srv

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// Tree is what is served.
type Tree interface {
	// Root returns the root with one reference for the caller.
	Root() tree.Node
}

// Options of a Server. The exported fields with a name are options of the command line; a limit or time
// of zero means its default.
type Options struct {
	Addr     []string `name:"9p" placeholder:"ADDR" sep:"none" help:"Serve 9P at unix:PATH, tcp:HOST:PORT, tls:HOST:PORT, fd:N or systemd. Repeatable."`
	AllowUID []uint32 `name:"9p-allow-uid" placeholder:"UID" help:"User that may connect to unix:PATH beside the one who runs the server and root. Repeatable."`

	TLSCert     string `name:"tls-cert" placeholder:"FILE" help:"Certificate of the server for tls:HOST:PORT, PEM."`
	TLSKey      string `name:"tls-key" placeholder:"FILE" help:"Private key of the server, PEM."`
	TLSClientCA string `name:"tls-client-ca" placeholder:"FILE" help:"Certificates that sign those of clients, PEM."`
	Map         string `name:"9p-map" placeholder:"FILE" help:"Which client certificate may attach to what: lines of a name and anames. Without it every certificate may attach to everything."`
	Insecure    bool   `name:"insecure" help:"Let anyone in who reaches a tcp:HOST:PORT that is not loopback."`

	MaxConns    int   `name:"9p-max-conns" type:"count" default:"${p9_max_conns}" help:"9P connections at once. Half of each limit of all is for each of them alone, in equal parts."`
	MaxFids     int   `name:"9p-max-fids" type:"count" default:"${p9_max_fids}" help:"Fids of one 9P connection."`
	MaxFidsAll  int   `name:"9p-max-fids-all" type:"count" default:"${p9_max_fids_all}" help:"Fids of all 9P connections."`
	MaxReqs     int   `name:"9p-max-reqs" type:"count" default:"${p9_max_reqs}" help:"Requests in flight of one 9P connection, blocked reads of watch files among them."`
	MaxReqsAll  int   `name:"9p-max-reqs-all" type:"count" default:"${p9_max_reqs_all}" help:"Requests in flight of all 9P connections."`
	MaxBytes    int64 `name:"9p-max-bytes" type:"bytes" default:"${p9_max_bytes}" help:"Bytes of data in flight to one 9P connection; reads beyond wait."`
	MaxBytesAll int64 `name:"9p-max-bytes-all" type:"bytes" default:"${p9_max_bytes_all}" help:"Bytes of data in flight to all 9P connections; reads beyond wait."`
	MaxMsize    int   `name:"9p-max-msize" type:"bytes" default:"${p9_max_msize}" help:"Largest 9P message, at most 1 MiB."`

	HandshakeTimeout time.Duration `name:"9p-handshake-timeout" default:"${p9_handshake_timeout}" help:"A new connection must have sent Tversion by then."`
	StallTimeout     time.Duration `name:"9p-stall-timeout" default:"${p9_stall_timeout}" help:"A message must have arrived whole this long after its first byte."`
	WriteTimeout     time.Duration `name:"9p-write-timeout" default:"${p9_write_timeout}" help:"A client must take a reply within this."`

	// Tree is what is served.
	Tree Tree `kong:"-"`
	// Domain tells in which domain a connection is, by what it says of itself in its first attach and by
	// what the transport knows of it: "unix:UID", "tls:NAME", "fd", or "tcp". It is asked once a connection.
	Domain func(uname, credential string) *zcore.Domain `kong:"-"`
	// DomainGone, when not nil, is told when a connection for which Domain was asked has ended.
	DomainGone func(*zcore.Domain) `kong:"-"`
	// Log is where to log; slog.Default() when nil.
	Log *slog.Logger `kong:"-"`
}

// spareRequests are for requests that free something, which go on when the limit is reached.
const spareRequests = 64

var defaults = Options{
	MaxConns: 256, MaxFids: 65536, MaxFidsAll: 262144, MaxReqs: 1024, MaxReqsAll: 16384,
	MaxBytes: 32 << 20, MaxBytesAll: 512 << 20, MaxMsize: capMsize,
	HandshakeTimeout: 10 * time.Second, StallTimeout: 30 * time.Second, WriteTimeout: time.Minute,
}

// Defaults are the values that the tags above name.
func Defaults() map[string]string {
	d := defaults
	mib := func(n int64) string { return fmt.Sprintf("%dM", n>>20) }
	return map[string]string{
		"p9_max_conns": strconv.Itoa(d.MaxConns), "p9_max_fids": strconv.Itoa(d.MaxFids), "p9_max_fids_all": strconv.Itoa(d.MaxFidsAll),
		"p9_max_reqs": strconv.Itoa(d.MaxReqs), "p9_max_reqs_all": strconv.Itoa(d.MaxReqsAll),
		"p9_max_bytes": mib(d.MaxBytes), "p9_max_bytes_all": mib(d.MaxBytesAll), "p9_max_msize": mib(int64(d.MaxMsize)),
		"p9_handshake_timeout": d.HandshakeTimeout.String(), "p9_stall_timeout": d.StallTimeout.String(), "p9_write_timeout": d.WriteTimeout.String(),
	}
}

// check fills in defaults and names what is wrong.
func (o *Options) check() error {
	if o.Tree == nil {
		return fmt.Errorf("p9srv: no tree to serve")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	for _, l := range []struct {
		name     string
		v        *int
		def, max int
	}{
		{"--9p-max-conns", &o.MaxConns, defaults.MaxConns, 1 << 20},
		{"--9p-max-fids", &o.MaxFids, defaults.MaxFids, 1 << 30},
		{"--9p-max-fids-all", &o.MaxFidsAll, defaults.MaxFidsAll, 1 << 30},
		{"--9p-max-reqs", &o.MaxReqs, defaults.MaxReqs, 1<<14 - spareRequests},
		{"--9p-max-reqs-all", &o.MaxReqsAll, defaults.MaxReqsAll, 1 << 30},
		{"--9p-max-msize", &o.MaxMsize, defaults.MaxMsize, capMsize},
	} {
		if err := within(l.name, l.v, l.def, 1, l.max); err != nil {
			return err
		}
	}
	if o.MaxMsize < minMsize {
		return fmt.Errorf("--9p-max-msize: %d is not between %d and %d", o.MaxMsize, minMsize, capMsize)
	}
	// A single read must always fit, also in the half that reads waiting for pins get, and in that of what is shared.
	for _, l := range []struct {
		name  string
		v     *int64
		def   int64
		least int
	}{
		{"--9p-max-bytes", &o.MaxBytes, defaults.MaxBytes, 2},
		{"--9p-max-bytes-all", &o.MaxBytesAll, defaults.MaxBytesAll, 4},
	} {
		if err := within(l.name, l.v, l.def, int64(l.least*o.MaxMsize), 1<<50); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"--9p-handshake-timeout", &o.HandshakeTimeout, defaults.HandshakeTimeout},
		{"--9p-stall-timeout", &o.StallTimeout, defaults.StallTimeout},
		{"--9p-write-timeout", &o.WriteTimeout, defaults.WriteTimeout},
	} {
		if err := within(l.name, l.v, l.def, time.Millisecond, 24*time.Hour); err != nil {
			return err
		}
	}
	return nil
}

// within sets *v to def when it is zero, and complains when it is not between min and max.
func within[T int | int64 | time.Duration](name string, v *T, def, minimum, maximum T) error {
	if *v == 0 {
		*v = def
	}
	if *v < minimum || *v > maximum {
		return fmt.Errorf("%s: %v is not between %v and %v", name, *v, minimum, maximum)
	}
	return nil
}
