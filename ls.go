package main

import (
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
	dir := cleanPath(c.Path)
	attr, err := t.stat(p.ctx, dir)
	if err != nil {
		return c.explain(err)
	}
	entries := []tree.Entry{{Name: path.Base(dir)}}
	if !attr.Dir {
		dir = path.Dir(dir)
	} else if entries, err = t.list(p.ctx, dir); err != nil {
		return c.explain(err)
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, e := range entries {
		if !c.Long {
			fmt.Fprintln(w, e.Name)
			continue
		}
		a, err := t.stat(p.ctx, path.Join(dir, e.Name))
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", mode(a), a.Size, a.Blksize, showTime(a.Mtime), e.Name)
	}
	return w.Flush()
}
