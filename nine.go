package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"wcfs/p9srv"
	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// nineOptions are the options of the 9P front; Addr is --9p.
type nineOptions struct {
	P9 p9srv.Options `embed:""`
}

// listen makes the 9P front and listens at every --9p ADDR.
func (c *serveCmd) listen(s *server) error {
	o := c.P9
	o.Tree, o.Log = s.tree, s.p.log
	doms := &domains{core: s.core, open: make(map[string]*openDomain)}
	o.Domain, o.DomainGone = doms.get, doms.put
	nine, err := p9srv.New(o)
	if err != nil {
		return usagef("%v", err)
	}
	s.nine = nine
	doms.onFail = nine.CloseDomain
	if o.TLSCert != "" {
		s.stopReload = reloadOnHangup(s.p, nine)
	}
	for _, addr := range o.Addr {
		bound, err := nine.Listen(context.Background(), addr)
		if err != nil {
			return err
		}
		s.bound = append(s.bound, bound)
		s.p.log.Info("serving", "url", c.ZURL, "9p", bound, "head", s.core.Head())
	}
	return nil
}

// reloadOnHangup has SIGHUP read certificates anew, until stop is called.
func reloadOnHangup(p *program, nine *p9srv.Server) (stop func()) {
	hangup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-hangup:
			}
			if err := nine.Reload(); err != nil {
				p.log.Error("certificates stay as they were", "cause", err)
			} else {
				p.log.Info("certificates were read anew")
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(done)
	}
}

// moreStats are the counters of the 9P front; they are there whether it is or not.
func (s *server) moreStats() []tree.Stat {
	var st p9srv.Stats
	if s.nine != nil {
		st = s.nine.Stats()
	}
	var list []tree.Stat
	for _, l := range st.Lines() {
		list = append(list, tree.Stat{Name: l.Name, Value: l.Value})
	}
	return list
}

// domains tells connections apart: those of one guest share a page cache, so they are one domain as long as
// any of them lives. Lock order: mu is a leaf, but for the core's own.
type domains struct {
	core   *zcore.Core
	onFail func(*zcore.Domain) // immutable once the first connection is there

	mu   sync.Mutex
	open map[string]*openDomain // guard: mu
}

type openDomain struct {
	key    string
	dom    *zcore.Domain
	conns  int // guard: domains.mu
	forget func()
}

// nobody is the uname of v9fs when a mount names none: that says nothing about who it is.
const nobody = "nobody"

// get returns the domain of a connection. One that does not say who it is gets one of its own, and so does
// one that comes while the domain of that name fails: that is left to its other connections.
func (d *domains) get(uname, credential string) *zcore.Domain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.getLocked(uname, credential)
}

// getLocked is get; mu must be held.
func (d *domains) getLocked(uname, credential string) *zcore.Domain {
	key := credential + "/" + uname
	known := uname != "" && uname != nobody
	if o := d.open[key]; o != nil && known && !o.dom.Failed() {
		o.conns++
		return o.dom
	}
	dom := d.core.NewDomain(key, known)
	o := &openDomain{key: key, dom: dom, conns: 1}
	o.forget = dom.OnFail(func() { d.failed(o) })
	if known {
		d.open[key] = o
	}
	return dom
}

// failed ends the connections of a domain; who connects again under that name begins anew.
func (d *domains) failed(o *openDomain) {
	d.mu.Lock()
	if d.open[o.key] == o {
		delete(d.open, o.key)
	}
	d.mu.Unlock()
	d.onFail(o.dom)
}

// put is told that a connection has ended.
func (d *domains) put(dom *zcore.Domain) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, o := range d.open {
		if o.dom != dom {
			continue
		}
		if o.conns--; o.conns == 0 {
			o.forget()
			delete(d.open, key)
		}
		return
	}
}

func isNineScheme(scheme string) bool {
	return scheme == "unix" || scheme == "tcp" || scheme == "tls"
}

// nineTarget is the tree behind a 9P address.
type nineTarget struct{ c *p9srv.Client }

// dialTarget connects. Whatever is wrong with the address or the options for it is wrong use.
func dialTarget(ctx context.Context, addr, aname string, o p9srv.DialOptions) (target, error) {
	if err := o.Check(addr); err != nil {
		return nil, usagef("%v", err)
	}
	c, err := p9srv.NewClient(ctx, addr, aname, o)
	if err != nil {
		return nil, err
	}
	return nineTarget{c}, nil
}

func (n nineTarget) stat(_ context.Context, path string) (tree.Attr, error) {
	i, err := n.c.Stat(path)
	return tree.Attr{Ino: i.Ino, Dir: i.Dir, Perm: uint32(i.Perm), Size: i.Size, Blksize: i.Blksize, Mtime: i.Mtime}, err
}

func (n nineTarget) list(_ context.Context, path string) ([]tree.Entry, error) {
	infos, err := n.c.List(path)
	if err != nil {
		return nil, err
	}
	var entries []tree.Entry
	for _, i := range infos {
		entries = append(entries, tree.Entry{Name: i.Name, Ino: i.Ino, Dir: i.Dir})
	}
	return entries, nil
}

func (n nineTarget) open(_ context.Context, path string) (readAtCloser, error) {
	f, err := n.c.Open(path, false)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (n nineTarget) close() { n.c.Close() }

// dialCmd is `wcfs dial tls:HOST:PORT`.
type dialCmd struct {
	Addr   string `arg:"" help:"Server: tls:HOST:PORT."`
	Listen string `required:"" placeholder:"ADDR" help:"Where to take local connections: unix:PATH or tcp:127.0.0.1:PORT."`

	Dial p9srv.DialOptions `embed:""`
}

// Run carries local connections, such as a kernel's mount, through TLS to a server.
func (c *dialCmd) Run(p *program) error {
	if !strings.HasPrefix(c.Addr, "tls:") {
		return usagef("%s: only to tls:HOST:PORT is there anything to carry; others are dialed as they are", c.Addr)
	}
	if err := c.Dial.Check(c.Addr); err != nil {
		return usagef("%v", err)
	}
	relay := p9srv.Relay{Server: c.Addr, Local: c.Listen, Dial: c.Dial, Log: p.log}
	return relay.Run(p.ctx, func(addr string) { p.log.Info("listening", "addr", addr, "server", c.Addr) })
}
