package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wcfs/t/bench/kit"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// commits are made for each time of a pair, which is their median.
const commits = 10

// writer commits to a file, and waits until that shows.
type writer struct {
	db  *kit.Database
	oid zodb.Oid
	at  string // head/at
	n   int
}

// commit changes one block; it returns when the last byte was written.
func (w *writer) commit() (zodb.Tid, time.Time, error) {
	w.n++
	tx := w.db.DB.Begin()
	tx.Write(w.oid, 3, fmt.Appendf(nil, "commit %d", w.n), zgen.Blk0)
	tid, err := tx.Commit()
	return tid, time.Now(), err
}

// untilShown waits until a file like head/at has come to tid.
func untilShown(ctx context.Context, at string, tid zodb.Tid) error {
	return kit.Poll(at, func(text string) (bool, error) { return text >= tid.String(), context.Cause(ctx) })
}

// shown is the median of the times until head/at shows a commit; before each, prepare is called.
func (w *writer) shown(ctx context.Context, prepare func() error) kit.Run {
	return func() (time.Duration, error) {
		var list []time.Duration
		for range commits {
			if err := prepare(); err != nil {
				return 0, err
			}
			tid, began, err := w.commit()
			if err == nil {
				err = untilShown(ctx, w.at, tid)
			}
			if err != nil {
				return 0, err
			}
			list = append(list, time.Since(began))
		}
		return kit.Median(list), nil
	}
}

// visible waits, in turn, until head/at shows a commit and until Python sees one.
func visible(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	if err := kit.Need(kit.Python, "py5"); err != nil {
		return nil, err
	}
	db, oid, err := b.Filled("", "commit.fs", 16*kit.Blksize, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	m, err := b.Serve(ctx, db.Path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	py, err := startPoller(ctx, db.Path)
	if err != nil {
		return nil, err
	}
	defer py.stop()
	w := &writer{db: db, oid: oid, at: filepath.Join(m.Dir, "head/at")}
	if err := kit.Read(m.Head(oid), 0); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		what    string
		target  float64
		prepare func() error
	}{
		{"commit to head/at, FileStorage", 1, func() error { return nil }},
		{"the same, the changed block being cached whole", 0, func() error {
			if _, err := kit.Cold(m.Head(oid)); err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond) // longer than the grace after a READ
			return nil
		}},
	} {
		p, err := b.Pair(ctx, w.shown(ctx, c.prepare), func() (time.Duration, error) { return py.seen(w) })
		if err != nil {
			return rows, err
		}
		rows = append(rows, p.Cost(c.what, c.target, fmt.Sprintf("other: Python opening the file again and again; medians of %d commits each", commits)))
	}
	return rows, nil
}

// poller is a Python process.
type poller struct {
	in   io.Writer
	out  *bufio.Reader
	stop func()
}

func startPoller(ctx context.Context, path string) (*poller, error) {
	cmd := exec.CommandContext(ctx, kit.Python, "t/bench/poll.py", path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &poller{in, bufio.NewReader(out), func() { in.Close(); _ = cmd.Wait() }}, nil
}

// seen is the median of the times until Python sees a commit.
func (p *poller) seen(w *writer) (time.Duration, error) {
	var list []time.Duration
	for range commits {
		// Which tid comes is not known before, but that it is above the last.
		if _, err := fmt.Fprintln(p.in, w.db.DB.Head()+1); err != nil {
			return 0, err
		}
		if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
			return 0, fmt.Errorf("poll.py: %q, %w", line, err)
		}
		time.Sleep(20 * time.Millisecond) // it is in its loop by then
		_, began, err := w.commit()
		if err != nil {
			return 0, err
		}
		line, err := p.out.ReadString('\n')
		if err != nil {
			return 0, fmt.Errorf("poll.py: %w", err)
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("poll.py: %w", err)
		}
		list = append(list, time.Unix(0, ns).Sub(began))
	}
	return kit.Median(list), nil
}
