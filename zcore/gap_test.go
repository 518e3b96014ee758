package zcore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"wcfs/zcore/zodb"
)

// What changed in a gap is found out though each fifth load fails: nothing that was answered is asked again.
func TestGapOverADatabaseThatFailsNowAndThen(t *testing.T) {
	init := map[Blk]string{}
	for blk := range Blk(300) {
		init[blk] = fmt.Sprint(blk)
	}
	w := newWorld(t, Options{}, init)
	for blk := range Blk(300) {
		w.want(blk, fmt.Sprint(blk))
	}
	at := w.db.Head()
	l := w.link()
	w.wantPins(l.pins(w.f, at), nil)
	rng := rand.New(rand.NewPCG(1, 1))
	var mu sync.Mutex
	loads, failed := 0, 0
	w.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error {
		mu.Lock()
		defer mu.Unlock()
		loads++
		if rng.IntN(5) == 0 {
			failed++
			return errAway
		}
		return nil
	})
	w.gapNext = true
	w.commit(map[Blk]string{7: "new", 299: "newer"})
	w.stor.SetLoadHook(nil)
	mu.Lock()
	if loads-failed > 5000 {
		t.Errorf("%d loads for a gap over 300 blocks", loads-failed)
	}
	mu.Unlock()
	w.want(8, "8")
	w.readPinned(l, 2, 7, at, "new")
}
