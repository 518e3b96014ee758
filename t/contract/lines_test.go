package contract

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zodb"
)

// Every text that existing clients compare, byte for byte.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.file(2)
	f := w.file(2)
	w.change(f, 0)
	before := w.db.Head() - 2<<32 // two minutes
	w.start()
	at1 := w.db.Head()
	l := w.link()

	notKnown := func(f zodb.Oid, at string) string {
		return fmt.Sprintf("1 error setup watch f<%s> @%s: file not yet known to wcfs or is not a ZBigFile", f, at)
	}
	l.send("1 " + watchMsg(f, at1) + "\n")
	l.expect(notKnown(f, at1.String()))
	l.send("1 watch " + f.String() + " -\n")
	l.expect(notKnown(f, "ffffffffffffffff"))
	w.lookup(f)
	l.send("1 " + watchMsg(0, at1) + "\n") // the root: no ZBigFile
	l.expect(notKnown(0, at1.String()))

	// checked first, also for files that are not known
	for _, oid := range []zodb.Oid{f, old} {
		l.send("7 " + watchMsg(oid, before) + "\n")
		want := fmt.Sprintf(`^7 error setup watch f<%s> @%s: too far away back from head/at \(@%s\); δt = [0-9a-z.µ]+$`, oid, before, at1)
		if got := l.line(); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the server sent %q, want %q", got, want)
		}
	}

	created := w.db.Head() + 1<<32/60
	young := w.file(1)
	at3 := w.change(f, 0)
	w.lookup(young)
	l.send("3 " + watchMsg(young, at1) + "\n")
	l.expect(fmt.Sprintf("3 error setup watch f<%s> @%s: file epoch detected @%s in between (at,head=@%s]", young, at1, created, at3))
	l.watch(young, created, nil)

	l.watch(f, at3, nil)
	l.send("1 " + watchMsg(f, at1) + "\n")
	l.expect(fmt.Sprintf("1 error setup watch f<%s> @%s: going back in history is forbidden", f, at1))

	oid, at := f.String(), "@"+at3.String()
	for msg, want := range map[string]string{
		"bla bla":                             `not a watch request: "bla bla"`,
		"":                                    `not a watch request: ""`,
		"ok":                                  `not a watch request: "ok"`,
		"watch\t\x01":                         `not a watch request: "watch\t\x01"`,
		"watch " + oid:                        "expected 2 arguments, got 1",
		"watch " + oid + " a b":               "expected 2 arguments, got 3",
		"watch 2 " + at:                       "invalid oid",
		"watch " + oid + "0 " + at:            "invalid oid",
		"watch @" + oid + " " + at:            "invalid oid",
		"watch " + oid + " " + at[1:]:         "invalid at",
		"watch " + oid + " @1":                "invalid at",
		"watch " + oid + " " + at + "0":       "invalid at",
		"watch " + oid + " @zzzzzzzzzzzzzzzz": "invalid at",
	} {
		l.send("11 " + msg + "\n")
		l.expect("11 error bad watch: " + want)
	}
	l.watch(f, at3, nil) // the link is as good as ever
	l.bye()
}

// What is not a frame, and replies nobody asked for, end the link but not the client.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file(1)
	w.start()
	for line, want := range map[string]string{
		"zzz hello":                  `invalid frame: "zzz hello\n" (invalid stream)`,
		"hello":                      `invalid frame: "hello\n"`,
		"":                           `invalid frame: "\n"`,
		" x":                         `invalid frame: " x\n" (invalid stream)`,
		"-1 x":                       `invalid frame: "-1 x\n" (invalid stream)`,
		"01 x":                       `invalid frame: "01 x\n" (invalid stream)`,
		"1.5 \xff":                   `invalid frame: "1.5 \xff\n" (invalid stream)`,
		"4 ack":                      "4: reply on unexpected stream",
		"0 ack":                      "0: reply on unexpected stream",
		"18446744073709551616 watch": `invalid frame: "18446744073709551616 watch\n" (invalid stream)`,
	} {
		l := w.link()
		l.send(line + "\n")
		l.expect("0 error: " + want)
		l.expect("EOF")
		l.close()
	}
	l := w.link()
	l.send(strings.Repeat("x", 3000)) // a line that never ends is an error at some point, not memory
	for range 20 {
		unix.Write(l.fd, []byte(strings.Repeat("x", 3000)))
	}
	if got := l.line(); !strings.HasPrefix(got, "0 error: invalid frame: ") {
		t.Errorf("a long line: %q", got)
	}
	l.expect("EOF")
	eventually(t, "links to be gone", func() bool { return w.stats()["WatchLink"] <= 1 })
	if n := w.stats()["pinkill"]; n != 0 {
		t.Errorf("pinkill is %d", n)
	}
}

