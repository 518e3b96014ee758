package zcore

// Domain is a page cache together with the watches that protect its readers: the FUSE mount is one,
// each remote guest is another. A read waits only for watches of its own domain.
type Domain struct {
	name  string
	local bool
}

// Name is for logs.
func (d *Domain) Name() string { return d.name }
