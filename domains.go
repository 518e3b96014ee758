package main

import (
	"sync"

	"wcfs/zcore"
)

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
