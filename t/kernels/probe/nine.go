package probe

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func nineProbes() []Probe {
	return []Probe{
		{Name: "v9fs-padding", Says: "a reply padded to the count asked for ends a read at once, with one Tread",
			Why: "messages of the watch file are delivered in this way", Run: ninePadding},
		{Name: "v9fs-short", Relax: true, Says: "a short reply ends a read",
			Why: "where not, the kernel asks again and a message stays undelivered: so replies are padded", Run: nineShort},
		{Name: "v9fs-nonblock", Relax: true, Says: "with O_NONBLOCK a short reply ends a read",
			Why: "would spare the padding, if all kernels did it", Run: nineNonblock},
		{Name: "v9fs-pread-pwrite", Says: "a pwrite passes while a pread of the same descriptor is blocked",
			Why: "clients in guests read and write the watch file in this way", Run: ninePwrite},
		{Name: "v9fs-position-lock", Relax: true, Says: "a write passes while a read of the same descriptor is blocked",
			Why: "where not, clients with read and write on one descriptor need the heartbeat", Run: ninePosition},
		{Name: "v9fs-flush", Says: "SIGKILL of a blocked reader sends Tflush, and it is dead when the request ends",
			Why: "a guest's process that waits for the server can be killed", Run: nineFlush},
		{Name: "v9fs-read-fresh", Says: "with cache=none a read sees the server's content, also while the page is mapped",
			Why: "guests read head in this way", Run: nineFresh},
		{Name: "v9fs-mmap-fresh", Relax: true, Says: "with cache=none a touched page of a mapping is refreshed when the file changes",
			Why: "as it is not, nothing that changes may be mapped by a guest: bases are immutable", Run: nineMapped},
		{Name: "v9fs-mmap-growth", Relax: true, Says: "with cache=none a mapping past the old size shows what was appended",
			Why: "where it shows zeros, only immutable files may be mapped", Run: nineGrowth},
		{Name: "v9fs-version0", Relax: true, Says: "with cache=loose a file of qid version 0 is read from the server each time",
			Why: "what changes has version 0, so that newer kernels never keep it", Run: nineVersion},
		{Name: "v9fs-size0", Says: "with cache=none a read of a file of size 0 reaches the server",
			Why: "the watch file and head/at say size 0 or change size", Run: nineSize},
		{Name: "v9fs-msize", Says: "over TCP a message may be 1 MiB: an aligned read of 1020 KiB is one Tread",
			Why: "speed; msize=1044504 in the documented mounts", Run: nineMsize},
		{Name: "v9fs-loss", Says: "when the connection ends a blocked read ends with an error, and so does all that follows",
			Why: "a guest that lost its server gets errors, not hangs, and can mount anew", Run: nineLoss},
		{Name: "v9fs-remap-in-fault", Says: "while the first Tread of a page fault is held, another thread maps something else over the page",
			Why: "that is how clients in guests acknowledge a pin", Run: nineRemap},
	}
}

// readMessage reads from a stream whose server answers Treads by reply, once, within d.
func readMessage(e *Env, flags int, reply func(off int64, n int) []byte, d time.Duration) (took time.Duration, ok bool, got []byte, treads int, err error) {
	t := &toyNine{reply: reply}
	t.onRead = func(c readCall) error {
		if c.n > 0 {
			time.Sleep(2 * soon) // there is no second message
		}
		return nil
	}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY|flags)
	if err != nil {
		return 0, false, nil, 0, err
	}
	fd := int(f.Fd())
	if flags&unix.O_NONBLOCK != 0 { // Fd made it blocking
		if err := unix.SetNonblock(fd, true); err != nil {
			return 0, false, nil, 0, err
		}
	}
	buf := make([]byte, page)
	took, ok, err = within(d, func() error {
		n, err := unix.Pread(fd, buf, 0)
		got = buf[:max(n, 0)]
		return err
	})
	if !ok {
		got = nil
	}
	return took, ok, got, len(t.reads()), err
}

const message = "hello\n"

func short(int64, int) []byte { return []byte(message) }
func padded(_ int64, n int) []byte {
	return append([]byte(message), bytes.Repeat([]byte("\n"), max(0, n-len(message)))...)
}

func ninePadding(e *Env) (Verdict, error) {
	reply := padded
	if e.Spoil {
		reply = short
	}
	took, ok, got, treads, err := readMessage(e, 0, reply, 2*time.Second)
	if err != nil {
		return Verdict{}, err
	}
	return answer(ok && bytes.HasPrefix(got, []byte(message)) && treads == 1, "returned: %v (%v), %d bytes, %d Treads", ok, took.Round(time.Millisecond), len(got), treads)
}

func nineShort(e *Env) (Verdict, error) { return shortRead(e, 0) }

func nineNonblock(e *Env) (Verdict, error) { return shortRead(e, unix.O_NONBLOCK) }

func shortRead(e *Env, flags int) (Verdict, error) {
	reply := short
	if e.Spoil { // where short ones end reads, no message at all does not
		reply = func(int64, int) []byte { time.Sleep(2 * soon); return nil }
		if flags == 0 {
			reply = padded
		}
	}
	_, ok, got, treads, err := readMessage(e, flags, reply, time.Second)
	if err != nil {
		return Verdict{}, err
	}
	return answer(ok, "returned: %v, %d bytes, %d Treads", ok, len(got), treads)
}

func ninePwrite(e *Env) (Verdict, error)   { return writeWhileRead(e, !e.Spoil) }
func ninePosition(e *Env) (Verdict, error) { return writeWhileRead(e, e.Spoil) }

