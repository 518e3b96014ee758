package probe

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// change has the server's file hold 50 in every page.
func (t *toyNine) change() {
	t.set(func() { t.value = func(int64) byte { return 50 } })
}

// rereads reads page 0, changes it, and reads it again through another descriptor: is it the new one?
func (t *toyNine) rereads(first, again *os.File) (Verdict, error) {
	m, err := anonymous(page) // aligned, for O_DIRECT
	if err != nil {
		return Verdict{}, err
	}
	if _, err := first.ReadAt(m.b, 0); err != nil || m.b[0] != 1 {
		return Verdict{}, fmt.Errorf("first read: %d, %w", m.b[0], err)
	}
	t.change()
	if _, err := again.ReadAt(m.b, 0); err != nil {
		return Verdict{}, err
	}
	return answer(m.b[0] == 50, "read gives %d, now it is 50, was 1", m.b[0])
}

func nineFresh(e *Env) (Verdict, error) {
	cache := "cache=none"
	t := &toyNine{size: 4 * page}
	if e.Spoil {
		cache, t.version = "cache=loose", 1
	}
	f, err := t.startMount(e, cache, unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	m, err := mapFile(f, 4*page)
	if err != nil {
		return Verdict{}, err
	}
	if got := m.touch(0); got != 1 {
		return Verdict{}, fmt.Errorf("first touch: %d", got)
	}
	return t.rereads(f, f)
}

func nineVersion(e *Env) (Verdict, error) {
	t := &toyNine{size: 4 * page}
	cache := "cache=loose"
	if e.Spoil {
		cache = "cache=none"
	}
	f, err := t.startMount(e, cache, unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	return t.rereads(f, f)
}

func nineDirect(e *Env) (Verdict, error) {
	t := &toyNine{size: 4 * page, version: 1}
	f, err := t.startMount(e, "cache=loose", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	flags := unix.O_RDONLY | unix.O_DIRECT
	if e.Spoil {
		flags = unix.O_RDONLY
	}
	again, err := os.OpenFile(f.Name(), flags, 0)
	if err != nil {
		return Verdict{}, err
	}
	return t.rereads(f, again)
}

// nineMapped touches a mapped page before and after the server's file changes, on a mount with that cache
// mode. Between, what a program may try that wants it fresh. Spoiled, nobody has the file in the meantime,
// and the page cache is dropped.
func nineMapped(mode string) run {
	return func(e *Env) (Verdict, error) {
		t := &toyNine{size: 4 * page}
		f, err := t.startMount(e, "cache="+mode, unix.O_RDONLY)
		if errors.Is(err, unix.EINVAL) {
			return Verdict{Absent: true, Seen: "no such cache mode"}, nil
		}
		if err != nil {
			return Verdict{}, err
		}
		m, err := mapFile(f, 4*page)
		if err != nil {
			return Verdict{}, err
		}
		if got := m.touch(0); got != 1 {
			return Verdict{}, fmt.Errorf("first touch: %d", got)
		}
		t.change()
		name := f.Name()
		if e.Spoil {
			if f, m, err = reopened(f, m); err != nil {
				return Verdict{}, err
			}
		}
		if _, err := os.Stat(name); err != nil {
			return Verdict{}, err
		}
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		_ = unix.Madvise(m.b, unix.MADV_DONTNEED)
		got := m.touch(0)
		return answer(got == 50, "page reads %d, now it is 50, was 1", got)
	}
}

// reopened gives a file and its mapping up, drops the page cache, and makes both anew.
func reopened(f *os.File, m mapping) (*os.File, mapping, error) {
	m.unmap()
	f.Close()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		return nil, m, err
	}
	again, err := os.Open(f.Name())
	if err != nil {
		return nil, m, err
	}
	m, err = mapFile(again, len(m.b))
	return again, m, err
}

func nineGrowth(e *Env) (Verdict, error) {
	t := &toyNine{size: 4 * page}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	first, err := mapFile(f, 4*page)
	if err != nil {
		return Verdict{}, err
	}
	first.touch(3)
	t.set(func() {
		t.size = 8 * page
		if e.Spoil {
			t.value = func(int64) byte { return 0 }
		}
	})
	if st, err := os.Stat(f.Name()); err != nil || st.Size() != 8*page {
		return no("stat does not see the growth: %v, %v", st, err)
	}
	g, err := os.Open(f.Name())
	if err != nil {
		return Verdict{}, err
	}
	m, err := mapFile(g, 8*page)
	if err != nil {
		return Verdict{}, err
	}
	got := m.touch(6)
	return answer(got == 7, "page 6 reads %d, the server has 7", got)
}
