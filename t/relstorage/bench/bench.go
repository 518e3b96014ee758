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

	"wcfs/t/bench/kit"
	rel "wcfs/t/relstorage"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
)

const (
	blocks  = 64
	blksize = 2 << 20
	commits = 40
)

// Rows makes a PostgreSQL server with a file of 128 MiB and measures.
func Rows(ctx context.Context, kb *kit.Bench) ([]kit.Row, error) {
	if err := kit.Need(kit.Python, "py5"); err != nil {
		return nil, err
	}
	d, err := rel.NewDatabases(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	name, _, err := d.Postgres()
	if err != nil {
		return nil, err
	}
	mnt, err := os.MkdirTemp(kb.Dir, "mnt")
	if err != nil {
		return nil, err
	}
	b := &bench{Bench: kb, url: d.PG.URL(name), storage: "postgresql:" + d.PG.DSN(name), mnt: mnt}
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
	*kit.Bench
	url, storage, mnt, oid string
}

func (b *bench) mount(ctx context.Context) (*rel.Mount, error) {
	return rel.NewMount(ctx, exec.Command(b.WCFS, "serve", "--mount", b.mnt, b.url), b.mnt)
}

// read compares loads by the driver, and a cold sequential read of a mount, with a Python process that
// loads the same blocks.
func (b *bench) read(ctx context.Context) ([]kit.Row, error) {
	var load, mount kit.Pair
	var rss int64
	for range b.Pairs {
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
		var s float64
		var pysum string
		if _, err := fmt.Sscan(out, &s, &pysum); err != nil || pysum != sum {
			return nil, fmt.Errorf("wcfs read %s, Python %s, %v", sum, pysum, err)
		}
		python := time.Duration(s * float64(time.Second))
		load.Ours, load.Other = append(load.Ours, l), append(load.Other, python)
		mount.Ours, mount.Other = append(mount.Ours, m), append(mount.Other, python)
		rss = max(rss, kb)
	}
	alone, whole := kit.Median(load.Ours), kit.Median(mount.Ours)
	return []kit.Row{
		load.Speed("cold loads over RelStorage PostgreSQL", blocks*blksize, 3,
			fmt.Sprintf("other: Python's RelStorage; ours: the driver alone, one load after another; %d blocks of 2 MiB, Unix socket", blocks)),
		mount.Speed("cold sequential read of a mount over RelStorage PostgreSQL", blocks*blksize, 3,
			fmt.Sprintf("other: Python's RelStorage loading the same blocks; a block: %s, loading alone %s; resident memory after %d MiB: %d MiB",
				kit.Short(whole/blocks), kit.Short(alone/blocks), blocks*blksize>>20, rss>>10)),
	}, nil
}

// load loads all blocks one after another, and tells how long that took.
func (b *bench) load(ctx context.Context) (took time.Duration, err error) {
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
			took += time.Since(t)
		}
		return err
	})
	if err == nil && n != blocks {
		err = fmt.Errorf("%d blocks, not %d", n, blocks)
	}
	return took, err
}

// readMount reads the file through a new mount, and tells how long that took, the SHA-256 and the server's
// resident KiB.
func (b *bench) readMount(ctx context.Context) (took time.Duration, sum string, rss int64, err error) {
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
		took += time.Since(t)
		digest.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, "", 0, err
		}
	}
	rss, err = m.RSS()
	return took, fmt.Sprintf("%x", digest.Sum(nil)), rss, err
}

// visible tells how long after Python's commit returned head/at shows it.
func (b *bench) visible(ctx context.Context, d *rel.Databases, name string) (kit.Row, error) {
	m, err := b.mount(ctx)
	if err != nil {
		return kit.Row{}, err
	}
	defer m.Close()
	cmd, err := rel.BigFile(ctx, "commits", b.storage)
	if err != nil {
		return kit.Row{}, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return kit.Row{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return kit.Row{}, err
	}
	if err := cmd.Start(); err != nil {
		return kit.Row{}, err
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	var lag []time.Duration
	for range commits {
		fmt.Fprintln(in)
		if !lines.Scan() {
			return kit.Row{}, fmt.Errorf("python ended: %w", io.ErrUnexpectedEOF)
		}
		t := time.Now()
		err := kit.Poll(filepath.Join(b.mnt, "head/at"), func(at string) (bool, error) {
			if time.Since(t) > time.Minute {
				return false, fmt.Errorf("head/at is %s, not %s", at, lines.Text())
			}
			return at >= lines.Text(), nil
		})
		if err != nil {
			return kit.Row{}, err
		}
		lag = append(lag, time.Since(t))
	}
	conns, err := d.PG.Connections(ctx, name)
	slices.Sort(lag)
	return kit.Row{
		What: "commit to head/at over RelStorage PostgreSQL", Ours: kit.Short(kit.Median(lag)),
		Note: fmt.Sprintf("median of %d, slowest %s; polled every 20 ms; %d connections", commits, kit.Short(lag[len(lag)-1]), conns),
	}, err
}
