package zcore

import (
	"fmt"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zodb"
)

// Defaults of options.
const (
	DefaultPinTimeout = 30 * time.Second
	DefaultRetention  = history.DefaultRetention
	DefaultPinWindow  = 256
	DefaultMaxLinks   = 1024
	DefaultMaxWaiting = 4096
	DefaultMaxBases   = 16384
	DefaultListBytes  = 256 << 20
)

// bounds sets the defaults of what bounds the state of clients.
func (o *Options) bounds() {
	for _, b := range []struct {
		v   *int
		def int
	}{
		{&o.PinWindow, DefaultPinWindow}, {&o.MaxLinks, DefaultMaxLinks}, {&o.MaxWaiting, DefaultMaxWaiting},
		{&o.MaxBases, DefaultMaxBases}, {&o.ListBytes, DefaultListBytes},
	} {
		if *b.v == 0 {
			*b.v = b.def
		}
	}
}

// owner is whom the state of links counts for: a process, or a guest. It exists as long as one of its links does.
type owner struct {
	key     any // a process id, or a *Domain
	links   int // Core.mu
	waiting int // Core.mu; watch requests under way
}

// addLink counts a link for its owner.
func (c *Core) addLink(dom *Domain, proc Process) (*owner, error) {
	var key any = dom
	if proc != nil {
		key = proc.Pid()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.owners[key]
	if o == nil {
		o = &owner{key: key}
	}
	if o.links >= c.opts.MaxLinks {
		c.nRefused.Add(1)
		return nil, fmt.Errorf("%w: %d watch links of one client are open", ErrTooMany, o.links)
	}
	o.links++
	c.owners[key] = o
	return o, nil
}

func (c *Core) dropLink(o *owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.links--; o.links == 0 && c.owners[o.key] == o {
		delete(c.owners, o.key)
	}
}

// beginRequest counts a watch request of the link; it returns why there cannot be one more, or "".
func (l *Link) beginRequest() (why string) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.owner.waiting >= c.opts.MaxWaiting {
		c.nRefused.Add(1)
		return fmt.Sprintf("%d watch requests of one client are under way: wait for replies", l.owner.waiting)
	}
	l.owner.waiting++
	return ""
}

func (l *Link) endRequests(n int) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.owner.waiting -= n
}

// endOldest ends links whose watches keep more history than there may be: those with the oldest first. They are told why.
func (c *Core) endOldest() {
	for {
		held, full := c.tail.Overfull()
		if !full {
			return
		}
		moved := c.leaveBase(held)
		if n := c.endHolding(held); n == 0 && !moved {
			return // a read keeps it
		}
		c.tail.TrimNow()
	}
}

// endHolding ends the links that have a watch which keeps all commits after a tid.
func (c *Core) endHolding(held zodb.Tid) (n int) {
	c.mu.Lock()
	links := make([]*Link, 0, len(c.links))
	for l := range c.links {
		links = append(links, l)
	}
	c.mu.Unlock()
	for _, l := range links {
		for _, w := range l.watches() {
			if w.hold.Tid() != held {
				continue
			}
			n++
			c.nRefused.Add(1)
			c.log.Error("a watch ends: it keeps too much history", "file", w.f.Oid(), "at", w.atNow())
			l.hangUp(fmt.Sprintf("watch f<%s> @%s: more was committed since than this server remembers (%d MiB): watch a later transaction",
				w.f.Oid(), w.atNow(), c.opts.ListBytes>>20))
			break
		}
	}
	return n
}
