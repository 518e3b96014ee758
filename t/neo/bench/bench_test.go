package bench

import (
	"os"
	"testing"

	"wcfs/t/bench/kit"
)

// The benchmark runs; what it measures is no matter for a test.
func TestRows(t *testing.T) {
	if os.Getenv("WCFS_SOAK") == "" {
		t.Log("run by go run ./t/bench, and by a soak")
		return
	}
	t.Chdir("../../..")
	b, err := kit.New(t.Context(), 1<<30, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	rows, err := Rows(t.Context(), b)
	if err != nil || len(rows) != 8 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
	}
}
