// Command bench measures the server against something else that does the same, in turn in one run, and
// prints a table: what, ours, other, ratio, target. Machines are shared and noisy, so a figure is a
// ratio of medians, never a bare time, and nothing here fails because of a number.
//
//	go run ./t/bench [-row NAME] [-size MIB] [-pairs N]     from the root of the repository
//
// A ratio is how many times faster ours is (target: at least), or, where the note says so, how much more
// the larger case costs than the smaller one (target: at most).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"wcfs/t/bench/fast"
	p9 "wcfs/t/p9/bench"
	rel "wcfs/t/rel/bench"
	zeo "wcfs/t/zeo/bench"
)

// Row is one line of the table.
type Row struct {
	What, Ours, Other string
	Ratio, Target     float64 // 0: none
	Note              string
}

// suite is a group of rows that are measured together.
type suite struct {
	name string
	rows func(ctx context.Context, b *bench) ([]Row, error)
}

func suites() []suite {
	return []suite{
		{"warm", warm},
		{"cold", cold},
		{"random", random},
		{"zblk1", zblk1},
		{"fast", plugin(fast.Rows)},
		{"open", open},
		{"tracked", tracked},
		{"watches", watches},
		{"setup", setup},
		{"memory", memory},
		{"9p", plugin(p9.Rows)},
		{"zeo", plugin(zeo.Rows)},
		{"rel", plugin(rel.Rows)},
	}
}

// plugin takes rows that another folder of t measures; its Row has the same fields.
func plugin[R ~struct {
	What, Ours, Other string
	Ratio, Target     float64
	Note              string
}](rows func(context.Context) ([]R, error)) func(context.Context, *bench) ([]Row, error) {
	return func(ctx context.Context, _ *bench) ([]Row, error) {
		theirs, err := rows(ctx)
		var list []Row
		for _, r := range theirs {
			list = append(list, Row(r))
		}
		return list, err
	}
}

// bench is what all suites share.
type bench struct {
	dir   string // of this run
	wcfs  string // the binary
	size  int64  // bytes of a large file
	pairs int
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == spliceArg {
		spliceMain(os.Args[2:])
		return
	}
	only := flag.String("row", "", "measure only these groups of rows, with commas between")
	size := flag.Int64("size", 1024, "size of large files in `MIB`")
	pairs := flag.Int("pairs", 5, "how often each pair is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, &bench{size: *size << 20, pairs: *pairs}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, b *bench) (err error) {
	if _, err := os.Stat("go.mod"); err != nil {
		return fmt.Errorf("run it from the root of the repository: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "wcfs-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.wcfs = filepath.Join(b.dir, "wcfs")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.wcfs, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tours\tother\tratio\ttarget\tnote")
	names := strings.Split(only, ",")
	for _, s := range suites() {
		if only != "" && !slices.Contains(names, s.name) {
			continue
		}
		rows, err := s.rows(ctx, b)
		for _, r := range rows {
			target := "-"
			if r.Target != 0 {
				target = fmt.Sprintf("%.2f", r.Target)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%s\t%s\n", r.What, r.Ours, r.Other, r.Ratio, target, r.Note)
		}
		w.Flush()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// pair measures a and b in turn and returns the medians.
func (b *bench) pair(ours, other func() (time.Duration, error)) (mine, theirs time.Duration, err error) {
	var as, bs []time.Duration
	for range b.pairs {
		t, err := ours()
		if err != nil {
			return 0, 0, fmt.Errorf("ours: %w", err)
		}
		as = append(as, t)
		if t, err = other(); err != nil {
			return 0, 0, fmt.Errorf("other: %w", err)
		}
		bs = append(bs, t)
	}
	return median(as), median(bs), nil
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// speed is a row about throughput of n bytes.
func speed(what string, n int64, ours, other time.Duration, target float64, note string) Row {
	rate := func(d time.Duration) string { return fmt.Sprintf("%.2f GiB/s", float64(n)/(1<<30)/d.Seconds()) }
	return Row{what, rate(ours), rate(other), other.Seconds() / ours.Seconds(), target, note}
}

// cost is a row about how much more the larger case takes.
func cost(what string, large, small time.Duration, target float64) Row {
	return Row{what, large.String(), small.String(), large.Seconds() / small.Seconds(), target, "at most: time of the larger case over that of the smaller"}
}

func timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}
