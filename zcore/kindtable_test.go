package zcore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// caller is a place that loads through Core.retry. start makes its situation and returns which loads are to fail, and
// what is then to be done; that returns "served" when all is as it would be without a failure.
type caller struct {
	name   string
	start  func(w *world) (fails func(oid zodb.Oid, at zodb.Tid) bool, do func() string)
	answer string // what do returns after an answer
}

// waitFor is announced for goroutines other than the test's.
func (w *world) waitFor(tid zodb.Tid) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	return w.core.waitHead(ctx, tid)
}

// afterwards tells how another file is once head has reached a commit.
func (w *world) afterwards(tid zodb.Tid, f zodb.Oid, h *HeadFile) string {
	if err := w.waitFor(tid); err != nil {
		return "head does not move: " + err.Error()
	}
	d, err := h.Read(context.Background(), w.core.Host(), 10, 0)
	if d.Done != nil {
		d.Done()
	}
	switch {
	case errors.Is(err, ErrIO):
		return "the file fails"
	case err != nil:
		return err.Error()
	}
	return "served"
}

func callers() []caller {
	other := func(w *world) (g zodb.Oid, h *HeadFile) {
		g = w.newFile()
		if err := w.readOf(g); err != nil {
			w.t.Fatal(err)
		}
		h, _ = w.core.Lookup(context.Background(), g)
		return g, h
	}
	blktab := func(w *world, f zodb.Oid) zodb.Oid {
		bf, _ := w.db.File(f, w.db.Head())
		return bf.Blktab
	}
	return []caller{
		{"check files", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			g, h := other(w)
			before := w.db.Head()
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == g && at > before }, func() string {
				w.gapNext = true // all known files are looked at
				return w.afterwards(w.write(map[Blk]string{0: "a1"}), g, h)
			}
		}, "the file fails"},
		{"delta", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			g, h := other(w)
			before, node := w.db.Head(), blktab(w, g)
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == node && at > before }, func() string {
				return w.afterwards(w.tx(func(tx *zgen.Tx) { tx.Write(g, 1, []byte("y"), zgen.Blk0) }), g, h)
			}
		}, "the file fails"},
		{"delta in a gap", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			g, h := other(w)
			before, node := w.db.Head(), blktab(w, g)
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == node && at > before }, func() string {
				w.gapNext = true
				return w.afterwards(w.write(map[Blk]string{0: "a1"}), g, h)
			}
		}, "the file fails"},
		{"watch", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			at1 := w.db.Head()
			at2 := w.commit(map[Blk]string{1: "b2"})
			w.commit(map[Blk]string{0: "a3"})
			w.want(0, "a3") // tracked only now
			l, node := w.link(), blktab(w, w.f)
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == node && at <= at2 }, func() string {
				return l.pinnedTo(fmt.Sprintf("watch %s @%s", w.f, at2), at1, at2)
			}
		}, "pinned to its at"},
		{"base watch", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			base := w.db.Head()
			at1 := w.commit(map[Blk]string{0: "a1"})
			at2 := w.commit(map[Blk]string{1: "b2"})
			w.commit(map[Blk]string{2: "c3"})
			g := w.guest("g")
			g.want(base, 0, "a0")
			l, node := g.link(), blktab(w, w.f)
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == node && at > base && at <= at2 }, func() string {
				return l.pinnedTo(fmt.Sprintf("watch %s @%s base @%s", w.f, at2, base), at1, at2)
			}
		}, "pinned to its at"},
		{"pin", func(w *world) (func(zodb.Oid, zodb.Tid) bool, func() string) {
			at0 := w.db.Head()
			w.want(0, "a0")
			l := w.link()
			w.wantPins(l.pins(w.f, at0), nil)
			w.commit(map[Blk]string{0: "a1"})
			return func(oid zodb.Oid, at zodb.Tid) bool { return oid == w.f && at == at0 }, func() string {
				read := background(func() error { return w.readOf(w.f) })
				if line, err := l.line(); line != fmt.Sprintf("2 pin %s #0 @%s", w.f, at0) {
					return fmt.Sprint(line, err)
				}
				l.send("2 ack")
				if err := <-read; err != nil {
					return err.Error()
				}
				return "served"
			}
		}, "served"}, // the client finds out when it opens the file
	}
}

// line is recv for goroutines other than the test's.
func (tl *testLink) line() (string, error) {
	for !strings.Contains(tl.part, "\n") {
		p, err := tl.l.Read(context.Background(), 100)
		if err != nil || len(p) == 0 {
			return "", fmt.Errorf("the link ends: %w", err)
		}
		tl.part += string(p)
	}
	var line string
	line, tl.part, _ = strings.Cut(tl.part, "\n")
	return line, nil
}

