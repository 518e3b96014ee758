package main

import (
	"encoding/json"
	"fmt"
)

// statCmd is `wcfs stat TARGET PATH`.
type statCmd struct {
	targetArgs
	JSON bool `name:"json" help:"Print JSON."`
}

// Run shows attributes.
func (c *statCmd) Run(p *program) error {
	t, err := c.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	a, err := t.stat(p.ctx, cleanPath(c.Path))
	if err != nil {
		return c.explain(err)
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(map[string]any{
			"path": c.Path, "dir": a.Dir, "mode": fmt.Sprintf("%04o", a.Perm), "size": a.Size,
			"blksize": a.Blksize, "ino": a.Ino, "mtime": a.Mtime.UTC(),
		})
	}
	_, err = fmt.Fprintf(p.stdout, "path     %s\nmode     %s\nsize     %d\nblksize  %d\nino      %d\nmtime    %s UTC\n",
		c.Path, mode(a), a.Size, a.Blksize, a.Ino, showTime(a.Mtime))
	return err
}
