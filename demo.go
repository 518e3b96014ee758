package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"wcfs/p9srv"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// demoCmd is `wcfs demo`.
type demoCmd struct {
	Stay    bool          `help:"Go on until Ctrl-C."`
	Commits int           `type:"count" default:"10" help:"How many commits to show."`
	Every   time.Duration `default:"1s" help:"Time between commits."`
}

const (
	demoBlksize = 2 << 20 // what wendelin.core uses
	demoBlocks  = 4
)

// demo is one run: a database in a folder of its own, a writer to it, and a server with both fronts.
type demo struct {
	p    *program
	dir  string // everything is in here
	db   *zgen.DB
	w    *fswriter.Writer
	srv  *server
	nine *p9srv.Client
	rng  *rand.Rand
	old  zodb.Tid // the revision that is looked at again after each commit
}

// Run shows what a server does; everything it makes is removed at the end, also after Ctrl-C.
func (c *demoCmd) Run(p *program) (err error) {
	ctx, stop := signal.NotifyContext(p.ctx, syscall.SIGHUP) // the terminal is closed
	defer stop()
	p.ctx = ctx
	d := &demo{p: p, rng: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(); err != nil {
		return err
	}
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for n := 1; c.Stay || n <= c.Commits; n++ {
		select {
		case <-p.ctx.Done():
			fmt.Fprintln(p.stdout, "\nstopped")
			return nil
		case <-d.srv.mount.Done():
			return errors.New("the mount is gone")
		case <-tick.C:
		}
		if err := d.step(n); err != nil {
			if p.ctx.Err() != nil {
				return nil
			}
			return err
		}
		if n == c.Commits && c.Stay {
			fmt.Fprintf(p.stdout, "\n%d commits shown; serving until Ctrl-C\n", n)
		}
	}
	fmt.Fprintf(p.stdout, "\ndone: %d commits, each seen through both fronts, and @%s unchanged\n", c.Commits, d.old)
	return nil
}

// start writes the first revision and serves it.
func (d *demo) start() error {
	var err error
	if d.dir, err = os.MkdirTemp("", "wcfs-demo-"); err != nil {
		return err
	}
	mnt, sock := filepath.Join(d.dir, "mnt"), filepath.Join(d.dir, "9p.sock")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	path := filepath.Join(d.dir, "Data.fs")
	if d.w, err = fswriter.Create(path); err != nil {
		return err
	}
	d.db = zgen.New(d.w, zgen.Options{Start: zodb.TidFromTime(time.Now().Add(-2 * time.Second))})
	tx := d.db.Begin()
	for range 3 {
		f := tx.NewFile(demoBlksize)
		for blk := range zdata.Blk(demoBlocks) {
			tx.Write(f, blk, d.block(), zgen.Blk0)
		}
	}
	if d.old, err = tx.Commit(); err != nil {
		return err
	}
	serve := serveCmd{ZURL: fileURL(path), Mount: mnt, usedHere: true}
	serve.P9.Addr = []string{"unix:" + sock}
	serve.HTTP = "127.0.0.1:0"
	if d.srv, err = serve.start(d.p); err != nil {
		return err
	}
	if d.nine, err = p9srv.NewClient(d.p.ctx, d.srv.bound[0], "", p9srv.DialOptions{}); err != nil {
		return err
	}
	fmt.Fprintf(d.p.stdout, "database  %s\nmount     %s\n9P        %s\npage      %s\nbigfiles  %s\n\n", path, mnt, d.srv.bound[0], d.srv.webURL, d.files())
	fmt.Fprintf(d.p.stdout, "commit  tid               changed blocks              seen by FUSE and 9P  @%s\n", d.old)
	return nil
}

func (d *demo) files() string {
	var names []string
	for _, f := range d.db.Files(d.old) {
		names = append(names, f.String())
	}
	return strings.Join(names, " ")
}

// block is new data of a block: short, so that a demo left alone for a day fits into memory and disk.
func (d *demo) block() []byte {
	return bytes.Repeat(fmt.Appendf(nil, "block %016x\n", d.rng.Uint64()), 200)
}

// step commits a few blocks, waits until both fronts show that commit, and compares.
func (d *demo) step(n int) error {
	tx := d.db.Begin()
	files := d.db.Files(d.old)
	changed := make(map[zodb.Oid][]zdata.Blk)
	for range 1 + d.rng.IntN(3) {
		f, blk := files[d.rng.IntN(len(files))], zdata.Blk(d.rng.IntN(demoBlocks+1))
		tx.Write(f, blk, d.block(), zgen.Blk0)
		if !slices.Contains(changed[f], blk) {
			changed[f] = append(changed[f], blk)
		}
	}
	tid, err := tx.CommitAt(max(zodb.TidFromTime(time.Now()), d.db.Head()+1))
	if err != nil {
		return err
	}
	var text []string
	for _, f := range files {
		if blks := changed[f]; blks != nil {
			slices.Sort(blks)
			text = append(text, fmt.Sprintf("%x:%s", uint64(f), strings.ReplaceAll(blockRanges(blks), " ", ",")))
		}
	}
	began := time.Now()
	if err := d.waitHead(tid); err != nil {
		return err
	}
	took := time.Since(began)
	for _, f := range files {
		for blk := range zdata.Blk(demoBlocks + 1) {
			if err := d.compare("head", f, blk, tid); err != nil {
				return err
			}
			if err := d.compare("@"+d.old.String(), f, blk, d.old); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(d.p.stdout, "%6d  %s  %-26s  after %-13s  old bytes\n", n, tid, strings.Join(text, " "), took.Round(100*time.Microsecond))
	return nil
}

// waitHead waits until head/at is tid, through the mount and through 9P.
func (d *demo) waitHead(tid zodb.Tid) error {
	for _, t := range d.targets() {
		f, err := t.open(d.p.ctx, "head/at")
		if err != nil {
			return err
		}
		text := make([]byte, 16)
		seen := waitFor(d.p.ctx, 10*time.Second, func() bool {
			_, err = f.ReadAt(text, 0)
			return err != nil && err != io.EOF || string(text) == tid.String()
		})
		f.Close()
		if !seen || err != nil && err != io.EOF {
			return fmt.Errorf("head/at is %q, want %s: %w", text, tid, errors.Join(err, d.p.ctx.Err()))
		}
	}
	return nil
}

// waitFor polls until cond holds.
func waitFor(ctx context.Context, timeout time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return cond()
		case <-tick.C:
		}
	}
	return true
}

func (d *demo) targets() []target { return []target{dirTarget(d.srv.mount.Dir()), nineTarget{d.nine}} }

// compare reads a block through both fronts and compares it with what was written.
func (d *demo) compare(dir string, f zodb.Oid, blk zdata.Blk, at zodb.Tid) error {
	name := dir + "/bigfile/" + f.String()
	if int64(blk)*demoBlksize >= d.db.Size(f, at) {
		return nil
	}
	want := d.db.Data(f, blk, at)
	for _, t := range d.targets() {
		file, err := t.open(d.p.ctx, name)
		if err != nil {
			return err
		}
		got := make([]byte, demoBlksize)
		n, err := io.ReadFull(io.NewSectionReader(file, int64(blk)*demoBlksize, demoBlksize), got)
		file.Close()
		if err != nil {
			return fmt.Errorf("%s: block %d: %d bytes: %w", name, blk, n, err)
		}
		if string(got) != string(want) {
			return fmt.Errorf("%s: block %d is not what was written", name, blk)
		}
	}
	return nil
}

// close unmounts and removes everything.
func (d *demo) close() error {
	var errs []error
	if d.nine != nil {
		d.nine.Close() // fails when a signal has closed it already
	}
	if d.srv != nil {
		errs = append(errs, d.srv.close())
	}
	if d.w != nil {
		errs = append(errs, d.w.Close())
	}
	if err := errors.Join(errs...); err != nil { // what is left may be a mount, which must not be walked into
		return fmt.Errorf("%w; %s is left as it is: `wcfs stop %s` and remove it", err, d.dir, filepath.Join(d.dir, "mnt"))
	}
	if d.dir == "" {
		return nil
	}
	if d.srv != nil && d.srv.mount != nil && d.srv.mount.Mounted() {
		return fmt.Errorf("%s is still mounted and left as it is", d.srv.mount.Dir())
	}
	return os.RemoveAll(d.dir)
}