// Streams, pieces of lines, several lines in one write, several links in one process.
func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, g := w.file(3), w.file(1)
	w.start()
	at := w.db.Head()
	w.lookup(f)
	w.lookup(g)
	l := w.link()
	for _, piece := range []string{"18446744073709551615 wat", "ch " + f.String(), " @" + at.String()} {
		l.send(piece)
	}
	l.send("\n")
	l.expect("18446744073709551615 ok")
	l.send("3 " + watchMsg(g, at) + "\n5 nonsense\n")
	got := map[string]bool{l.line(): true, l.line(): true}
	if !got["3 ok"] || !got[`5 error bad watch: not a watch request: "nonsense"`] {
		t.Errorf("the server sent %v", got)
	}

	// each link has its own streams, and its own view
	w.change(f, 0, 1)
	at2 := w.db.Head()
	l2 := w.link()
	l2.watch(f, at2, nil)
	m := w.mmap(headFile(f), 3)
	for i, blk := range []int{1, 0} {
		done := w.access(m, blk)
		streams := l.pins(f, map[int]zodb.Tid{blk: w.rev(f, blk, at)})
		if streams[blk] != uint64(2+2*i) {
			t.Errorf("pin %d came on stream %d", i, streams[blk])
		}
		pending(t, "the read", done)
		l.ack(streams)
		if err := await(t, "the read", done); err != nil {
			t.Fatal(err)
		}
	}
	l2.quiet()

	// a read(2) waits on a descriptor all the time here; more writers at once than one
	texts := make([]<-chan string, 8)
	for i := range texts {
		texts[i] = inBackground(func() string {
			_, err := unix.Write(l2.fd, fmt.Appendf(nil, "%d x\n", 2*i+1))
			return fmt.Sprint(err)
		})
	}
	for _, c := range texts {
		if err := await(t, "a write", c); err != "<nil>" {
			t.Error(err)
		}
		l2.line()
	}

	// two links of one process, each with an outstanding pin at once
	done := w.access(m, 2)
	await(t, "the read", done)
	at3 := w.change(f, 2)
	m2 := w.mmap(headFile(f), 3)
	done = w.access(m2, 2)
	p1 := l.pins(f, map[int]zodb.Tid{2: w.rev(f, 2, at)})
	p2 := l2.pins(f, map[int]zodb.Tid{2: w.rev(f, 2, at2)})
	l2.ack(p2)
	pending(t, "the read", done)
	l.ack(p1)
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	l3 := w.link()
	l3.watch(f, at3, nil)
	if n := w.stats()["WatchLink"]; n != 3 {
		t.Errorf("WatchLink is %d, want 3", n)
	}
	for _, l := range []*stream{l, l2, l3} {
		l.bye()
	}
	eventually(t, "links and watches to be gone", func() bool {
		s := w.stats()
		return s["WatchLink"] == 0 && s["Watch"] == 0 && s["PinnedBlk"] == 0
	})
}

