package zcore

import "sync"

// Domains finds the domain of a connection of a remote guest. All connections of one guest share a page cache, so they
// are one domain while any of them lives. Lock order: mu comes before Domain.mu and Core.mu.
type Domains struct {
	core   *Core
	onFail func(*Domain) // set by OnFail before the first connection

	mu   sync.Mutex
	open map[string]*openDomain // mu
}

type openDomain struct {
	key    string
	dom    *Domain
	conns  int // Domains.mu
	forget func()
}

// Nobody is the uname that v9fs sends when a mount names none: it does not identify the guest.
const Nobody = "nobody"

// NewDomains makes the domains of a front.
func (c *Core) NewDomains() *Domains {
	return &Domains{core: c, open: map[string]*openDomain{}, onFail: func(*Domain) {}}
}

// OnFail sets the function that closes the connections of a domain which has failed.
func (d *Domains) OnFail(fn func(*Domain)) { d.onFail = fn }

// Get returns the domain of a connection. An anonymous connection gets a domain of its own. So does a connection that
// arrives while the named domain is failing; the failing domain keeps only its existing connections.
func (d *Domains) Get(uname, credential string) *Domain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.getLocked(uname, credential)
}

// getLocked is Get; mu must be held.
func (d *Domains) getLocked(uname, credential string) *Domain {
	key := credential + "/" + uname
	known := uname != "" && uname != Nobody
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

// failed ends the connections of a domain. The next connection under its name gets a new domain.
func (d *Domains) failed(o *openDomain) {
	d.mu.Lock()
	if d.open[o.key] == o {
		delete(d.open, o.key)
	}
	d.mu.Unlock()
	d.onFail(o.dom)
}

// Put counts a connection that has ended.
func (d *Domains) Put(dom *Domain) {
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
