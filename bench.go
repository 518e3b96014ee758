package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/fusesrv"
)

// benchCmd is `wcfs bench TARGET PATH`: how fast a bigfile of the user's own is read.
type benchCmd struct {
	targetArgs
	Size    int64         `type:"mib" default:"1024" placeholder:"MIB" help:"Read at most this much from the beginning of the file."`
	For     time.Duration `default:"5s" help:"How long to read at random, and while commits arrive."`
	Readers int           `type:"count" default:"8" help:"How many readers many are."`
	Warm    bool          `help:"Leave what the page cache of the mount holds; by default it is dropped before each row."`

	file  readAtCloser
	local string        // path of the file in a mount, or ""
	size  int64         // bytes
	pid   int           // of the server of the mount, 0 when not known
	pages *pageMap      // of it, nil when it is not in a mount
	done  atomic.Int64  // bytes read in this row
	hits  atomic.Int64  // of them, in the page cache when they were asked for
	sum   atomic.Uint64 // keeps the scan from being optimised away
}

// benchRow is what one way of reading gave.
type benchRow struct {
	what    string
	bytes   int64
	took    time.Duration
	cpu     time.Duration // ours and the server's
	cached  string        // how much was in the page cache of the mount before
	hits    string        // how much of what was read was there when it was asked for
	lat     []time.Duration
	commits int
}

const (
	benchChunk = 1 << 20
	benchSmall = 4096
)

// Run measures and prints a table.
func (c *benchCmd) Run(p *program) error {
	t, err := c.openTarget(p)
	if err != nil {
		return err
	}
	defer t.close()
	if err := c.prepare(p.ctx, t); err != nil {
		return err
	}
	defer c.file.Close()
	defer c.pages.close()
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tMiB/s\treads/s\tmedian\t99%\tlongest\tCPU s/GiB\tcached before\tcache hits\tcommits")
	for _, m := range []struct {
		what string
		fn   func(context.Context, *benchRow) error
	}{
		{"sequential", func(ctx context.Context, r *benchRow) error { return c.sequential(ctx, r, 1) }},
		{"random 4 KiB", func(ctx context.Context, r *benchRow) error { return c.random(ctx, r, 1) }},
		{"mmap scan", c.scan},
		{"many, sequential", func(ctx context.Context, r *benchRow) error { return c.sequential(ctx, r, c.Readers) }},
		{"many, random, commits", func(ctx context.Context, r *benchRow) error {
			return c.duringCommits(ctx, t, r, func() error { return c.random(ctx, r, c.Readers) })
		}},
	} {
		if m.what == "mmap scan" && c.local == "" {
			continue
		}
		r := &benchRow{what: m.what}
		if err := c.measure(p, r, m.fn); err != nil {
			return fmt.Errorf("%s: %s: %w", c.Path, m.what, err)
		}
		r.print(w)
	}
	return w.Flush()
}

// prepare opens the file.
func (c *benchCmd) prepare(ctx context.Context, t target) error {
	attr, err := t.stat(ctx, cleanPath(c.Path))
	if err != nil {
		return c.explain(err)
	}
	if c.size = min(attr.Size, c.Size<<20); attr.Dir || c.size < benchSmall {
		return usagef("%s: no file, or too small to measure; PATH is a bigfile, like head/bigfile/0000000000000001", c.Path)
	}
	if dir, ok := t.(dirTarget); ok {
		c.local = filepath.Join(string(dir), cleanPath(c.Path))
		if r, err := fusesrv.Status(ctx, string(dir)); err == nil {
			c.pid = r.Pid
		}
		if c.pages, err = mapPages(c.local, c.size); err != nil {
			return err
		}
	}
	if sock, ok := strings.CutPrefix(c.Target, "unix:"); ok {
		c.pid = listenerPid(ctx, sock)
	}
	c.file, err = t.open(ctx, cleanPath(c.Path))
	return err
}

// measure runs fn, and tells on stderr how far it is.
func (c *benchCmd) measure(p *program, r *benchRow, fn func(context.Context, *benchRow) error) error {
	if err := c.forget(); err != nil {
		return err
	}
	r.cached = percent(c.pages.resident(0, c.size), c.size, c.pages)
	c.done.Store(0)
	c.hits.Store(0)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.progress(p, r.what, over) })
	cpu, began := c.cpu(), time.Now()
	err := fn(p.ctx, r)
	r.took, r.cpu, r.bytes = time.Since(began), c.cpu()-cpu, c.done.Load()
	r.hits = percent(c.hits.Load(), r.bytes, c.pages)
	close(over)
	wg.Wait()
	return err
}

