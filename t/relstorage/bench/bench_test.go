//go:build soak

package bench

import (
	"testing"

	"wcfs/t/bench/kit"
)

// TestRows runs the benchmark as make soak does; it asserts no times.
func TestRows(t *testing.T) {
	t.Chdir("../../..")
	b, err := kit.New(t.Context(), 1<<30, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	rows, err := Rows(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