// pinnedTo sets a watch up and tells how block 0 was pinned: right, to where it was changed last, or to the at of the
// watch, which shows the same.
func (tl *testLink) pinnedTo(request string, right, at zodb.Tid) string {
	tl.send("1 %s", request)
	got := "no pin"
	for {
		line, err := tl.line()
		if err != nil {
			return err.Error()
		}
		stream, msg, _ := strings.Cut(line, " ")
		_, rev, pin := strings.Cut(msg, "#0 @")
		switch {
		case line == "1 ok":
			return got
		case !pin:
			return line
		case rev == right.String():
			got = "served"
		case rev == at.String():
			got = "pinned to its at"
		default:
			got = line
		}
		tl.send("%s ack", stream)
	}
}

// TestKindsAndCallers is the table of what follows: each caller of Core.retry, with each kind of error. In every case but
// the last, other files are served and head moves on afterwards.
func TestKindsAndCallers(t *testing.T) {
	for _, c := range callers() {
		for _, cause := range []error{
			zodb.Answer(errors.New("an answer")), &zodb.DataError{Msg: "damaged"}, errors.New("unknown"),
			zodb.Outage(errors.New("an outage")), zodb.OtherDatabase(errors.New("another database")),
		} {
			t.Run(fmt.Sprintf("%s, %v", c.name, cause), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, Options{NodeBytes: 1}, map[Blk]string{0: "a0"})
				fails, do := c.start(w)
				var failed atomic.Int64
				w.stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, at zodb.Tid) error {
					if fails(oid, at) {
						failed.Add(1)
						return cause
					}
					return nil
				})
				got := make(chan string, 1)
				go func() { got <- do() }()
				switch zodb.KindOf(cause) {
				case zodb.KindOtherDatabase:
					w.must("EIO mode", w.core.Failed())
					if !errors.Is(w.core.Err(), cause) {
						t.Errorf("EIO mode for %v", w.core.Err())
					}
					<-got
					return
				case zodb.KindOutage:
					eventually(t, "a few tries", func() bool { return failed.Load() >= 3 })
					mustNot(t, "it ends in an outage", got)
					if w.core.reachable() {
						t.Error("the clocks of pins run in an outage")
					}
					w.stor.SetLoadHook(nil)
					if s := <-got; s != "served" {
						t.Errorf("after the outage: %s", s)
					}
				default:
					if s := <-got; s != c.answer {
						t.Errorf("after an answer: %s; want %s", s, c.answer)
					}
					if !w.core.reachable() {
						t.Error("the clocks of pins stand still for an answer")
					}
				}
				if failed.Load() == 0 {
					t.Error("nothing failed: the table is wrong")
				}
				w.announced(w.write(map[Blk]string{3: "d"}))
				if w.core.isFailed() {
					t.Error("EIO mode")
				}
			})
		}
	}
}

// db/26: after a pack the storage gives the oid of an array that was dropped, of its table or of one of its blocks to
// another object. What had the oid fails, no more than that, and head moves on.
func TestOidGivenToAnotherObject(t *testing.T) {
	for name, oidOf := range map[string]func(w *world, g zodb.Oid) zodb.Oid{
		"the array": func(_ *world, g zodb.Oid) zodb.Oid { return g },
		"its table": func(w *world, g zodb.Oid) zodb.Oid {
			bf, _ := w.db.File(g, w.db.Head())
			return bf.Blktab
		},
		"its block": func(w *world, g zodb.Oid) zodb.Oid { return w.db.Zblk(g, 0, w.db.Head()) },
	} {
		for what, rec := range map[string][]byte{
			"a mapping": []byte("cpersistent.mapping\nPersistentMapping\nq\x01.}q\x02U\x04dataq\x03}q\x04s."),
			"no pickle": []byte(".exxx"),
			"nothing":   nil,
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, Options{}, map[Blk]string{0: "a0"})
				w.want(0, "a0")
				g := w.newFile()
				w.announced(w.tx(func(tx *zgen.Tx) { tx.Write(g, 1, []byte("y"), zgen.Blk0) }))
				h, err := w.core.Lookup(context.Background(), g)
				if err != nil {
					t.Fatal(err)
				}
				read := func(blk int64) error {
					d, err := h.Read(context.Background(), w.core.Host(), 10, blk*testBlksize)
					if d.Done != nil {
						d.Done()
					}
					return err
				}
				if err := errors.Join(read(0), read(1)); err != nil {
					t.Fatal(err)
				}
				tid := w.db.Head() + 1
				if err := w.stor.Commit(tid, map[zodb.Oid][]byte{oidOf(w, g): rec}); err != nil {
					t.Fatal(err)
				}
				w.announced(tid)
				if err := read(0); !errors.Is(err, ErrIO) {
					t.Errorf("read of what had the oid: %v", err)
				}
				if err := read(1); (err == nil) != (name == "its block") {
					t.Errorf("read of another block: %v", err)
				}
				w.commit(map[Blk]string{0: "a1"})
				w.want(0, "a1")
				if !w.core.reachable() || w.core.isFailed() {
					t.Error("it is taken for an outage")
				}
			})
		}
	}
}
