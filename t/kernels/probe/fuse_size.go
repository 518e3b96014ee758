package probe

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// pastEnd reads up to the end of a file and past it, and again when it has grown. Spoiled, the server said
// the larger size from the start and answered by nothing where it had no data yet.
func pastEnd(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 8 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	if e.Spoil {
		t.size, t.end = 16*page, 8*page
	}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	before, err := f.ReadAt(make([]byte, 16*page), 0)
	if before < 8*page {
		return Verdict{}, fmt.Errorf("read before growth: %d bytes, %w", before, err)
	}
	t.set(func() { t.end = 0 })
	if err := t.grow(16 * page); err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 16, t.value); err != nil {
		return no("%v", err)
	}
	m, err := mapFile(f, 16*page)
	if err != nil {
		return Verdict{}, err
	}
	wrong := 0
	for p := range 16 {
		if m.touch(p) != t.value(int64(p)) {
			wrong++
		}
	}
	return answer(wrong == 0, "%d of 8 appended pages are wrong", wrong)
}

func grownMapping(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 4 * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	m, err := mapFile(f, 8*page)
	if err != nil {
		return Verdict{}, err
	}
	before, early := m.touchable(6)
	if early {
		return Verdict{}, fmt.Errorf("a page past the end reads %d", before)
	}
	grown := int64(8 * page)
	if e.Spoil {
		grown = 4 * page
	}
	if err := t.grow(grown); err != nil {
		return Verdict{}, err
	}
	got, ok := m.touchable(6)
	return answer(ok && got == t.value(6), "the page is mapped: %v; it reads %d, the server has %d", ok, got, t.value(6))
}

func zeroPages(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 * page, openFlags: fuse.FOPEN_KEEP_CACHE, short: page}
	if e.Spoil {
		t.short = 0
	}
	f, err := t.start(e)
	if err != nil {
		return Verdict{}, err
	}
	b := make([]byte, 8*page)
	if _, err := f.ReadAt(b, 0); err != nil && e.Spoil {
		return Verdict{}, err
	}
	t.set(func() { t.short = 0 })
	if _, err := f.Stat(); err != nil { // brings the size back
		return Verdict{}, err
	}
	before := len(t.reads())
	m, err := mapFile(f, 8*page)
	if err != nil {
		return Verdict{}, err
	}
	zeros := 0
	for p := range 8 {
		if m.touch(p) == 0 {
			zeros++
		}
	}
	return answer(zeros > 0, "%d of 8 pages are zeros, %d READs when touched", zeros, len(t.reads())-before)
}

func readSize(e *Env) (Verdict, error) {
	t := &toyFUSE{size: 16 << 20, openFlags: fuse.FOPEN_KEEP_CACHE}
	if err := t.mount(e, nil); err != nil {
		return Verdict{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(t.dir, &st); err != nil {
		return Verdict{}, err
	}
	if !e.Spoil {
		bdi := filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), "read_ahead_kb")
		if err := os.WriteFile(bdi, []byte("1024"), 0o644); err != nil {
			return Verdict{}, err
		}
	}
	f, err := t.open(unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	if err := readPages(f, 16<<20/page, t.value); err != nil {
		return Verdict{}, err
	}
	most := 0
	for _, c := range t.reads() {
		most = max(most, c.size)
	}
	return answer(most == 1<<20, "largest READ: %d KiB", most>>10)
}
