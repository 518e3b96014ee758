package client_test

import (
	"fmt"
	"strings"
	"testing"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// all are the clients and the ways in which each looks at a file.
var all = []struct {
	kind  string
	looks []string
	pins  bool // it is told of pins
}{
	{"go", []string{"read"}, true},
	{"gomap", []string{"read", "map"}, true},
	{"c", []string{"read", "map"}, true},
	{"py", []string{"read", "map"}, true},
	{"pyread", []string{"read"}, false},
}

func threeBlocks(tx *zgen.Tx, f zodb.Oid) {
	for blk := range zdata.Blk(3) {
		tx.Write(f, blk, []byte(fmt.Sprintf("block %d", blk)), zgen.Blk0)
	}
}

// Every client, step by step: its own revision while another is head, on to a newer one, a file that grows
// from nothing past all that was reserved.
func TestSteps(t *testing.T) {
	for _, mode := range []string{"open", "base"} {
		for _, c := range all {
			t.Run(c.kind+"/"+mode, func(t *testing.T) {
				t.Parallel()
				steps(t, c.kind, mode, c.looks, c.pins)
			})
		}
	}
}

func steps(t *testing.T, kind, mode string, looks []string, pins bool) {
	const blksize = 64 << 10
	w := newWorld(t, blksize, threeBlocks)
	at0 := w.db.Head()
	p := start(t, kind)
	look := func(at zodb.Tid) {
		t.Helper()
		for _, how := range looks {
			if got, want := p.must(t, "%s", how), w.sums(w.f, at); got != want {
				t.Fatalf("%s @%s:\n got %s\nwant %s", how, at, got, want)
			}
		}
	}
	if got, want := p.must(t, "%s %s %s %s", mode, w.mnt, w.f, at0), fmt.Sprintf("ok %s %d %d", at0, 3*blksize, blksize); got != want {
		t.Errorf("opened: %q, want %q", got, want)
	}
	look(at0)
	at1 := w.write(1, "changed")
	at2 := w.write(7, "grown")
	look(at0)

	// somebody reads what is newer: that must not show here
	other := start(t, "c")
	other.must(t, "%s %s %s %s", mode, w.mnt, w.f, at2)
	if got := other.must(t, "map"); got != w.sums(w.f, at2) {
		t.Errorf("the other client: %s", got)
	}
	look(at0)
	if got := p.must(t, "pins"); pins && got == "ok 0" && mode == "open" {
		t.Errorf("no block is pinned")
	}
	p.must(t, "resync %s", at1)
	look(at1)
	p.must(t, "resync %s", at1)
	look(at1)
	if got := p.may(t, "resync %s", at0); !strings.Contains(got, "go back") {
		t.Errorf("back in time: %s", got)
	}
	look(at1)
	at3 := w.commit(func(tx *zgen.Tx) { // 70 MiB: more than any client reserves
		tx.Write(w.f, 1100, []byte("far"), zgen.Blk0)
	})
	p.must(t, "resync %s", at3) // waits until the server has come to it
	look(at3)
	p.must(t, "close")
	other.must(t, "close")
}
