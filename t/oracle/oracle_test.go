package oracle

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"wcfs/zcore/history"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
)

var seedFlag = flag.Uint64("seed", 0, "replay the random history of this seed")

const (
	histories = 200
	ahead     = 20 // Python is asked for so many before the first answer is looked at
)

// TestPythonAgrees has random histories written into FileStorages; what changed at each commit, and when
// each block last changed as of each, must be the same for history.Tail, for the generator's model and
// for Python.
func TestPythonAgrees(t *testing.T) {
	base, n := uint64(time.Now().UnixNano()), uint64(histories)
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	dir := t.TempDir()
	python := startPython(t) // ends before dir is gone
	var asked []*written
	next := uint64(0)
	changes := 0
	for i := range n {
		for ; next < n && next < i+ahead; next++ {
			w, err := write(dir, base+next)
			if err == nil {
				err = python.ask(w.path, w.db.Files(w.db.Head()))
			}
			if err != nil {
				t.Fatalf("go test -run TestPythonAgrees -seed %d: %v", base+next, err)
			}
			asked = append(asked, w)
		}
		commits, err := python.answer()
		if err == nil {
			err = asked[i].check(t, commits)
		}
		if err != nil {
			t.Fatalf("go test -run TestPythonAgrees -seed %d: %v", base+i, err)
		}
		changes += asked[i].changes
		asked[i] = nil
	}
	t.Logf("%d changes of tracked blocks", changes)
	if *seedFlag == 0 && changes < histories {
		t.Error("the histories show nothing")
	}
}

// written is a database that the generator wrote.
type written struct {
	path    string
	db      *zgen.DB
	rng     *rand.Rand
	start   int // the server starts after so many commits
	changes int // of tracked blocks, seen in check
}

