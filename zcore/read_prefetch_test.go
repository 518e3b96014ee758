package zcore

import (
	"fmt"
	"testing"
	"time"

	"wcfs/t/wait"
)

// settled waits until nothing is being loaded ahead and returns how many loads there were.
func (w *world) settled() int {
	w.t.Helper()
	for deadline := time.Now().Add(wait.Patience); len(w.core.prefetching) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("loads ahead do not end")
		}
	}
	return w.stor.Loads()
}

func tenBlocks() map[Blk]string {
	m := map[Blk]string{}
	for blk := range Blk(10) {
		m[blk] = fmt.Sprintf("block %d", blk)
	}
	return m
}

func TestPrefetch(t *testing.T) {
	w := newWorld(t, Options{}, tenBlocks())
	w.core.smallRead = testBlksize - 1
	w.read(3)
	w.read(4)
	n := w.settled()
	for _, blk := range []Blk{5, 6} {
		if s := w.read(blk); s != fmt.Sprintf("block %d", blk) {
			t.Errorf("block %d is %q", blk, s)
		}
		if blk == 5 {
			if now := w.stor.Loads(); now > n+4 { // those of 7, begun meanwhile, and of nodes on the way
				t.Errorf("%d loads to read a block that was loaded ahead", now-n)
			}
		}
	}
	for blk := Blk(7); blk < 10; blk++ { // up to the end of the file
		w.read(blk)
	}
	w.settled()
}

// A block that changes after it was loaded ahead is shown as it is now; nothing of it was in the page
// cache, so nothing is dropped from there.
func TestPrefetchThenCommit(t *testing.T) {
	w := newWorld(t, Options{}, tenBlocks())
	w.core.smallRead = testBlksize - 1
	w.read(1)
	reached, release := w.stopAt(StepPrefetch)
	w.read(2)
	w.must("a load ahead", reached)
	w.commit(map[Blk]string{3: "changed"})
	release()
	w.settled()
	if s := w.read(3); s != "changed" {
		t.Errorf("block 3 is %q", s)
	}
	if got := w.core.tail.Tracked(); got != 3 {
		t.Errorf("%d blocks are tracked, want those that were read", got)
	}
}

func TestNoPrefetch(t *testing.T) {
	w := newWorld(t, Options{}, tenBlocks())
	w.core.smallRead = testBlksize - 1
	for _, blk := range []Blk{9, 5, 7, 3} {
		w.read(blk)
	}
	n := w.settled()
	w.core.smallRead = testBlksize // as if in small pieces
	w.read(4)
	if len(w.core.prefetching) > 0 || w.settled() > n+4 {
		t.Errorf("blocks are loaded ahead of a reader at random: %d loads", w.settled()-n)
	}
	// and in a file that lies plainly in the database's there is nothing to be loaded at all
	ext := newExtents(t, w.stor, 0)
	core, err := New(t.Context(), ext, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.core = core
	w.core.smallRead = testBlksize - 1
	for blk := range Blk(4) {
		if s := w.read(blk); s != fmt.Sprintf("block %d", blk) {
			t.Errorf("block %d is %q", blk, s)
		}
	}
	if err := ext.check(); err != nil {
		t.Error(err)
	}
}
