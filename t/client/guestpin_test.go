//go:build guests

package client_test

import (
	"fmt"
	"os"
	"testing"

	"wcfs/qemu/qemutest"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// TestGuestOwnPin is TestOwnPin in guests: the very thread that waits in a page fault or a read makes the server pin the
// block for its own program, with the GIL held, with one processor for Go and garbage being collected. WCFS_SOAK=1: with
// all kernels.
func TestGuestOwnPin(t *testing.T) {
	kernels := []string{"6.1"}
	if os.Getenv("WCFS_SOAK") != "" {
		kernels = append(kernels, "6.12")
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) { guestOwnPin(t, kernel) })
	}
}

func guestOwnPin(t *testing.T, kernel string) {
	qemutest.Turn(t)
	qemutest.Kernel(t, kernel) // fetched before the clock runs
	var files []zodb.Oid       // one for each look: of its blocks none has been read, so that no pin comes before that
	w := newWorld(t, 8192, func(tx *zgen.Tx, _ zodb.Oid) {
		for range 20 {
			files = append(files, tx.NewFile(8192))
			threeBlocks(tx, files[len(files)-1])
		}
	}, "--9p=tcp:127.0.0.1:0")
	kinds := []string{"go", "gomap", "c", "py"}
	procs := startGuest(t, kernel, w.nineAddr(), append(kinds, kinds...))
	for i, p := range procs {
		mnt := "/wcfs"
		if i >= len(kinds) {
			mnt = w.mnt // through virtfs
		}
		for _, how := range looksOf(p.name) {
			f := files[0]
			files = files[1:]
			at := w.commit(func(tx *zgen.Tx) { fill(tx, w.db, f, 1, fmt.Sprint(i, how)) })
			p.must(t, "open %s %s %s", mnt, f, at)
			if got := p.must(t, "pins"); got != "ok 0" {
				t.Errorf("%s at %s: pinned before it looked: %s", p.name, mnt, got)
			}
			if got, want := p.must(t, "%s", how), w.sums(f, at); got != want {
				t.Errorf("%s at %s, %s:\n got %s\nwant %s", p.name, mnt, how, got, want)
			}
			if got := p.must(t, "pins"); got != "ok 1" {
				t.Errorf("%s at %s, %s: pins: %s", p.name, mnt, how, got)
			}
			p.must(t, "close")
		}
	}
	if n := w.stat("pinkill"); n != 0 {
		t.Errorf("%d clients were killed", n)
	}
}

// looksOf are the ways in which a client looks at a file.
func looksOf(kind string) []string {
	for _, c := range all {
		if c.kind == kind {
			return c.looks
		}
	}
	return nil
}