// A forked child has a copy of the descriptor: closing it is nothing.
func TestForkAndReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	w.start()
	at := w.db.Head()
	w.lookup(f)
	l := w.link()
	l.watch(f, at, nil)
	copyFd, err := unix.Dup(l.fd)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("true")
	file := os.NewFile(uintptr(copyFd), "link")
	child.ExtraFiles = []*os.File{file}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file.Close()
	w.change(f, 0)
	done := w.access(w.mmap(headFile(f), 1), 0)
	l.ack(l.pins(f, map[int]zodb.Tid{0: w.t0}))
	await(t, "the read", done)

	// a child that ends with a pin outstanding leaves its parent's link alone too
	sleeper := exec.Command("sleep", "1000")
	copyFd, _ = unix.Dup(l.fd)
	file = os.NewFile(uintptr(copyFd), "link")
	sleeper.ExtraFiles = []*os.File{file}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	l2 := w.link()
	l2.watch(f, w.db.Head(), nil)
	w.change(f, 0)
	done = w.access(w.mmap(headFile(f), 1), 0)
	streams := l2.pins(f, map[int]zodb.Tid{0: w.rev(f, 0, w.db.Head()-1)})
	sleeper.Process.Kill()
	sleeper.Wait()
	l2.ack(streams)
	await(t, "the read", done)
	l.quiet()

	// only to look: nothing can be asked on it, so it is empty, and no link
	if got, err := os.ReadFile(w.at("head/watch")); err != nil || len(got) != 0 {
		t.Errorf("head/watch opened for reading: %q, %v", got, err)
	}
	eventually(t, "links to be counted", func() bool { return w.stats()["WatchLink"] == 2 })
	l.bye()
	l2.bye()
	if n := w.stats()["pinkill"]; n != 0 {
		t.Errorf("pinkill is %d", n)
	}
}

// A watch as of what is not there yet waits for it, and nothing else waits with it.
func TestWaitForHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(1)
	w.start()
	w.lookup(f)
	w.touch(f, 0)
	const second = 1 << 32 / 60
	next := w.db.Head() + second
	l, other, gone := w.link(), w.link(), startClient(t)
	l.send("1 " + watchMsg(f, next) + "\n")
	other.send("1 " + watchMsg(f, next+1000*second) + "\n")
	fd := gone.num("open %s %d", w.at("head/watch"), unix.O_RDWR)
	gone.num("write %d 1 %s", fd, watchMsg(f, next+1000*second))
	l.quiet()
	other.quiet()
	if tid := w.change(f, 0); tid != next {
		t.Fatal(tid)
	}
	l.expect("1 ok")
	other.quiet()
	other.bye()
	gone.expect("0", "close %d", fd)
	l.bye()
	eventually(t, "links to be gone", func() bool { s := w.stats(); return s["WatchLink"] == 0 && s["Watch"] == 0 })
	gone.expect("what is x?", "x") // it lives

	// zhead's line comes after all is applied: a watch as of it never waits, a file of it is there
	for range 20 {
		g := w.file(1)
		w.lookup(g)
		l := w.link()
		l.watch(g, w.db.Head(), nil)
		l.bye()
	}
}

// Requests for other files and links go on while one waits for its pins.
func TestRequestsSideBySide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, g := w.file(2), w.file(1)
	w.start()
	at := w.db.Head()
	w.touch(f, 0, 1)
	w.touch(g, 0)
	w.change(f, 0, 1)
	w.touch(f, 0, 1)
	l := w.link()
	l.send("1 " + watchMsg(f, at) + "\n")
	first := l.pins(f, map[int]zodb.Tid{0: w.t0, 1: w.t0}) // both at once, without an ack in between
	l.send("3 " + watchMsg(g, at) + "\n")
	l.expect("3 ok")
	l.send("5 watch " + f.String() + " -\n") // overtakes, and cancels
	for range 2 {
		switch line := l.line(); {
		case line == "5 ok", strings.HasPrefix(line, "1 error setup watch f<"):
		default:
			t.Errorf("the server sent %q", line)
		}
	}
	for blk, stream := range first { // late replies are ignored, whatever they say
		l.send(fmt.Sprintf("%d %s\n", stream, []string{"ack", "nak"}[blk]))
	}
	l.quiet()
	w.change(f, 0)
	w.touch(f, 0) // waits for nobody
	l.quiet()
	l.watch(f, at, map[int]zodb.Tid{0: w.t0, 1: w.t0}) // anew
	l.bye()
	if n := w.stats()["pinkill"]; n != 0 {
		t.Errorf("pinkill is %d", n)
	}
}
