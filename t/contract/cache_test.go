package contract

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"wcfs/t/isolation/dropcaches"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// What a commit does to the page cache, block by block: what was read and changed is gone from head and
// is there under the revision before, without a READ; all else stays.
func TestCacheAfterCommit(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	w := newWorld(t)
	f, other := w.file(6), w.file(2)
	w.start()
	at0 := w.db.Head()
	m, o := w.mmap(headFile(f), 6), w.mmap(headFile(other), 2)
	m.expectCached("000000", "at first")
	w.check(m, f, at0, 0, 1, 3)
	w.check(o, other, at0, 0, 1)
	m.expectCached("110100", "after reads")
	o.expectCached("11", "after reads")

	at1 := w.change(f, 1, 2, 4)
	m.expectCached("100100", "after a commit")
	o.expectCached("11", "after a commit to another file")
	rev0 := w.mmap(revFile(at0, f), 6)
	rev0.expectCached("010000", "the revision before")
	w.check(rev0, f, at0, 1)

	w.check(m, f, at1, 1, 2)
	m.expectCached("111100", "after reads")
	at2 := w.change(f, 1)
	m.expectCached("101100", "after a second commit")
	w.mmap(revFile(at1, f), 6).expectCached("010000", "the revision between")
	rev0.expectCached("010000", "the oldest revision")
	w.check(m, f, at2, 0, 1, 2, 3, 4, 5)
	w.check(rev0, f, at0, 0, 1, 2, 3, 4, 5)
	m.expectCached("111111", "after all was read")

	// kept over close and reopen, and shared
	m.close()
	m = w.mmap(headFile(f), 6)
	m.expectCached("111111", "after close and open")
	fd, err := unix.Open(w.at(headFile(f)), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m.expectCached("111111", "after a second open")

	// a commit that touches nothing of a file
	w.change(other, 0)
	m.expectCached("111111", "after a commit elsewhere")
	o.expectCached("01", "after a commit there")

	// and can be dropped
	if err := unix.Fadvise(fd, blksize, 2*blksize, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	unix.Madvise(m.mem, unix.MADV_DONTNEED)
	unix.Fadvise(fd, blksize, 2*blksize, unix.FADV_DONTNEED)
	m.expectCached("100111", "after DONTNEED")
	w.check(m, f, w.db.Head(), 0, 1, 2)
}

// One byte of a block may bring the whole of it, and never a page of another; nothing of it but the
// block is dropped.
func TestCacheOfPartialReads(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	w := newWorld(t)
	f := w.file(5)
	w.start()
	at0 := w.db.Head()
	m := w.mmap(headFile(f), 5)
	eventually(t, "the rest of the block", func() bool { return m.partly(2*blksize) && m.cached() == "00100" })
	w.change(f, 2)
	m.expectCached("00000", "after a commit")
	w.mmap(revFile(at0, f), 5).expectCached("00100", "the revision before")

	// part of a block: it is dropped, and what is not there is not made up under its revision
	w.change(f, 4)
	w.check(m, f, w.db.Head(), 4)
	m.expectCached("00001", "after a read")
	eventually(t, "a page to be dropped", func() bool { // an upload of the block may be under way
		unix.Madvise(m.mem, unix.MADV_DONTNEED)
		unix.Fadvise(m.fd, 4*blksize, page, unix.FADV_DONTNEED)
		return m.cached() == "0000p"
	})
	before := w.rev(f, 4, w.db.Head())
	w.change(f, 4)
	m.expectCached("00000", "after a commit")
	rev := w.mmap(revFile(before, f), 5)
	if got := rev.cached(); got != "00000" && got != "00001" { // the latter if the upload ended meanwhile
		t.Errorf("the revision before: %s", got)
	}
	w.check(rev, f, before, 4)
}

// partly has two pages at off read from the server, though they may be cached. That the whole block is
// brought then is a help which the server may leave out when it is busy. It returns true.
func (m *mapping) partly(off int) bool {
	m.t.Helper()
	if vec := make([]byte, 1); mincore(m.mem[off+2*page:off+3*page], vec) != nil || vec[0]&1 != 0 {
		return true // it is there
	}
	unix.Madvise(m.mem, unix.MADV_DONTNEED)
	unix.Fadvise(m.fd, int64(off), 2*page, unix.FADV_DONTNEED)
	for i := range 2 {
		if _, err := m.copy(off+i*page, 1); err != nil {
			m.t.Fatal(err)
		}
	}
	return true
}

// Holes are cached as zeros, and dropped when they become data; and the other way round.
func TestCacheOfHoles(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	w := newWorld(t)
	f := w.file(2)
	w.change(f, 4)
	w.start()
	at0 := w.db.Head()
	m := w.mmap(headFile(f), 5)
	w.check(m, f, at0, 0, 2, 3)
	m.expectCached("10110", "after reads of holes")
	l := w.link()
	l.watch(f, at0, nil)
	at1 := w.change(f, 2)
	m.expectCached("10010", "after a hole became data")
	w.mmap(revFile(at0, f), 5).expectCached("00100", "the hole under its revision")
	done := w.access(m, 2)
	l.ack(l.pins(f, map[int]zodb.Tid{2: at0}))
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	w.check(m, f, at1, 2)
	l.watch(f, at1, map[int]zodb.Tid{2: toHead})
	at2 := w.commit(func(tx *zgen.Tx) { tx.Punch(f, 2) })
	m.expectCached("10010", "after data became a hole")
	w.mmap(revFile(at1, f), 5).expectCached("00100", "the data under its revision")
	done = w.access(m, 2)
	l.ack(l.pins(f, map[int]zodb.Tid{2: at1}))
	if err := await(t, "the read", done); err != nil {
		t.Fatal(err)
	}
	w.check(m, f, at2, 2)
	w.check(w.mmap(revFile(at0, f), 5), f, at0, 2)
	l.bye()
}

// A file that grows, shrinks and grows again, mapped past its end all the time: a stat right after the
// zhead line shows the size, the cache of what is inside survives, and there are no old bytes.
func TestCacheAndSize(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	w := newWorld(t)
	f := w.file(2)
	w.start()
	m := w.mmap(headFile(f), 8)
	w.check(m, f, w.db.Head(), 0, 1)
	if _, err := m.copy(3*blksize, 1); err != unix.EFAULT {
		t.Errorf("access past the end: %v, want EFAULT, which is SIGBUS", err)
	}
	size := func(want int) {
		t.Helper()
		if got := w.size(f); got != int64(want)*blksize {
			t.Fatalf("the size is %d, want %d blocks", got, want)
		}
	}
	size(2)
	for round := range 20 {
		w.change(f, 3)
		size(4)
		m.expectCached("11000000", "after growth")
		w.check(m, f, w.db.Head(), 2, 3)
		m.expectCached("11110000", "after reads")
		w.change(f, 7)
		size(8)
		m.expectCached("11110000", "after more growth")
		w.check(m, f, w.db.Head(), 7)
		w.commit(func(tx *zgen.Tx) { tx.Truncate(f, 2) })
		size(2)
		m.expectCached("11000000", "after it shrank")
		if round%2 == 0 {
			if _, err := m.copy(3*blksize, 1); err != unix.EFAULT {
				t.Errorf("access past the end: %v, want EFAULT", err)
			}
		}
	}
	if n := w.stats()["BigFile"]; n != 1 {
		t.Errorf("BigFile is %d", n)
	}
}

// Blocks of 2 MiB, as they are in use; data shorter than the block; both block formats.
func TestCacheOfBigBlocks(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	const big = 2 << 20
	w := newWorld(t)
	var f zodb.Oid
	put := func(n byte, kinds ...zgen.Kind) zodb.Tid {
		return w.commit(func(tx *zgen.Tx) {
			if f == 0 {
				f = tx.NewFile(big)
			}
			for blk, kind := range kinds {
				data := make([]byte, big-1000*blk)
				for i := range data {
					data[i] = n + byte(i%7)
				}
				tx.Write(f, zdata.Blk(blk), data, kind)
			}
		})
	}
	put(1, zgen.Blk0, zgen.Blk1, zgen.Blk0)
	w.start()
	at := w.db.Head()
	m := w.mmap(headFile(f), 3*big/blksize)
	pages := func(m *mapping) (s string) {
		cached := m.cached()
		for blk := range 3 {
			part := cached[blk*big/blksize : (blk+1)*big/blksize]
			c := part[:1]
			for i := range part {
				if part[i:i+1] != c {
					c = "p"
				}
			}
			s += c
		}
		return s
	}
	eventually(t, "the rest of the block", func() bool { return m.partly(big+77*blksize) && pages(m) == "010" })
	put(2, zgen.Blk0, zgen.Blk1)
	if got := pages(m); got != "000" {
		t.Errorf("after a commit: %s", got)
	}
	rev := w.mmap(revFile(at, f), 3*big/blksize)
	if got := pages(rev); got != "010" {
		t.Errorf("the revision before: %s", got)
	}
	got, err := rev.copy(big, big)
	if want := w.db.Data(f, 1, at); err != nil || string(got) != string(want) {
		t.Errorf("block 1 is not as of @%s (%v)", at, err)
	}
	for blk := range 3 {
		got, err := m.copy(blk*big, big)
		if want := w.db.Data(f, zdata.Blk(blk), w.db.Head()); err != nil || string(got) != string(want) {
			t.Errorf("block %d is not as of head (%v)", blk, err)
		}
	}
}

// Fifty commits in a row to what is read all the time: the page cache is never older than zhead says.
func TestCacheNeverBehind(t *testing.T) {
	t.Parallel()
	dropcaches.HoldOff(t)
	w := newWorld(t)
	f := w.file(3)
	w.start()
	m := w.mmap(headFile(f), 3)
	for i := range 50 {
		at := w.db.Head()
		w.check(m, f, at, 0, 1, 2)
		w.change(f, i%3)
		rev := w.mmap(revFile(w.rev(f, i%3, at), f), 3)
		if c := rev.cached(); c[i%3] != '1' {
			t.Fatalf("commit %d: the old block %d was not kept: %s", i, i%3, c)
		}
		rev.close()
	}
	// as many revisions as there were, and they can be had in any order
	if n := w.stats()["RevHead"]; n < 2 {
		t.Errorf("RevHead is %d", n)
	}
	w.check(w.mmap(revFile(w.t0, f), 3), f, w.t0, 2, 1, 0)
	names, err := os.ReadDir(filepath.Join(w.mnt, "head/bigfile"))
	if err != nil || len(names) != 1 || names[0].Name() != f.String() {
		t.Errorf("head/bigfile has %v, %v", names, err)
	}
}
