// Package kit is what the rows of the bench have in common: pairs measured in turn, the table, servers as
// processes, and databases to serve.
//
// It owns none of the rows. A figure is a ratio of two things done in turn in one run: a median of the pairs'
// ratios, with the lowest and the highest. Nothing here fails because of a number.
package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Bench is one run. It is not changed once the first row is measured.
type Bench struct {
	Dir   string // of this run; all that is made is below it
	WCFS  string // the command
	Size  int64  // bytes of a large file
	Pairs int    // how often a pair is measured
}

// Blksize is the size of a block of the databases that are made.
const Blksize = 2 << 20

// New makes a run's folder and builds the command, from the root of the repository.
func New(ctx context.Context, size int64, pairs int) (*Bench, error) {
	if _, err := os.Stat("go.mod"); err != nil {
		return nil, fmt.Errorf("run it from the root of the repository: %w", err)
	}
	if size < 16*Blksize || pairs < 1 {
		return nil, errors.New("a file of 32 MiB and one pair are the least")
	}
	dir, err := os.MkdirTemp("", "wcfs-bench-")
	if err != nil {
		return nil, err
	}
	b := &Bench{Dir: dir, WCFS: filepath.Join(dir, "wcfs"), Size: size, Pairs: pairs}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.WCFS, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", errors.Join(err, b.Close()), out)
	}
	return b, nil
}

// Close removes all that was made.
func (b *Bench) Close() error { return os.RemoveAll(b.Dir) }

// Missing is why a row cannot be measured here.
type Missing struct{ Peer, Setup string }

// Error says what to do.
func (m *Missing) Error() string {
	return fmt.Sprintf("its peer is missing, %s: run t/setup %s", m.Peer, m.Setup)
}

// Need returns a *Missing unless a program is there; part is what t/setup calls what installs it.
func Need(program, part string) error {
	if _, err := exec.LookPath(program); err != nil {
		return &Missing{program, part}
	}
	return nil
}

// Python is what runs the Python peers.
const Python = ".deps/py5/bin/python"

// Timed tells how long fn takes.
func Timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}

// Run is something that is measured.
type Run func() (time.Duration, error)

// Pair is the same done in two ways, in turn.
type Pair struct{ Ours, Other []time.Duration }

// Pair measures, after a first time that fills caches.
func (b *Bench) Pair(ctx context.Context, ours, other Run) (Pair, error) {
	var p Pair
	for i := range b.Pairs + 1 {
		if err := ctx.Err(); err != nil {
			return p, context.Cause(ctx)
		}
		mine, err := ours()
		if err != nil {
			return p, fmt.Errorf("ours: %w", err)
		}
		theirs, err := other()
		if err != nil {
			return p, fmt.Errorf("other: %w", err)
		}
		if i > 0 {
			p.Ours, p.Other = append(p.Ours, mine), append(p.Other, theirs)
		}
	}
	return p, nil
}

// ratios of the two, pair by pair.
func ratios(a, b []time.Duration) []float64 {
	var list []float64
	for i := range a {
		list = append(list, a[i].Seconds()/b[i].Seconds())
	}
	return list
}

// Median of a list that has something in it.
func Median[T time.Duration | float64](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// Speed is a row about n bytes: how many times faster ours is.
func (p Pair) Speed(what string, n int64, target float64, note string) Row {
	return Row{What: what, Ours: Rate(n, Median(p.Ours)), Other: Rate(n, Median(p.Other)),
		Ratios: ratios(p.Other, p.Ours), Target: target, Note: note}
}

// Cost is a row about time: how many times as much ours takes.
func (p Pair) Cost(what string, target float64, note string) Row {
	return Row{What: what, Ours: Short(Median(p.Ours)), Other: Short(Median(p.Other)),
		Ratios: ratios(p.Ours, p.Other), Target: target, AtMost: true, Note: note}
}

// Rate is n bytes in d.
func Rate(n int64, d time.Duration) string {
	mib := float64(n) / (1 << 20) / d.Seconds()
	if mib < 200 {
		return fmt.Sprintf("%.1f MiB/s", mib)
	}
	return fmt.Sprintf("%.2f GiB/s", mib/1024)
}

// Short is a time in three digits or so.
func Short(d time.Duration) string {
	switch {
	case d < 10*time.Microsecond:
		return d.Round(10 * time.Nanosecond).String()
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// Point is one place of a growth curve. Note, which may be nil, is asked at the end.
type Point struct {
	Name string
	Run  Run
	Note func() string
}

// Curve measures all points in turn, and compares each with the first.
func (b *Bench) Curve(ctx context.Context, what string, points ...Point) ([]Row, error) {
	took := make([][]time.Duration, len(points))
	for round := range b.Pairs + 1 {
		for i, p := range points {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			t, err := p.Run()
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", what, p.Name, err)
			}
			if round > 0 {
				took[i] = append(took[i], t)
			}
		}
	}
	var rows []Row
	for i, p := range points {
		r := Row{What: "growth: " + what + ", " + p.Name, Ours: Short(Median(took[i]))}
		if i > 0 {
			r.Other, r.Ratios, r.AtMost = Short(Median(took[0]))+" with "+points[0].Name, ratios(took[i], took[0]), true
		}
		if p.Note != nil {
			r.Note = p.Note()
		}
		rows = append(rows, r)
	}
	return rows, nil
}
