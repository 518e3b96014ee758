package contract

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/t/isolation/dropcaches"
	"wcfs/zcore/zodb"
)

// An advance while a pin is out: the block's messages come one after another, and ok after the last of its own.
func TestAdvanceWithPinOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start()
	at0 := w.db.Head()
	w.touch(f, 0, 1)
	l := w.link()
	l.watch(f, at0, nil)
	at1 := w.change(f, 0)
	m := w.mmap(headFile(f), 2)
	done := w.access(m, 0)
	first := l.pins(f, map[int]zodb.Tid{0: at0})
	l.send("7 " + watchMsg(f, at1) + "\n")
	l.send("9 " + watchMsg(f, at1) + "\n") // and once more behind it
	l.quiet()
	pending(t, "the read", done)
	l.ack(first)
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	back := l.pins(f, map[int]zodb.Tid{0: toHead})
	l.quiet()
	l.ack(back)
	l.expect("7 ok")
	l.expect("9 ok")

	// the other way round: on its way back to head when it changes again
	w.change(f, 0)
	done = w.access(m, 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: at1}))
	await(t, "the read", done)
	at2 := w.db.Head()
	l.send("7 " + watchMsg(f, at2) + "\n")
	back = l.pins(f, map[int]zodb.Tid{0: toHead})
	w.change(f, 0)
	done = w.access(m, 0)
	l.quiet() // the new pin is behind the one that is out
	pending(t, "the read", done)
	l.ack(back)
	// the advance is done, and the new pin is due: which of them is told first is open
	var pin uint64
	lines := []string{l.line(), l.line()}
	if lines[1] == "7 ok" {
		slices.Reverse(lines)
	}
	if fmt.Sscanf(lines[1], "%d pin", &pin); lines[0] != "7 ok" || lines[1] != fmt.Sprintf("%d pin %s #0 @%s", pin, f, at2) {
		t.Fatalf("the server sent %q", lines)
	}
	pending(t, "the read", done)
	l.send(fmt.Sprintf("%d ack\n", pin))
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	l.bye()
}

// Many watches of one file on one link replace each other; those of many links are each their own.
func TestWatchesReplaceEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	w.start()
	w.touch(f, 0)
	l := w.link()
	tids := []zodb.Tid{w.db.Head()}
	for range 20 {
		tids = append(tids, w.change(f, 0))
		w.touch(f, 0)
	}
	for i, at := range tids {
		pin := map[int]zodb.Tid{0: at}
		if i == len(tids)-1 {
			pin[0] = toHead
		}
		l.watch(f, at, pin)
		if n := w.stats()["Watch"]; n != 1 {
			t.Fatalf("Watch is %d", n)
		}
	}
	var links []*stream
	for _, at := range tids[:len(tids)-1] {
		o := w.link()
		o.watch(f, at, map[int]zodb.Tid{0: at})
		links = append(links, o)
	}
	last := w.change(f, 0)
	done := w.access(w.mmap(headFile(f), 1), 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: tids[len(tids)-1]})) // all others have it pinned
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	for i, o := range links {
		o.quiet()
		o.watch(f, last, map[int]zodb.Tid{0: toHead})
		if n := w.stats()["PinnedBlk"]; n != len(links)-i { // l's, and those of the rest
			t.Errorf("PinnedBlk is %d, want %d", n, len(links)-i)
		}
		o.bye()
	}
	l.bye()
}

// The counters, one by one.
func TestStatsCount(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t) // the kernel would forget the revision
	w := newWorld(t)
	f, g := w.file(2), w.file(1)
	w.start()
	want := map[string]int{"ZHeadLink": 1}
	check := func(after string) {
		t.Helper()
		var got map[string]int
		for _, name := range []string{"BigFile", "RevHead", "ZHeadLink", "WatchLink", "Watch", "PinnedBlk", "pin", "pinkill"} {
			want[name] += 0
		}
		eventually(t, fmt.Sprintf("%s: %v", after, want), func() bool {
			got = w.stats()
			maps.DeleteFunc(got, func(name string, _ int) bool { _, ok := want[name]; return !ok })
			return maps.Equal(got, want)
		})
	}
	check("start")
	os.Stat(w.at(headFile(0)))
	check("lookup of what is no bigfile")
	w.touch(f, 0)
	w.lookup(f)
	want["BigFile"] = 1
	check("reads")
	w.lookup(g)
	want["BigFile"] = 2
	check("lookup")
	z := openStream(t, w.at(".wcfs/debug/zhead"), unix.O_RDONLY)
	want["ZHeadLink"] = 2
	check("zhead opened")
	at := w.db.Head()
	l := w.link()
	want["WatchLink"] = 1
	check("link opened")
	l.watch(f, at, nil)
	l.watch(g, at, nil)
	want["Watch"] = 2
	check("watches")
	rev := w.mmap(revFile(at, f), 2)
	want["RevHead"] = 1
	check("a revision opened")
	w.change(f, 0)
	done := w.access(w.mmap(headFile(f), 2), 0)
	pins := l.pins(f, map[int]zodb.Tid{0: at})
	want["pin"], want["PinnedBlk"] = 1, 1
	check("a pin that is out")
	l.ack(pins)
	await(t, "the read", done)
	check("a pin")
	l.watch(f, w.db.Head(), map[int]zodb.Tid{0: toHead})
	want["pin"], want["PinnedBlk"] = 2, 0
	check("advance")
	l.send("3 watch " + g.String() + " -\n")
	l.expect("3 ok")
	want["Watch"] = 1
	check("stop")
	l.bye()
	want["Watch"], want["WatchLink"] = 0, 0
	check("bye")
	rev.close()
	z.expect(w.db.Head().String())
	check("a revision closed") // the kernel knows it still
}