func (c *benchCmd) progress(p *program, what string, over <-chan struct{}) {
	f, ok := p.stderr.(*os.File)
	if !ok {
		return
	}
	if fi, err := f.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		return
	}
	defer fmt.Fprint(f, "\r\x1b[K")
	for tick := time.Tick(200 * time.Millisecond); ; {
		fmt.Fprintf(f, "\r\x1b[K%s: %d MiB", what, c.done.Load()>>20)
		select {
		case <-over:
			return
		case <-tick:
		}
	}
}

// forget drops the file from the page cache of the mount, not from that of the database.
func (c *benchCmd) forget() error {
	if c.local == "" || c.Warm {
		return nil
	}
	f, err := os.Open(c.local)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// timedRead is one read; its latency is added to lat.
func (c *benchCmd) timedRead(ctx context.Context, buf []byte, off int64, lat *[]time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.hits.Add(c.pages.resident(off, int64(len(buf))))
	began := time.Now()
	n, err := c.file.ReadAt(buf, off)
	*lat = append(*lat, time.Since(began))
	c.done.Add(int64(n))
	if n == len(buf) || n > 0 && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// inParallel runs n readers and collects their latencies.
func inParallel(n int, r *benchRow, fn func(i int, lat *[]time.Duration) error) error {
	lats, errs := make([][]time.Duration, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i, &lats[i]) })
	}
	wg.Wait()
	r.lat = slices.Concat(lats...)
	return errors.Join(errs...)
}

// sequential has n readers read a part of the file each.
func (c *benchCmd) sequential(ctx context.Context, r *benchRow, n int) error {
	part := (c.size/int64(n) + benchSmall - 1) / benchSmall * benchSmall
	return inParallel(n, r, func(i int, lat *[]time.Duration) error {
		buf := make([]byte, benchChunk)
		end := min(part*int64(i+1), c.size)
		for off := part * int64(i); off < end; off += benchChunk {
			if err := c.timedRead(ctx, buf[:min(benchChunk, end-off)], off, lat); err != nil {
				return err
			}
		}
		return nil
	})
}

// random has n readers read pages anywhere for a while.
func (c *benchCmd) random(ctx context.Context, r *benchRow, n int) error {
	until := time.Now().Add(c.For)
	return inParallel(n, r, func(i int, lat *[]time.Duration) error {
		buf, rng := make([]byte, benchSmall), rand.New(rand.NewPCG(uint64(i), 1))
		for time.Now().Before(until) {
			if err := c.timedRead(ctx, buf, rng.Int64N(c.size/benchSmall)*benchSmall, lat); err != nil {
				return err
			}
		}
		return nil
	})
}

// scan sums the file up through a mapping.
func (c *benchCmd) scan(ctx context.Context, r *benchRow) error {
	f, err := os.Open(c.local)
	if err != nil {
		return err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, int(c.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	sum := uint64(0)
	for off := 0; off < len(mem) && ctx.Err() == nil; off += benchChunk {
		piece := mem[off:min(off+benchChunk, len(mem))]
		c.hits.Add(c.pages.resident(int64(off), int64(len(piece))))
		began := time.Now()
		for i := 0; i+8 <= len(piece); i += 8 {
			sum += binary.NativeEndian.Uint64(piece[i:])
		}
		r.lat = append(r.lat, time.Since(began))
		c.done.Add(int64(len(piece)))
	}
	c.sum.Store(sum)
	return ctx.Err()
}

// duringCommits counts how often head moves while fn runs. Commits are not made here: this only reads.
func (c *benchCmd) duringCommits(ctx context.Context, t target, r *benchRow, fn func() error) error {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		last, _ := readSmall(ctx, t, "head/at")
		for tick := time.Tick(20 * time.Millisecond); ; {
			select {
			case <-over:
				return
			case <-tick:
			}
			if at, err := readSmall(ctx, t, "head/at"); err == nil && at != last {
				last = at
				r.commits++
			}
		}
	})
	err := fn()
	close(over)
	wg.Wait()
	return err
}

func (r *benchRow) print(w io.Writer) {
	slices.Sort(r.lat)
	at := func(q float64) time.Duration {
		if len(r.lat) == 0 {
			return 0
		}
		return r.lat[min(int(q*float64(len(r.lat))), len(r.lat)-1)].Round(time.Microsecond)
	}
	s := max(r.took.Seconds(), 1e-9)
	commits := ""
	if strings.HasSuffix(r.what, "commits") {
		commits = fmt.Sprint(r.commits)
	}
	fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%v\t%v\t%v\t%.2f\t%s\t%s\t%s\n", r.what, float64(r.bytes)/(1<<20)/s, float64(len(r.lat))/s,
		at(0.5), at(0.99), at(1), r.cpu.Seconds()/(float64(max(r.bytes, 1))/(1<<30)), r.cached, r.hits, commits)
}