func write(dir string, seed uint64) (*written, error) {
	w := &written{path: filepath.Join(dir, fmt.Sprint(seed, ".fs")), rng: rand.New(rand.NewPCG(seed, 7))}
	out, err := fswriter.Create(w.path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	w.start = 1 + w.rng.IntN(6)
	w.db = zgen.New(out, zgen.Options{LeafMax: 2 + w.rng.IntN(3), NodeMax: 2 + w.rng.IntN(3), ChunkSize: 16})
	for range w.start + 10 {
		if _, err := w.db.Random(w.rng, zgen.Mix{}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// checker follows one history with a Tail.
type checker struct {
	*written
	t       *testing.T
	tail    *history.Tail
	commits []pyCommit
	files   map[zodb.Oid]*history.File
	tracked map[zodb.Oid]map[zdata.Blk]bool
}

func (w *written) check(t *testing.T, commits []pyCommit) (err error) {
	if got, want := len(commits), len(w.db.Tids()); got != want {
		return fmt.Errorf("Python sees %d commits of %d", got, want)
	}
	stor, err := filestorage.Open(t.Context(), "file://"+w.path, filestorage.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stor.Close()) }()
	t0 := commits[w.start-1].Tid
	c := &checker{
		written: w, t: t, tail: history.New(stor, t0, history.Options{}), commits: commits,
		files: map[zodb.Oid]*history.File{}, tracked: map[zodb.Oid]map[zdata.Blk]bool{},
	}
	for i := w.start - 1; i < len(commits); i++ {
		if i >= w.start {
			if err := c.commit(i); err != nil {
				return fmt.Errorf("δF(%s): %w", commits[i].Tid, err)
			}
		}
		if err := c.read(i); err != nil {
			return fmt.Errorf("read @%s: %w", commits[i].Tid, err)
		}
		if err := c.revs(i); err != nil {
			return fmt.Errorf("head @%s: %w", commits[i].Tid, err)
		}
	}
	return nil
}

// commit has the Tail tell what commit i changed.
func (c *checker) commit(i int) error {
	com := zodb.Commit{Tid: c.commits[i].Tid, Oids: c.commits[i].Oids}
	c.tail.Publish([]zodb.Commit{com})
	deltas, err := c.tail.Delta(c.t.Context(), com)
	if err != nil {
		return err
	}
	got := map[zodb.Oid][]zdata.Blk{}
	for _, d := range deltas {
		got[d.File.Oid] = d.Blocks
		c.changes += len(d.Blocks)
	}
	for oid, f := range c.files {
		var python []zdata.Blk
		for blk := range c.tracked[oid] {
			if c.changed(oid, blk, i) {
				python = append(python, blk)
			}
		}
		slices.Sort(python)
		model, _ := c.db.Changed(oid, com.Tid)
		model = slices.DeleteFunc(model, func(blk zdata.Blk) bool { return !c.tracked[oid][blk] })
		if !slices.Equal(got[oid], python) || !slices.Equal(model, python) {
			return fmt.Errorf("f<%s>: %v, the model says %v, Python says %v", oid, got[oid], model, python)
		}
		size, _ := c.tail.Attr(f, com.Tid)
		if want := c.size(oid, i); size != want || c.db.Size(oid, com.Tid) != want {
			return fmt.Errorf("f<%s>: size %d, the model says %d, Python says %d", oid, size, c.db.Size(oid, com.Tid), want)
		}
	}
	return nil
}

// changed says, by Python alone, whether commit i changed a block.
func (c *checker) changed(oid zodb.Oid, blk zdata.Blk, i int) bool {
	return c.commits[i].Files[oid].Blocks[blk] != c.commits[i-1].Files[oid].Blocks[blk]
}

// size is that of a file after commit i, by Python alone.
func (c *checker) size(oid zodb.Oid, i int) int64 {
	f := c.commits[i].Files[oid]
	end := zdata.Blk(0)
	for blk := range f.Blocks {
		end = max(end, blk+1)
	}
	return int64(end) * f.Blksize
}

// read tracks some blocks at the view after commit i.
func (c *checker) read(i int) error {
	ctx, v := c.t.Context(), c.commits[i].Tid
	for oid, pf := range c.commits[i].Files {
		if c.files[oid] == nil {
			bf, err := c.tail.BigFile(ctx, oid, v)
			if err != nil {
				return err
			}
			if bf.Blktab != pf.Blktab || bf.Blksize != pf.Blksize {
				return fmt.Errorf("f<%s>: %+v, Python says %+v", oid, bf, pf)
			}
			epoch, err1 := c.tail.Epoch(ctx, bf)
			size, path, err2 := c.tail.Size(ctx, bf, v)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			c.files[oid], _ = c.tail.AddFile(v, bf, epoch, size, path)
			c.tracked[oid] = map[zdata.Blk]bool{}
		}
		for range c.rng.IntN(12) {
			blk := zdata.Blk(c.rng.Int64N(45))
			m, path, err := c.tail.Lookup(ctx, c.files[oid].BigFile, blk, v)
			if err != nil {
				return err
			}
			if m.ZBlk != pf.Blocks[blk].zblk {
				return fmt.Errorf("f<%s>[%d] is %s, Python says %s", oid, blk, m.ZBlk, pf.Blocks[blk].zblk)
			}
			if wait := c.tail.Track(c.files[oid], blk, v, m, path); wait != 0 {
				return fmt.Errorf("f<%s>[%d]: wait for %s", oid, blk, wait)
			}
			c.tracked[oid][blk] = true
		}
	}
	return nil
}

// revs asks when blocks last changed, as of some commit up to i.
func (c *checker) revs(i int) error {
	j := c.start - 1 + c.rng.IntN(i-c.start+2)
	at, t0 := c.commits[j].Tid, c.tail.T0()
	for oid, f := range c.files {
		if _, made := c.commits[j].Files[oid]; !made {
			continue
		}
		for blk := zdata.Blk(0); blk < 45; blk += 1 + zdata.Blk(c.rng.IntN(4)) {
			got, err := c.tail.BlkRevAt(c.t.Context(), f, blk, at)
			if err != nil {
				return err
			}
			model, python := max(c.db.BlkRevAt(oid, blk, at), t0), max(c.rev(oid, blk, j), t0)
			if got != python || model != python {
				return fmt.Errorf("BlkRevAt(f<%s>[%d] @%s) = %s, the model says %s, Python says %s", oid, blk, at, got, model, python)
			}
		}
	}
	return nil
}

// rev is the last commit up to i that changed a block or made the file, by Python alone.
func (c *checker) rev(oid zodb.Oid, blk zdata.Blk, i int) zodb.Tid {
	for ; i > 0; i-- {
		if _, there := c.commits[i-1].Files[oid]; !there || c.changed(oid, blk, i) {
			break
		}
	}
	return c.commits[i].Tid
}
