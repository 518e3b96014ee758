package zcore

import "fmt"

// bounds sets the defaults of what bounds the state of clients.
func (o *Options) bounds() {
	for _, b := range []struct {
		v   *int
		def int
	}{
		{&o.PinWindow, 256}, {&o.MaxLinks, 1024}, {&o.MaxWaiting, 4096}, {&o.MaxBases, 16384},
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
