// Package bench measures reads over RelStorage. Package t/bench prints the rows.
package bench

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wcfs/t/rel"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
)

// Row is one comparison, made in turn in one run; figures are medians. Ratio is how many times as good
// ours is.
type Row struct {
	What, Ours, Other string
	Ratio, Target     float64
	Note              string
}

const (
	pairs   = 5
	blocks  = 64
	blksize = 2 << 20
	commits = 40
)

// Rows makes a PostgreSQL server with a file of 128 MiB and measures.
func Rows(ctx context.Context) ([]Row, error) {
	d, err := rel.NewDatabases(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	name, _, err := d.Postgres()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "wcfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := &bench{url: d.PG.URL(name), storage: "postgresql:" + d.PG.DSN(name), mnt: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(b.mnt, 0o755); err != nil {
		return nil, err
	}
	if b.bin, err = rel.BuildWCFS(ctx, dir); err != nil {
		return nil, err
	}
	oid, err := rel.BigFileOutput(ctx, "make", b.storage, fmt.Sprint(blocks))
	if err != nil {
		return nil, err
	}
	b.oid = strings.TrimSpace(oid)
	if err := d.PG.Exec(ctx, name, "ANALYZE"); err != nil {
		return nil, err
	}
	rows, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	visible, err := b.visible(ctx, d, name)
	return append(rows, visible), err
}

type bench struct {
	bin, url, storage, mnt, oid string
}

func (b *bench) mount(ctx context.Context) (*rel.Mount, error) {
	return rel.NewMount(ctx, exec.Command(b.bin, "serve", "--mount", b.mnt, b.url), b.mnt)
}

// read compares loads by the driver, and a cold sequential read of a mount, with a Python process that
// loads the same blocks.
func (b *bench) read(ctx context.Context) ([]Row, error) {
	var load, mount, python, loadRatio, mountRatio []float64
	var rss int64
	for range pairs {
		l, err := b.load(ctx)
		if err != nil {
			return nil, err
		}
		m, sum, kb, err := b.readMount(ctx)
		if err != nil {
			return nil, err
		}
		out, err := rel.BigFileOutput(ctx, "time", b.storage)
		if err != nil {
			return nil, err
		}
		var p float64
		var pysum string
		if _, err := fmt.Sscan(out, &p, &pysum); err != nil || pysum != sum {
			return nil, fmt.Errorf("wcfs read %s, Python %s, %v", sum, pysum, err)
		}
		load, mount, python = append(load, l), append(mount, m), append(python, p)
		loadRatio, mountRatio = append(loadRatio, p/l), append(mountRatio, p/m)
		rss = max(rss, kb)
	}
	return []Row{{
		What: "cold loads over RelStorage PostgreSQL, against Python RelStorage loading the same blocks",
		Ours: speed(load), Other: speed(python), Ratio: median(loadRatio), Target: 3,
		Note: fmt.Sprintf("the driver alone, one load after another; %d blocks of 2 MiB, Unix socket", blocks),
	}, {
		What: "cold sequential read of a mount over RelStorage PostgreSQL, against the same",
		Ours: speed(mount), Other: speed(python), Ratio: median(mountRatio), Target: 3,
		Note: fmt.Sprintf("a block: %s to load it, then %s to hand it over; resident memory after %d MiB: %d MiB",
			perBlock(median(load)), perBlock(median(mount)-median(load)), blocks*blksize>>20, rss>>10),
	}}, nil
}

func perBlock(seconds float64) string { return fmt.Sprintf("%.1f ms", 1000*seconds/blocks) }

// load loads all blocks one after another, and tells the seconds that took.
func (b *bench) load(ctx context.Context) (seconds float64, err error) {
	s, err := relstorage.Open(ctx, b.url, relstorage.Options{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	head, err := s.Head(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	err = s.Oids(ctx, head, func(oid zodb.Oid) error {
		t := time.Now()
		rec, err := s.LoadAt(ctx, oid, head)
		if len(rec.Data) > blksize { // not a node of the tree
			n++
			seconds += time.Since(t).Seconds()
		}
		return err
	})
	if err == nil && n != blocks {
		err = fmt.Errorf("%d blocks, not %d", n, blocks)
	}
	return seconds, err
}

// readMount reads the file through a new mount, and tells the seconds, the SHA-256 and the server's
// resident KiB.
func (b *bench) readMount(ctx context.Context) (seconds float64, sum string, rss int64, err error) {
	m, err := b.mount(ctx)
	if err != nil {
		return 0, "", 0, err
	}
	defer m.Close()
	f, err := os.Open(filepath.Join(b.mnt, "head/bigfile", b.oid))
	if err != nil {
		return 0, "", 0, err
	}
	defer f.Close()
	digest, buf := sha256.New(), make([]byte, 1<<20)
	for {
		t := time.Now()
		n, err := f.Read(buf)
		seconds += time.Since(t).Seconds()
		digest.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, "", 0, err
		}
	}
	rss, err = m.RSS()
	return seconds, fmt.Sprintf("%x", digest.Sum(nil)), rss, err
}

// visible tells how long after Python's commit returned head/at shows it.
func (b *bench) visible(ctx context.Context, d *rel.Databases, name string) (Row, error) {
	m, err := b.mount(ctx)
	if err != nil {
		return Row{}, err
	}
	defer m.Close()
	cmd, err := rel.BigFile(ctx, "commits", b.storage)
	if err != nil {
		return Row{}, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return Row{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Row{}, err
	}
	if err := cmd.Start(); err != nil {
		return Row{}, err
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	var lag []float64
	for range commits {
		fmt.Fprintln(in)
		if !lines.Scan() {
			return Row{}, fmt.Errorf("python ended: %w", io.ErrUnexpectedEOF)
		}
		t := time.Now()
		for {
			at, err := os.ReadFile(filepath.Join(b.mnt, "head/at"))
			if err != nil {
				return Row{}, err
			}
			if string(at) >= lines.Text() {
				break
			}
			if time.Since(t) > time.Minute {
				return Row{}, fmt.Errorf("head/at is %s, not %s", at, lines.Text())
			}
			time.Sleep(100 * time.Microsecond)
		}
		lag = append(lag, time.Since(t).Seconds())
	}
	conns, err := d.PG.Connections(ctx, name)
	slices.Sort(lag)
	return Row{
		What: "commit -> head/at over RelStorage PostgreSQL",
		Ours: fmt.Sprintf("%.1f ms", 1000*median(lag)), Other: "no target",
		Note: fmt.Sprintf("median of %d, slowest %.1f ms; polled every 20 ms; %d connections", commits, 1000*lag[len(lag)-1], conns),
	}, err
}

func speed(seconds []float64) string {
	return fmt.Sprintf("%.0f MB/s", blocks*blksize/1e6/median(seconds))
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}
