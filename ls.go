package main

import (
	"errors"
	"fmt"
	"path"
	"text/tabwriter"

	"wcfs/zcore/tree"
)

// lsCmd is `wcfs ls TARGET PATH`.
type lsCmd struct {
	targetArgs
	Long bool `short:"l" help:"Show mode, size, block size and mtime (UTC)."`
}

// Run lists a directory, or the one file that PATH is.
func (c *lsCmd) Run(p *program) error {
	t, err := c.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	dir := c.where()
	attr, err := t.stat(p.ctx, dir)
	if err != nil {
		return c.explain(err)
	}
	entries := []tree.Entry{{Name: path.Base(dir)}}
	if !attr.Dir {
		dir = path.Dir(dir)
	} else if entries, err = t.list(p.ctx, dir); err != nil && len(entries) == 0 {
		return c.explain(err)
	}
	if perr := c.print(p, t, dir, entries); perr != nil {
		return perr
	}
	if err != nil { // what could be found is printed
		return c.explain(err)
	}
	return nil
}

// print prints entries of a directory.
func (c *lsCmd) print(p *program, t target, dir string, entries []tree.Entry) error {
	var bad []error
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, e := range entries {
		if !c.Long {
			fmt.Fprintln(w, e.Name)
			continue
		}
		a, err := t.stat(p.ctx, path.Join(dir, e.Name))
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", e.Name, err))
			continue
		}
		name := e.Name
		if a.Link {
			to, err := t.readlink(p.ctx, path.Join(dir, e.Name))
			if err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", e.Name, err))
				continue
			}
			name += " -> " + to
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", mode(a), a.Size, a.Blksize, showTime(a.Mtime), name)
	}
	return errors.Join(append(bad, w.Flush())...)
}
