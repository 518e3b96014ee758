package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

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

// nineMsizeCap asks for more than there is; spoiled, for less.
func nineMsizeCap(e *Env) (Verdict, error) {
	t := &toyNine{size: page}
	ask := 4 << 20
	if e.Spoil {
		ask = 65560
	}
	if _, err := t.startMount(e, fmt.Sprintf("cache=none,msize=%d", ask), unix.O_RDONLY); err != nil {
		return Verdict{}, err
	}
	got := t.msize.Load()
	return answer(got == 1<<20, "asked for %d, Tversion proposes %d bytes", ask, got)
}

func nineLoss(e *Env) (Verdict, error) {
	g := newGate(0)
	t := &toyNine{size: page, onRead: func(c readCall) error { g.wait(c); return nil }}
	f, err := t.startMount(e, "cache=none", unix.O_RDONLY)
	if err != nil {
		return Verdict{}, err
	}
	defer g.open()
	ended := async(func() error { _, err := unix.Pread(int(f.Fd()), make([]byte, 100), 0); return err })
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
