package kit

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one line of the table. Ratios are those of the pairs: how many times faster ours is, or with AtMost how
// many times as much time it takes; none when there is nothing to compare. Target is for their median; 0: none.
type Row struct {
	What, Ours, Other string
	Ratios            []float64
	Target            float64
	AtMost            bool
	Note              string
}

// Absent is the line of a row that could not be measured.
func Absent(what string, err error) Row {
	return Row{What: what, Note: "NOT MEASURED: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
}

func (r Row) ratio() string {
	if len(r.Ratios) == 0 {
		return "-"
	}
	text := fmt.Sprintf("%.2f", Median(r.Ratios))
	if len(r.Ratios) > 1 {
		text += fmt.Sprintf(" (%.2f to %.2f)", slices.Min(r.Ratios), slices.Max(r.Ratios))
	}
	return text
}

func (r Row) target() string {
	if r.Target == 0 {
		return "-"
	}
	sign, met := "≥", false
	if r.AtMost {
		sign = "≤"
	}
	if len(r.Ratios) > 0 {
		m := Median(r.Ratios)
		met = r.AtMost && m <= r.Target || !r.AtMost && m >= r.Target
	}
	text := fmt.Sprintf("%s %g", sign, r.Target)
	if !met {
		text += ", not met"
	}
	return text
}

// Table prints rows as they come.
type Table struct {
	w        io.Writer
	markdown bool
}

// NewTable prints the head of a table.
func NewTable(w io.Writer, markdown bool) *Table {
	t := &Table{w, markdown}
	if markdown {
		fmt.Fprintln(w, "| what | ours | other | ratio | target | note |\n|---|---|---|---|---|---|")
	}
	return t
}

// Print prints the rows of a group.
func (t *Table) Print(rows []Row) {
	w := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	defer w.Flush()
	if !t.markdown {
		fmt.Fprintln(w, "what\tours\tother\tratio\ttarget\tnote")
	}
	for _, r := range rows {
		cells := []string{r.What, r.Ours, r.Other, r.ratio(), r.target(), r.Note}
		for i, c := range cells {
			if cells[i] = strings.TrimSpace(c); cells[i] == "" {
				cells[i] = "-"
			}
		}
		if t.markdown {
			fmt.Fprintln(t.w, "| "+strings.Join(cells, " | ")+" |")
		} else {
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
	}
}
