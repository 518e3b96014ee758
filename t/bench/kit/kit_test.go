package kit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// taking is a run that takes the times given, one after another.
func taking(ms ...int) Run {
	return func() (time.Duration, error) {
		t := time.Duration(ms[0]) * time.Millisecond
		if len(ms) > 1 {
			ms = ms[1:]
		}
		return t, nil
	}
}

// TestPairs: the first of each does not count, ratios are of pairs, and point in the direction that the target means.
func TestPairs(t *testing.T) {
	b := &Bench{Pairs: 3}
	p, err := b.Pair(t.Context(), taking(1000, 10, 20, 40), taking(1, 20, 20, 20))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		row           Row
		ratio, target string
	}{
		{p.Speed("x", 1<<30, 0.9, ""), "1.00 (0.50 to 2.00)", "≥ 0.9"},
		{p.Speed("x", 1<<30, 1.5, ""), "1.00 (0.50 to 2.00)", "≥ 1.5, not met"},
		{p.Cost("x", 2, ""), "1.00 (0.50 to 2.00)", "≤ 2"},
		{p.Cost("x", 0.5, ""), "1.00 (0.50 to 2.00)", "≤ 0.5, not met"},
		{p.Cost("x", 0, ""), "1.00 (0.50 to 2.00)", "-"},
	} {
		if c.row.ratio() != c.ratio || c.row.target() != c.target {
			t.Errorf("%+v: ratio %q, target %q, want %q, %q", c.row, c.row.ratio(), c.row.target(), c.ratio, c.target)
		}
	}
	if r := p.Speed("x", 1<<30, 0, ""); r.Ours != "50.00 GiB/s" || r.Other != "50.00 GiB/s" {
		t.Errorf("rates %q and %q", r.Ours, r.Other)
	}
	bad := errors.New("bad")
	if _, err := b.Pair(t.Context(), taking(1), func() (time.Duration, error) { return 0, bad }); !errors.Is(err, bad) || !strings.HasPrefix(err.Error(), "other: ") {
		t.Errorf("error of the other: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(bad)
	if _, err := b.Pair(ctx, taking(1), taking(1)); !errors.Is(err, bad) {
		t.Errorf("ended: %v", err)
	}
}

// TestCurve: each point is compared with the first.
func TestCurve(t *testing.T) {
	b := &Bench{Pairs: 1}
	rows, err := b.Curve(t.Context(), "x", Point{Name: "1", Run: taking(10)}, Point{Name: "2", Run: taking(15), Note: func() string { return "why" }})
	if err != nil || len(rows) != 2 || rows[0].ratio() != "-" || rows[1].ratio() != "1.50" || rows[1].Note != "why" || rows[1].What != "growth: x, 2" {
		t.Errorf("%+v, %v", rows, err)
	}
}

// TestTable: both forms have a cell for everything, and a row that lacks its peer says what to do.
func TestTable(t *testing.T) {
	err := Need("no-such-program", "deb")
	if !errors.As(err, new(*Missing)) {
		t.Fatalf("no-such-program is there: %v", err)
	}
	rows := []Row{{What: "a", Ours: "1", Other: "2", Ratios: []float64{2}}, Absent("b", err)}
	for _, markdown := range []bool{true, false} {
		var w strings.Builder
		NewTable(&w, markdown).Print(rows)
		if text := w.String(); !strings.Contains(text, "NOT MEASURED: its peer is missing, no-such-program: run t/setup deb") || !strings.Contains(text, "2.00") {
			t.Errorf("table:\n%s", text)
		}
		lines := strings.Split(strings.TrimSpace(w.String()), "\n")
		if markdown && lines[2] != "| a | 1 | 2 | 2.00 | - | - |" {
			t.Errorf("row %q", lines[2])
		}
	}
}