// writeWhileRead writes while a read is blocked, at positions or with the descriptor's own.
func writeWhileRead(e *Env, positions bool) (Verdict, error) {
	g := newGate(0)
	t := &toyNine{size: page, onRead: func(c readCall) error { g.wait(c); return nil }}
	f, err := t.startMount(e, "cache=none", unix.O_RDWR)
	if err != nil {
		return Verdict{}, err
	}
	defer g.open()
	fd := int(f.Fd())
	go func() {
		if positions {
			_, _ = unix.Pread(fd, make([]byte, 100), 0)
		} else {
			_, _ = unix.Read(fd, make([]byte, 100))
		}
	}()
	if err := await("the Tread", g.came); err != nil {
		return Verdict{}, err
	}
	took, ok, err := within(time.Second, func() error {
		if positions {
			_, err := unix.Pwrite(fd, []byte("x"), 0)
			return err
		}
		_, err := unix.Write(fd, []byte("x"))
		return err
	})
	if err != nil {
		return Verdict{}, err
	}
	return answer(ok, "write returned: %v (%v)", ok, took.Round(time.Millisecond))
}

func nineFlush(e *Env) (Verdict, error) {
	came := make(chan struct{}, 16)
	t := &toyNine{size: 16 * page}
	t.onRead = func(readCall) error {
		came <- struct{}{}
		select {
		case <-t.flushed:
			if e.Spoil { // who does not listen
				time.Sleep(2 * soon)
			}
			return unix.EINTR
		case <-time.After(2 * soon):
			return nil
		}
	}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	took, dead, err := killChild(func() error { return await("the child's Tread", came) }, "read", f.Name())
	if err != nil {
		return Verdict{}, err
	}
	return answer(dead, "dead: %v, %v after SIGKILL", dead, took.Round(time.Millisecond))
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
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 0); err != nil || b[0] != 1 || m.touch(0) != 1 {
		return Verdict{}, fmt.Errorf("first read: %d, %w", b[0], err)
	}
	t.set(func() { t.value = func(int64) byte { return 50 } })
	if _, err := f.ReadAt(b, 0); err != nil {
		return Verdict{}, err
	}
	return answer(b[0] == 50, "read gives %d, now it is 50, was 1", b[0])
}

func nineMapped(e *Env) (Verdict, error) {
	t := &toyNine{size: 4 * page}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
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
	t.set(func() { t.value = func(int64) byte { return 50 } })
	name := f.Name()
	if e.Spoil { // nobody has it any more
		_, _, _ = unix.Syscall(unix.SYS_MUNMAP, m.addr, 4*page, 0)
		f.Close()
		if f, err = os.Open(name); err != nil {
			return Verdict{}, err
		}
		if m, err = mapFile(f, 4*page); err != nil {
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
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 0); err != nil || b[0] != 1 {
		return Verdict{}, fmt.Errorf("first read: %d, %w", b[0], err)
	}
	t.set(func() { t.value = func(int64) byte { return 50 } })
	if _, err := f.ReadAt(b, 0); err != nil {
		return Verdict{}, err
	}
	return answer(b[0] == 50, "read gives %d, now it is 50, was 1", b[0])
}

func nineSize(e *Env) (Verdict, error) {
	t := &toyNine{reply: padded}
	cache := "cache=none"
	if e.Spoil {
		cache, t.version = "cache=loose", 1
	}
	f, err := t.startMount(e, cache, unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	b := make([]byte, 100)
	n, err := unix.Pread(int(f.Fd()), b, 0)
	return answer(err == nil && n == len(b) && len(t.reads()) > 0, "read gives %d bytes (%v), %d Treads", n, errWord(err), len(t.reads()))
}

func nineMsize(e *Env) (Verdict, error) {
	const n = 255 * page
	t := &toyNine{size: 2 * n}
	options := "cache=none,msize=1044504"
	if e.Spoil {
		options = "cache=none,msize=65560"
	}
	f, err := t.startMount(e, options, unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	if _, err := unix.Pread(int(f.Fd()), make([]byte, n), 0); err != nil {
		return Verdict{}, err
	}
	calls := t.reads()
	return answer(len(calls) == 1, "%d Treads, the first of %d bytes", len(calls), calls[0].size)
}

func nineLoss(e *Env) (Verdict, error) {
	g := newGate(0)
	t := &toyNine{size: page, onRead: func(c readCall) error { g.wait(c); return nil }}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	defer g.open()
	ended := make(chan error, 1)
	go func() { _, err := unix.Pread(int(f.Fd()), make([]byte, 100), 0); ended <- err }()
	if err := await("the Tread", g.came); err != nil {
		return Verdict{}, err
	}
	if !e.Spoil {
		t.stop()
	}
	began := time.Now()
	select {
	case err = <-ended:
	case <-time.After(2 * time.Second):
		return no("the blocked read does not end")
	}
	took := time.Since(began)
	_, later := os.Stat(f.Name())
	umount := unix.Unmount(filepath.Dir(f.Name()), unix.MNT_DETACH)
	return answer(err != nil && errors.Is(later, unix.EIO) && umount == nil, "blocked read: %v in %v, then stat: %v, umount: %v",
		errWord(err), took.Round(time.Millisecond), errWord(later), errWord(umount))
}

func nineRemap(e *Env) (Verdict, error) {
	g := newGate(5)
	t := &toyNine{size: 16 * page, onRead: func(c readCall) error { g.wait(c); return nil }}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	defer g.open()
	return remapInFault(e, f, g)
}
