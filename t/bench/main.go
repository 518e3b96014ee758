// Command bench measures the server against something else that does the same, in turn in one run, and
// prints a table: what, ours, other, ratio with its spread, target. Machines are shared and noisy, so a figure is a
// ratio, never a bare time, and nothing here fails because of a number. A row whose peer is missing says so.
//
//	go run ./t/bench [-list] [-row NAME,NAME] [-markdown] [-size MIB] [-pairs N]     from the root of the repository
//
// A ratio is how many times faster ours is (target ≥), or how many times as much time it takes (target ≤).
// In lines about growth the other is the smallest case.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"wcfs/t/bench/kit"
	"wcfs/t/bench/p9"
	neo "wcfs/t/neo/bench"
	rel "wcfs/t/relstorage/bench"
	zeo "wcfs/t/zeo/bench"
)

// group is rows that are measured together.
type group struct {
	name, about string
	rows        func(context.Context, *kit.Bench) ([]kit.Row, error)
}

func groups() []group {
	return []group{
		{"warm", "read and mmap scan of what the page cache of the mount has, against tmpfs", warm},
		{"cold", "sequential read with an empty page cache, against a bare FUSE server, Python, and the disk", cold},
		{"ahead", "the same at a read-ahead of 1 MiB, against the bare FUSE server", ahead},
		{"random", "4 KiB at random, against pread of 2 MiB", random},
		{"zblk1", "many small chunks, against whole blocks", zblk1},
		{"commit", "commit to head/at, against Python", visible},
		{"tracked", "commit of 10 blocks and set-up of a watch in the past, with 10^3 to 10^6 tracked blocks", tracked},
		{"watches", "read of a block, with 1 to 1000 watches", watches},
		{"memory", "resident memory after reading 16 GiB", memory},
		{"open", "start on a FileStorage of 4 GiB and of 100 GB, with and without index", open},
		{"size", "growth of a file from 1 GiB to 1 TiB", size},
		{"rate", "growth of the commits per second", rate},
		{"files", "growth of the files that a commit touches", files},
		{"9p", "9P on the host, against diod", p9.Rows},
		{"guest", "9P in guests, against diod; virtfs, against tmpfs; growth of the guests", p9.Guests},
		{"zeo", "loads over ZEO, against Python", zeo.Rows},
		{"neo", "loads over NEO, against ZEO and what its storages can give", neo.Rows},
		{"rel", "loads over RelStorage PostgreSQL, against Python", rel.Rows},
	}
}

// limit is how long a group may take; then it is ended, and its line says so.
const limit = 6 * time.Minute

func main() {
	if len(os.Args) > 1 && os.Args[1] == spliceArg {
		spliceMain(os.Args[2:])
		return
	}
	list := flag.Bool("list", false, "list the groups of rows")
	only := flag.String("row", "", "measure only these groups of rows, with commas between")
	markdown := flag.Bool("markdown", false, "print the table in Markdown")
	size := flag.Int64("size", 1024, "size of large files in `MIB`")
	pairs := flag.Int("pairs", 5, "how often each pair is measured")
	profile := flag.String("cpuprofile", "", "write a processor profile of this process, which has the cores of the rows tracked and watches, to `FILE`")
	flag.Parse()
	if *list {
		for _, g := range groups() {
			fmt.Printf("%-8s %s\n", g.name, g.about)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(ctx, *only, *markdown, *size<<20, *pairs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, markdown bool, size int64, pairs int) (err error) {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	b, err := kit.New(ctx, size, pairs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	fmt.Printf("%s: %s\n\n", time.Now().Format(time.DateOnly), kit.Machine())
	table, failed := kit.NewTable(os.Stdout, markdown), 0
	began := time.Now()
	for _, g := range chosen {
		at := time.Now()
		rows, err := measure(ctx, g, b)
		if err != nil {
			rows = append(rows, kit.Absent(g.name, err))
			if !errors.As(err, new(*kit.Missing)) {
				failed++
			}
		}
		table.Print(rows)
		fmt.Fprintf(os.Stderr, "%s: %v\n", g.name, time.Since(at).Round(time.Second))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Printf("\n%d groups in %v, load at the end %s\n", len(chosen), time.Since(began).Round(time.Second), kit.Load())
	if failed > 0 {
		return fmt.Errorf("%d groups could not be measured", failed)
	}
	return nil
}

// choose finds the groups that are asked for.
func choose(only string) ([]group, error) {
	all := groups()
	if only == "" {
		return all, nil
	}
	var chosen []group
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(g group) bool { return g.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no rows are called %q: -list names them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// measure measures a group, but not for longer than the limit.
func measure(ctx context.Context, g group, b *kit.Bench) ([]kit.Row, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	type result struct {
		rows []kit.Row
		err  error
	}
	done := make(chan result, 1)
	go func() {
		rows, err := g.rows(ctx, b)
		done <- result{rows, err}
	}()
	select {
	case r := <-done:
		return r.rows, r.err
	case <-ctx.Done():
	}
	select { // servers end with ctx, and with them whatever waits for them
	case r := <-done:
		return r.rows, errors.Join(context.Cause(ctx), r.err)
	case <-time.After(time.Minute):
		return nil, fmt.Errorf("%w, and does not end", context.Cause(ctx))
	}
}
