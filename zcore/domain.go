package zcore

import "sync"

// Domain is a page cache together with the watches that protect its readers: the FUSE mount is one,
// each remote guest is another. A read waits only for watches of its own domain.
type Domain struct {
	name  string
	local bool // the FUSE mount: its clients are processes here, its page cache is controlled
	// anonymous: nothing says which connections share its page cache.
	anonymous bool

	mu     sync.Mutex
	failed bool                 // mu; a client did not acknowledge and there is no process to kill
	onFail map[int]func()       // mu
	nextID int                  // mu
	bases  map[baseKey]*baseSet // mu

	maxBases int // sets in bases
	reads    traffic
	erred    erredReads // has its own mutex, a leaf
}

func newDomain(name string, local bool, maxBases int) *Domain {
	return &Domain{name: name, maxBases: maxBases, local: local, onFail: map[int]func(){}, bases: map[baseKey]*baseSet{}}
}

// NewDomain makes the domain of a remote guest; named tells that all its connections are known to be.
func (c *Core) NewDomain(name string, named bool) *Domain {
	d := newDomain(name, false, c.opts.MaxBases)
	d.anonymous = !named
	return d
}

// Name is for logs.
func (d *Domain) Name() string { return d.name }

// OnFail has fn called when the domain fails: a front closes its connections then. The returned
// function takes fn back. In a domain that has failed, fn is called at once.
func (d *Domain) OnFail(fn func()) (forget func()) {
	d.mu.Lock()
	if d.failed {
		d.mu.Unlock()
		fn()
		return func() {}
	}
	defer d.mu.Unlock()
	id := d.nextID
	d.nextID++
	d.onFail[id] = fn
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.onFail, id)
	}
}

// Fail ends the domain: what a client did not acknowledge must not be read by anybody who shares its page
// cache. The functions of OnFail are called after that, when Failed has become true.
func (d *Domain) Fail() {
	d.mu.Lock()
	d.failed = true
	fns := d.onFail
	d.onFail = map[int]func(){}
	d.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Failed reports whether the domain has failed: nobody may join it any more.
func (d *Domain) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}
