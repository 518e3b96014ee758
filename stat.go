package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"wcfs/zcore/tree"
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
	name, err := c.where(p.ctx, t)
	if err != nil {
		return err
	}
	a, err := t.stat(p.ctx, name)
	if err != nil {
		return c.explain(err)
	}
	info := map[string]any{
		"path": c.Path, "dir": a.Dir, "mode": fmt.Sprintf("%04o", a.Perm), "size": a.Size,
		"blksize": a.Blksize, "ino": a.Ino, "mtime": a.Mtime.UTC(),
	}
	if a.Link {
		return c.array(p, t, name, info)
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(info)
	}
	_, err = fmt.Fprintf(p.stdout, "path     %s\nmode     %s\nsize     %d\nblksize  %d\nino      %d\nmtime    %s UTC\n",
		c.Path, mode(a), a.Size, a.Blksize, a.Ino, showTime(a.Mtime))
	return err
}

// array shows an array: what its JSON file has, and the attributes of the bigfile it is in.
func (c *statCmd) array(p *program, t target, name string, info map[string]any) error {
	to, err := follow(p.ctx, t, name)
	if err != nil {
		return c.explain(err)
	}
	a, err := t.stat(p.ctx, to)
	if err != nil {
		return c.explain(err)
	}
	f, err := t.open(p.ctx, name+".json")
	if err != nil {
		return c.explain(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<26))
	if err != nil {
		return c.explain(err)
	}
	var array tree.ArrayInfo
	if err := json.Unmarshal(text, &array); err != nil {
		return fmt.Errorf("%s.json: %w", c.Path, err)
	}
	if c.JSON {
		info["link"], info["size"], info["blksize"], info["mtime"], info["array"] = to, a.Size, a.Blksize, a.Mtime.UTC(), array
		return encodeJSON(p.stdout, info)
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "path\t%s\nbigfile\t%s\nsize\t%d\nblksize\t%d\nmtime\t%s UTC\n", c.Path, to, a.Size, a.Blksize, showTime(a.Mtime))
	if array.Kind == "array" {
		dtype := &strings.Builder{}
		if err := encodeJSON(dtype, array.DType); err != nil {
			return err
		}
		fmt.Fprintf(w, "dtype\t%sshape\t%v\norder\t%s\noid\t%s\n", dtype, array.Shape, array.Order, array.Array)
	}
	fmt.Fprintf(w, "since\t%s\n", array.Since)
	return w.Flush()
}

// encodeJSON writes JSON in which byte orders stay readable.
func encodeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
