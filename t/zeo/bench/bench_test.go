package bench

import (
	"os"
	"testing"
)

// The benchmark runs; what it measures is no matter for a test.
func TestRows(t *testing.T) {
	if os.Getenv("WCFS_SOAK") == "" {
		t.Log("run by go run ./t/bench, and by a soak")
		return
	}
	rows, err := Rows(t.Context())
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
