package contract

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/t/py"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// mtimes are those that Python clients compute from tids: equal as floats, not just near.
func TestMtimeAsPythonHasIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.file(2)
	w.start()
	w.touch(f, 0)
	var asked strings.Builder
	stat := func(tid zodb.Tid, rel string) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(w.at(rel), &st); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&asked, "%s %d %d\n", tid, st.Mtim.Sec, st.Mtim.Nsec)
	}
	stat(w.db.Head(), headFile(f)) // at first: of the ZBigFile object
	for range 100 {
		tx := w.db.Begin()
		w.write(tx, f, 0)
		tid, err := tx.CommitAt(w.db.Head() + 1 + zodb.Tid(w.rng.Uint64N(1<<34)))
		if err != nil {
			t.Fatal(err)
		}
		w.zh.expect(tid.String())
		for _, rel := range []string{headFile(f), "head", ".", "head/bigfile", "@" + tid.String()} {
			stat(tid, rel)
		}
		w.touch(f, 0)
	}
	for range 500 {
		const from = 0x0240 << 48 // in 1970
		tid := from + zodb.Tid(w.rng.Uint64N(uint64(w.db.Head()-from)))
		if tid>>32/(24*60)%31 >= 28 {
			continue // there may be no such day
		}
		fmt.Fprintf(&asked, "%s %s\n", tid, w.at("@"+tid.String()))
	}
	cmd := py.Command(t, py.Py5, "../contract/mtime.py")
	cmd.Stdin = strings.NewReader(asked.String())
	out, err := cmd.Output()
	if want := fmt.Sprintf("%d checked\n", strings.Count(asked.String(), "\n")); err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is known to have changed a file is its mtime: data of a block that was read, size, and that a key next
// to those of blocks that were read came or went. What nobody looked at is not known.
func TestMtimeOfWhatIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f, other := w.file(4), w.file(1)
	w.change(f, 9)
	w.start()
	mtime := func(want zodb.Tid, after string) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(w.at(headFile(f)), &st); err != nil {
			t.Fatal(err)
		}
		if got := want.StatTime(); st.Mtim.Sec != got.Unix() || st.Mtim.Nsec != int64(got.Nanosecond()) {
			t.Errorf("%s: mtime is %d.%09d, want that of @%s", after, st.Mtim.Sec, st.Mtim.Nsec, want)
		}
	}
	bf, _ := w.db.File(f, w.db.Head())
	mtime(bf.Serial, "first look")
	w.touch(f, 1)
	mtime(bf.Serial, "a read")
	mtime(w.change(f, 1), "a block that was read changed")
	last := w.change(f, 20)
	mtime(last, "growth")
	w.change(other, 0)
	mtime(last, "another file changed")
	mtime(w.change(f, 5), "a hole that nobody read became data")
	mtime(w.commit(func(tx *zgen.Tx) { tx.Punch(f, 5) }), "data that nobody read became a hole")
	last = w.commit(func(tx *zgen.Tx) { tx.Truncate(f, 2) })
	mtime(last, "it shrank")
}
