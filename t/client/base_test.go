package client_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wcfs/t/served"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// The base moves, and views over the old one go with it when they go on.
func TestBaseMoves(t *testing.T) {
	w := newWorld(t, 4096, func(tx *zgen.Tx, f zodb.Oid) { tx.Write(f, many-1, []byte("last"), zgen.Blk0) })
	at0 := w.db.Head()
	w.write(1, "before")
	at1 := w.write(2, "changed")
	var ps []*proc
	for _, kind := range []string{"go", "gomap", "c", "py"} {
		p := start(t, kind)
		p.must(t, "base %s %s %s", w.mnt, w.f, at0)
		p.must(t, "read")
		p.must(t, "resync %s", at1) // over the same base: pins
		if got := p.must(t, "read"); got != w.sums(w.f, at1) {
			t.Errorf("%s @%s: %s", kind, at1, got)
		}
		if got := p.must(t, "pins"); got != "ok 2" {
			t.Errorf("%s: pins: %s", kind, got)
		}
		ps = append(ps, p)
	}
	at2 := w.manyChanges()
	for _, p := range ps {
		if got := p.must(t, "read"); got != w.sums(w.f, at1) {
			t.Errorf("%s @%s: %s", p.name, at1, got)
		}
		p.must(t, "resync %s", at2)
		for _, how := range []string{"read", "map"} {
			if p.name == "go" && how == "map" {
				continue
			}
			if got := p.must(t, "%s", how); got != w.sums(w.f, at2) {
				t.Errorf("%s @%s, %s: %.100s...", p.name, at2, how, got)
			}
		}
		if got := p.must(t, "pins"); got != "ok 0" {
			t.Errorf("%s over the new base: pins: %s", p.name, got)
		}
		if !holds(t, p, fmt.Sprintf("/base/%s/", at2)) || holds(t, p, fmt.Sprintf("/base/%s/", at0)) {
			t.Errorf("%s is not over the new base alone", p.name)
		}
	}
	at3 := w.write(1, "after")
	for _, p := range ps {
		p.must(t, "resync %s", at3)
		if got := p.must(t, "read"); got != w.sums(w.f, at3) {
			t.Errorf("%s @%s: %.100s...", p.name, at3, got)
		}
		p.must(t, "close")
	}
}

// many is how many blocks the file has.
const many = 64

// manyChanges commits until the server has moved the base; it returns the base.
func (w *world) manyChanges() zodb.Tid {
	w.t.Helper()
	was, base := w.base(), zodb.Tid(0)
	p := start(w.t, "c") // the server counts changes of what is read through head
	p.must(w.t, "open %s %s %s", w.mnt, w.f, w.db.Head())
	p.must(w.t, "read")
	p.must(w.t, "close")
	for range 4096 / many {
		w.commit(func(tx *zgen.Tx) {
			for blk := range zdata.Blk(many) {
				tx.Write(w.f, blk, fmt.Append(nil, blk, w.db.Head()), zgen.Blk0)
			}
		})
	}
	served.Eventually(w.t, "the new base", func() bool {
		base = w.base()
		return base != was
	})
	return base
}

func (w *world) base() zodb.Tid {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.mnt, "head/base"))
	if err != nil {
		w.t.Fatal(err)
	}
	tid, err := zodb.ParseTid(string(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return tid
}

// holds tells whether a process has a file open whose path has that in it.
func holds(t *testing.T, p *proc, part string) bool {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("no descriptors: %v", err)
	}
	for _, fd := range fds {
		if path, err := os.Readlink(fd); err == nil && strings.Contains(path, part) {
			return true
		}
	}
	return false
}
