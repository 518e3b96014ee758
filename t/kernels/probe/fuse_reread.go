package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// span is a time from, to on the kernel's monotonic clock, which processes share.
type span struct{ from, to time.Duration }

func (s span) overlap(o span) time.Duration { return min(s.to, o.to) - max(s.from, o.from) }

func clock() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

// rereadLocked lets an invalidation wait for each page as its READ is answered, and holds second READs of
// a page. A child touches the pages, while a thread of it maps and unmaps all the time: was one of these
// stopped while a second READ was held?
func rereadLocked(e *Env) (Verdict, error) {
	const hold = 60 * time.Millisecond
	rounds := 4000
	if e.Spoil {
		rounds = 250
	}
	var mu sync.Mutex
	times := map[int64]int{} // READs by page; guarded by mu
	var seconds []span       // guarded by mu
	t := &toyFUSE{size: int64(rounds) * page, openFlags: fuse.FOPEN_KEEP_CACHE}
	t.onRead = func(_ context.Context, c readCall) {
		mu.Lock()
		times[c.off]++
		n := times[c.off]
		mu.Unlock()
		switch {
		case n == 1 && !e.Spoil:
			go func() { _ = t.file.NotifyContent(c.off, page) }()
			time.Sleep(3 * time.Millisecond) // for it to wait at the page; whether it does only changes the odds
		case n == 2:
			from := clock()
			time.Sleep(hold)
			mu.Lock()
			seconds = append(seconds, span{from, clock()})
			mu.Unlock()
		}
	}
	if _, err := t.start(e); err != nil {
		return Verdict{}, err
	}
	cmd := Command("/proc/self/exe", "child", "reread", t.path(), fmt.Sprint(rounds), (hold * 3 / 4).String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return Verdict{}, fmt.Errorf("child: %w", err)
	}
	mu.Lock()
	defer mu.Unlock()
	locked := 0
	scan := bufio.NewScanner(bytes.NewReader(out))
	for scan.Scan() {
		var slow span
		if _, err := fmt.Sscan(scan.Text(), (*int64)(&slow.from), (*int64)(&slow.to)); err != nil {
			return Verdict{}, fmt.Errorf("child said %q: %w", scan.Text(), err)
		}
		for _, s := range seconds {
			if slow.overlap(s) > hold*3/4 {
				locked++
			}
		}
	}
	return answer(locked > 0, "%d touches, %d second READs, %d of them held mmap_lock", len(times), len(seconds), locked)
}

// childReread touches pages in turn, for twenty seconds at most, and prints when mapping memory took longer
// than the limit.
func childReread(f *os.File, rounds, limit string) error {
	n, err1 := strconv.Atoi(rounds)
	slow, err2 := time.ParseDuration(limit)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	m, err := mapFile(f, n*page)
	if err != nil {
		return err
	}
	if err := m.random(); err != nil {
		return err
	}
	var stop atomic.Bool
	found := make(chan []span)
	go func() {
		var list []span
		for !stop.Load() {
			from := clock()
			if a, err := anonymous(page); err == nil {
				a.unmap()
			}
			if to := clock(); to-from > slow {
				list = append(list, span{from, to})
			}
			time.Sleep(time.Millisecond) // the touches need the lock too
		}
		found <- list
	}()
	for p, began := 0, time.Now(); p < n && time.Since(began) < 20*time.Second; p++ {
		m.touch(p)
	}
	stop.Store(true)
	for _, s := range <-found {
		fmt.Println(int64(s.from), int64(s.to))
	}
	return nil
}
