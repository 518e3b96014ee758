package p9srv

import (
	"fmt"
	"log/slog"
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

	MaxConns    int   `name:"9p-max-conns" default:"256" help:"9P connections at once. Half of each limit of all is for each of them alone, in equal parts."`
	MaxFids     int   `name:"9p-max-fids" default:"65536" help:"Fids of one 9P connection."`
	MaxFidsAll  int   `name:"9p-max-fids-all" default:"262144" help:"Fids of all 9P connections."`
	MaxReqs     int   `name:"9p-max-reqs" default:"1024" help:"Requests in flight of one 9P connection, blocked reads of watch files among them."`
	MaxReqsAll  int   `name:"9p-max-reqs-all" default:"16384" help:"Requests in flight of all 9P connections."`
	MaxBytes    int64 `name:"9p-max-bytes" default:"33554432" help:"Bytes of data in flight to one 9P connection; reads beyond wait."`
	MaxBytesAll int64 `name:"9p-max-bytes-all" default:"536870912" help:"Bytes of data in flight to all 9P connections; reads beyond wait."`
	MaxMsize    int   `name:"9p-max-msize" default:"1048576" help:"Largest 9P message, at most 1 MiB."`

	HandshakeTimeout time.Duration `name:"9p-handshake-timeout" default:"10s" help:"A new connection must have sent Tversion by then."`
	StallTimeout     time.Duration `name:"9p-stall-timeout" default:"30s" help:"A message must have arrived whole this long after its first byte."`
	WriteTimeout     time.Duration `name:"9p-write-timeout" default:"60s" help:"A client must take a reply within this."`

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
		{"--9p-max-conns", &o.MaxConns, 256, 1 << 20},
		{"--9p-max-fids", &o.MaxFids, 65536, 1 << 30},
		{"--9p-max-fids-all", &o.MaxFidsAll, 262144, 1 << 30},
		{"--9p-max-reqs", &o.MaxReqs, 1024, 1<<14 - spareRequests},
		{"--9p-max-reqs-all", &o.MaxReqsAll, 16384, 1 << 30},
		{"--9p-max-msize", &o.MaxMsize, capMsize, capMsize},
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
		{"--9p-max-bytes", &o.MaxBytes, 32 << 20, 2},
		{"--9p-max-bytes-all", &o.MaxBytesAll, 512 << 20, 4},
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
		{"--9p-handshake-timeout", &o.HandshakeTimeout, 10 * time.Second},
		{"--9p-stall-timeout", &o.StallTimeout, 30 * time.Second},
		{"--9p-write-timeout", &o.WriteTimeout, time.Minute},
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
