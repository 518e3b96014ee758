package probe

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

func nineRuns() map[string]run {
	runs := map[string]run{
		"v9fs-padding": ninePadding, "v9fs-short": shortRead(0), "v9fs-nonblock": shortRead(unix.O_NONBLOCK), "v9fs-direct-short": shortRead(unix.O_DIRECT),
		"v9fs-pread-pwrite": ninePwrite, "v9fs-position-lock": ninePosition, "v9fs-size0": nineSize,
		"v9fs-read-fresh": nineFresh, "v9fs-direct-fresh": nineDirect, "v9fs-mmap-growth": nineGrowth, "v9fs-version0": nineVersion,
		"v9fs-flush": nineFlush, "v9fs-loss": nineLoss, "v9fs-remap-in-fault": nineRemap, "v9fs-msize": nineMsize, "v9fs-msize-cap": nineMsizeCap,
	}
	for _, mode := range []string{"none", "mmap", "readahead", "loose", "fscache"} {
		runs["v9fs-mapped-"+mode] = nineMapped(mode)
	}
	return runs
}

// readMessage reads from a stream whose server answers Treads by reply, once, within d; reply nil: never.
func readMessage(e *Env, flags int, reply func(off int64, n int) []byte, d time.Duration) (took time.Duration, ok bool, got []byte, treads int, err error) {
	t := &toyNine{reply: reply}
	t.onRead = func(c readCall) error {
		if c.n > 0 || reply == nil {
			time.Sleep(2 * soon) // there is no further message
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
	m, err := anonymous(page) // aligned, for O_DIRECT
	if err != nil {
		return 0, false, nil, 0, err
	}
	buf := m.b
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

// shortRead asks whether a short reply ends a read with such open(2) flags.
func shortRead(flags int) run {
	return func(e *Env) (Verdict, error) {
		reply := short
		if e.Spoil {
			reply = padded
			if flags == unix.O_NONBLOCK { // where short ones end reads, no message at all does not
				reply = nil
			}
		}
		_, ok, got, treads, err := readMessage(e, flags, reply, time.Second)
		if err != nil {
			return Verdict{}, err
		}
		return answer(ok, "returned: %v, %d bytes, %d Treads", ok, len(got), treads)
	}
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
