package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"wcfs/zcore/tree"
)

// lsCmd is `wcfs ls TARGET [PATH]`.
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
	dir, err := c.where(p.ctx, t)
	if err != nil {
		return err
	}
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
	var rows [][]string
	for _, e := range entries {
		if !c.Long {
			rows = append(rows, []string{e.Name})
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
		rows = append(rows, []string{mode(a).String(), strconv.FormatInt(a.Size, 10), strconv.FormatInt(a.Blksize, 10), showTime(a.Mtime), name})
	}
	return errors.Join(append(bad, printAligned(p.stdout, rows))...)
}

// printAligned writes rows of equally many columns, of which all but the last are aligned to the right.
func printAligned(w io.Writer, rows [][]string) error {
	var width []int
	for _, row := range rows {
		for i, s := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(s))
		}
	}
	out := bufio.NewWriter(w)
	for _, row := range rows {
		for i, s := range row[:len(row)-1] {
			fmt.Fprintf(out, "%*s  ", width[i], s)
		}
		fmt.Fprintln(out, row[len(row)-1])
	}
	return out.Flush()
}
