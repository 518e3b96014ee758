package filestorage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
)

// indexFile is the index that a Python writer leaves beside the data file.
type indexFile struct {
	path string
	off  bool // do not use it
	log  *slog.Logger

	// The file as it was when it was last tried: the same one is not tried twice.
	size  int64
	mtime time.Time
}

// use puts the index file to use if it is right and ahead of what f knows already.
func (x *indexFile) use(f *dataFile) {
	st, err := os.Stat(x.path)
	if x.off || errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == x.size && st.ModTime().Equal(x.mtime) {
		return
	}
	if err == nil {
		x.size, x.mtime = st.Size(), st.ModTime()
		err = x.try(f)
	}
	if err != nil {
		x.log.Warn("index is not used, the data file is scanned", "index", x.path, "reason", err)
	}
}

func (x *indexFile) try(f *dataFile) error {
	file, err := os.Open(x.path)
	if err != nil {
		return err
	}
	defer file.Close()
	index, end, err := fsformat.ReadIndex(file)
	if err != nil {
		return err
	}
	if end <= f.end { // behind the scan that runs: no use, no error
		return nil
	}
	last, err := f.fits(index, end)
	if err != nil {
		return err
	}
	f.index, f.end, f.last = index, end, last
	return nil
}

// How much of an index is compared with the file: all records of the last transactions, and records
// spread over all objects.
const (
	fitTxns   = 8
	fitRecs   = 10000
	fitSample = 256
)

// fits checks that index describes f up to end, and returns the last tid before end.
func (f *dataFile) fits(index *fsformat.Index, end int64) (last zodb.Tid, err error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	if end > st.Size() {
		return 0, fmt.Errorf("it is for a longer file")
	}
	// The last record of an object in the last transactions, taken from the newest to the oldest,
	// is where the index must point.
	sc := newScanner(f.f)
	seen := map[zodb.Oid]bool{}
	newer := zodb.TidMax
	for p, n := end, 0; p > fsformat.MagicLen && n < fitTxns && len(seen) < fitRecs; n++ {
		h, err := f.before(p)
		if err != nil {
			return 0, err
		}
		t, err := sc.txn(h.pos)
		if err == nil && t.end != p {
			err = errIncomplete
		}
		if err != nil {
			return 0, fmt.Errorf("no transaction ends at position %d: %w", p, err)
		}
		if t.Tid >= newer {
			return 0, fmt.Errorf("transactions are not in the order of their tids at position %d", p)
		}
		newer = t.Tid
		if last == 0 { // also an undone one, as Python without an index says
			last = t.Tid
		}
		for i := len(t.recs) - 1; i >= 0; i-- {
			r := t.recs[i]
			if !seen[r.oid] && index.Get(r.oid) != r.pos {
				return 0, fmt.Errorf("object %s is at %d, not at %d", r.oid, r.pos, index.Get(r.oid))
			}
			seen[r.oid] = true
		}
		p = t.pos
	}
	for _, e := range index.Sample(fitSample) {
		if r, err := f.rec(e.Oid, e.Pos, end); err != nil || r.Tid > last && last != 0 {
			return 0, fmt.Errorf("object %s is not at %d", e.Oid, e.Pos)
		}
	}
	return last, nil
}
