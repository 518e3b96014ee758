package bench

import (
	"os"
	"testing"
)

// TestRows runs the benchmark as make soak does; it asserts no times.
func TestRows(t *testing.T) {
	if os.Getenv("WCFS_SOAK") == "" {
		return // heavy
	}
	rows, err := Rows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
