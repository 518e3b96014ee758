//go:build soak

package bench

import (
	"testing"

	"wcfs/t/bench/kit"
)

// The benchmark runs; what it measures is no matter for a test.
func TestRows(t *testing.T) {
	t.Chdir("../../..")
	b, err := kit.New(t.Context(), 1<<30, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	rows, err := Rows(t.Context(), b)
	if err != nil || len(rows) != 6 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
