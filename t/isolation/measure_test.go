//go:build measure

package isolation

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// With everything on one processor, and a short pintimeout: how many clients hang on themselves? Its
// numbers are in docs/isolation.md.
// WCFS_MEASURE is the number of seconds that it may take, 20 by default.
func TestMeasureHangs(t *testing.T) {
	seconds := 20
	if v := os.Getenv("WCFS_MEASURE"); v != "" {
		var err error
		if seconds, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	bin := build(t)
	if other := os.Getenv("WCFS_MEASURE_SERVER"); other != "" { // with other waits, say
		if err := errors.Join(os.Remove(filepath.Join(bin, "wcfs")), os.Symlink(other, filepath.Join(bin, "wcfs"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, cpu := range []string{"", "0"} {
		r := &run{t: t, bin: bin, gomaxprocs: 1, inC: 16, seconds: seconds, blocks: 6, last: 2, pintimeout: 4 * time.Second, cpu: cpu}
		r.do()
	}
}
