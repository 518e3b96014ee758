package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
)

// historyCmd is `wcfs history ZURL OID`.
type historyCmd struct {
	ZURL   string `arg:"" name:"zurl" help:"Database URL."`
	Oid    string `arg:"" help:"The bigfile: 16 hex digits."`
	Blocks string `placeholder:"A-B" help:"Only these blocks, both included."`
	JSON   bool   `name:"json" help:"Print a JSON object a line: tid, time, size, blocks."`

	storageOptions
}

// Run prints the newest revision first, as far back as the database goes.
func (c *historyCmd) Run(p *program) error {
	oid, err := zodb.ParseOid(c.Oid)
	if err != nil {
		return usagef("OID: %v", err)
	}
	lo, hi, err := parseBlocks(c.Blocks)
	if err != nil {
		return err
	}
	stor, err := openStorage(p.ctx, c.ZURL, &c.storageOptions)
	if err != nil {
		return err
	}
	defer stor.Close()
	head, err := stor.Head(p.ctx)
	if err != nil {
		return err
	}
	blocks := history.Range{First: lo, Last: hi}
	if c.JSON {
		return history.Revisions(p.ctx, stor, oid, head, blocks, func(r history.Revision) error { return printJSON(p.stdout, r) })
	}
	var revs []history.Revision
	if err := history.Revisions(p.ctx, stor, oid, head, blocks, func(r history.Revision) error { revs = append(revs, r); return nil }); err != nil {
		return err
	}
	return printTable(p.stdout, revs)
}

func parseBlocks(s string) (lo, hi zdata.Blk, err error) {
	if s == "" {
		return 0, zdata.Blk(btree.KeyMax), nil
	}
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		b = a
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	if err1 != nil || err2 != nil || first < 0 || last < first {
		return 0, 0, usagef("--blocks: %q is not A-B with 0 <= A <= B", s)
	}
	return zdata.Blk(first), zdata.Blk(last), nil
}

func printJSON(w io.Writer, r history.Revision) error {
	type row struct {
		Tid  string    `json:"tid"`
		Time time.Time `json:"time"`
		history.Revision
	}
	return json.NewEncoder(w).Encode(row{r.Tid.String(), r.Tid.Time(), r})
}

// tableBlocks is up to how many blocks there is a column for each.
const tableBlocks = 40

// printTable prints a row a revision, newest first, and a column a block where there are few.
func printTable(out io.Writer, revs []history.Revision) error {
	if len(revs) == 0 {
		return errors.New("no revision found")
	}
	seen := make(map[zdata.Blk]bool)
	for _, r := range revs {
		for _, blk := range r.Blocks {
			seen[blk] = true
		}
	}
	blocks := make([]zdata.Blk, 0, len(seen))
	for blk := range seen {
		blocks = append(blocks, blk)
	}
	slices.Sort(blocks)

	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprint(w, "tid\ttime (UTC)\tsize\t")
	if len(blocks) > tableBlocks {
		fmt.Fprintln(w, "changed blocks")
	} else {
		for _, blk := range blocks {
			fmt.Fprintf(w, "#%d\t", blk)
		}
		fmt.Fprintln(w)
	}
	for _, r := range revs {
		fmt.Fprintf(w, "%s\t%s\t%d\t", r.Tid, showTime(r.Tid.Time()), r.Size)
		if len(blocks) > tableBlocks {
			fmt.Fprintln(w, blockRanges(r.Blocks))
			continue
		}
		for _, blk := range blocks {
			mark := "."
			if _, ok := slices.BinarySearch(r.Blocks, blk); ok {
				mark = "x"
			}
			fmt.Fprintf(w, "%s\t", mark)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// blockRanges writes sorted block numbers shortly, as "0-3 7".
func blockRanges(blocks []zdata.Blk) string {
	var parts []string
	for i := 0; i < len(blocks); {
		j := i
		for j+1 < len(blocks) && blocks[j+1] == blocks[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprintf("%d", blocks[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", blocks[i], blocks[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, " ")
}
