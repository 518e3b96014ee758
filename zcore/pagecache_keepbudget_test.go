package zcore

import (
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// hungCached has every page, and stores none.
type hungCached struct {
	allCached
	release chan struct{}
}

func (h *hungCached) StoreRev(zodb.Tid, zodb.Oid, int64, []byte) error {
	<-h.release
	return nil
}

// Stores under @rev that hang hold a commit up once, however many blocks it changes, and the next commit not at all.
func TestHelpHasOneBudgetPerCommit(t *testing.T) {
	t.Parallel()
	kernel := &hungCached{allCached{recorder: recorder{make(chan int64, 1000)}}, make(chan struct{})}
	defer close(kernel.release)
	w := newWorld(t, Options{}, nil)
	w.core.SetPageCache(kernel)
	const n = 100
	write := func(text string) zodb.Tid {
		return w.tx(func(tx *zgen.Tx) {
			for blk := range Blk(n) {
				tx.Write(w.f, blk, []byte(text), zgen.Blk0)
			}
		})
	}
	w.announced(write("old"))
	z := w.core.OpenZhead()
	defer z.Close()
	var took [2]time.Duration
	for i, text := range []string{"new", "newer"} {
		for blk := range Blk(n) {
			w.read(blk)
		}
		began := time.Now()
		tid := write(text)
		w.announced(tid)
		if line, err := z.Read(t.Context(), 17); err != nil || string(line) != tid.String()+"\n" {
			t.Fatalf("zhead: %q, %v", line, err)
		}
		took[i] = time.Since(began)
	}
	if took[0] < keepWait || took[0] > 5*keepWait {
		t.Errorf("the first commit took %v", took[0])
	}
	if took[1] >= keepWait {
		t.Errorf("the second commit took %v, though help is known to be stuck", took[1])
	}
}
