package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

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

// fileRev is one revision of a bigfile.
type fileRev struct {
	Tid    zodb.Tid    `json:"-"`
	Size   int64       `json:"size"`
	Blocks []zdata.Blk `json:"blocks"` // those that changed
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
	h := &historyWalk{stor: stor, oid: oid, lo: lo, hi: hi, nodes: map[zodb.Oid]nodeVer{}, serials: map[zodb.Oid]zodb.Tid{}}
	if c.JSON {
		return h.walk(p.ctx, head, func(r fileRev) error { return printJSON(p.stdout, r) })
	}
	var revs []fileRev
	if err := h.walk(p.ctx, head, func(r fileRev) error { revs = append(revs, r); return nil }); err != nil {
		return err
	}
	return printTable(p.stdout, revs)
}

func parseBlocks(s string) (lo, hi btree.Key, err error) {
	if s == "" {
		return 0, btree.KeyMax, nil
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
	return btree.Key(first), btree.Key(last), nil
}

// historyWalk goes through the revisions of a bigfile, newest first. It needs only loads at a tid, so it
// works on every storage, and shares nothing with the server's own idea of what changed.
//
// The walk goes down in time, so what was loaded as of t with serial s holds for everything from s to t:
// a step back loads only what the revision just seen had written.
type historyWalk struct {
	stor    zodb.Storage
	oid     zodb.Oid
	lo, hi  btree.Key // blocks asked for
	nodes   map[zodb.Oid]nodeVer
	serials map[zodb.Oid]zodb.Tid // of ZBlks
}

type nodeVer struct {
	node   *btree.Node
	serial zodb.Tid
}

// fileState is a bigfile as of some tid.
type fileState struct {
	file   zdata.BigFile
	size   int64
	blocks map[zdata.Blk]zodb.Oid
	latest zodb.Tid // newest serial of all that makes it up
}

// walk calls fn for every revision at or below at.
func (h *historyWalk) walk(ctx context.Context, at zodb.Tid, fn func(fileRev) error) error {
	cur, err := h.state(ctx, at)
	if err != nil {
		return err
	}
	for {
		tid := cur.latest
		changed := make(map[zdata.Blk]bool)
		for blk, zblk := range cur.blocks {
			changed[blk] = h.serials[zblk] == tid
		}
		prev, err := h.state(ctx, tid-1)
		first := zodb.IsAbsent(err)
		if err != nil && !first {
			return err
		}
		if first {
			prev = &fileState{}
		}
		for blk, zblk := range cur.blocks {
			if old, ok := prev.blocks[blk]; !ok || old != zblk {
				changed[blk] = true
			}
		}
		for blk := range prev.blocks {
			if _, ok := cur.blocks[blk]; !ok {
				changed[blk] = true
			}
		}
		rev := fileRev{Tid: tid, Size: cur.size, Blocks: []zdata.Blk{}}
		for blk, yes := range changed {
			if yes {
				rev.Blocks = append(rev.Blocks, blk)
			}
		}
		slices.Sort(rev.Blocks)
		if len(rev.Blocks) > 0 || first || cur.size != prev.size || cur.file.Serial != prev.file.Serial {
			if err := fn(rev); err != nil {
				return err
			}
		}
		if first {
			return nil
		}
		cur = prev
	}
}

// state loads the bigfile as of at.
func (h *historyWalk) state(ctx context.Context, at zodb.Tid) (*fileState, error) {
	rec, err := h.stor.LoadAt(ctx, h.oid, at)
	if err != nil {
		return nil, err
	}
	file, err := zdata.DecodeBigFile(h.oid, rec)
	if err != nil {
		return nil, err
	}
	s := &fileState{file: file, blocks: make(map[zdata.Blk]zodb.Oid), latest: rec.Serial}
	seen := &watching{h, s}
	key, ok, _, err := btree.MaxKey(ctx, seen, file.Blktab, at)
	if err != nil {
		return nil, present(err)
	}
	if ok {
		s.size = (int64(key) + 1) * file.Blksize
	}
	err = btree.Range(ctx, seen, file.Blktab, at, h.lo, h.hi, func(key btree.Key, zblk zodb.Oid, _ []btree.Step) error {
		s.blocks[zdata.Blk(key)] = zblk
		serial, ok := h.serials[zblk]
		if !ok || serial > at {
			var err error
			if serial, err = serialAt(ctx, h.stor, zblk, at); err != nil {
				return err
			}
			h.serials[zblk] = serial
		}
		s.latest = max(s.latest, serial)
		return nil
	})
	return s, present(err)
}

// present hides that an object is absent which the file refers to: that is a damaged (or packed)
// database, not a file that was not there yet.
func present(err error) error {
	if zodb.IsAbsent(err) {
		return fmt.Errorf("part of the file is missing: %s", err)
	}
	return err
}

// serialAt avoids loading 2 MiB for 8 bytes where the driver can.
func serialAt(ctx context.Context, stor zodb.Storage, oid zodb.Oid, at zodb.Tid) (zodb.Tid, error) {
	if sl, ok := stor.(zodb.SerialLoader); ok {
		serial, _, err := sl.SerialAt(ctx, oid, at)
		return serial, err
	}
	rec, err := stor.LoadAt(ctx, oid, at)
	return rec.Serial, err
}

// watching is a source of nodes that remembers them, and the newest serial of those it gave.
type watching struct {
	h *historyWalk
	s *fileState
}

// Node implements btree.Source.
func (w *watching) Node(ctx context.Context, oid zodb.Oid, at zodb.Tid) (*btree.Node, zodb.Tid, error) {
	v, ok := w.h.nodes[oid]
	if !ok || v.serial > at {
		var err error
		if v.node, v.serial, err = (btree.Direct{Storage: w.h.stor}).Node(ctx, oid, at); err != nil {
			return nil, 0, err
		}
		w.h.nodes[oid] = v
	}
	w.s.latest = max(w.s.latest, v.serial)
	return v.node, v.serial, nil
}

func printJSON(w io.Writer, r fileRev) error {
	type row struct {
		Tid  string    `json:"tid"`
		Time time.Time `json:"time"`
		fileRev
	}
	return json.NewEncoder(w).Encode(row{r.Tid.String(), r.Tid.Time(), r})
}

// tableBlocks is up to how many blocks there is a column for each.
const tableBlocks = 40

// printTable prints a row a revision, newest first, and a column a block where there are few.
func printTable(out io.Writer, revs []fileRev) error {
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
