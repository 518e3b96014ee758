package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/fswriter"
)

// warm reads a head file that is in the page cache, and the same bytes in a tmpfs.
func warm(ctx context.Context, b *bench) ([]Row, error) {
	size := min(b.size, 512<<20)
	db, oid, err := b.database("warm.fs", size, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer os.Remove(db)
	m, err := b.ours(ctx, db)
	if err != nil {
		return nil, err
	}
	defer m.close()
	shm, err := os.MkdirTemp("/dev/shm", "wcfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(shm)
	tmpfs := filepath.Join(shm, "file")
	if err := copyTo(tmpfs, m.head(oid)); err != nil { // also warms ours
		return nil, err
	}
	var rows []Row
	for _, how := range []struct {
		name string
		fn   func(string) error
	}{{"warm read", readAll}, {"warm mmap scan", scan}} {
		ours, other, err := b.pair(
			func() (time.Duration, error) { return timed(func() error { return how.fn(m.head(oid)) }) },
			func() (time.Duration, error) { return timed(func() error { return how.fn(tmpfs) }) })
		if err != nil {
			return rows, err
		}
		rows = append(rows, speed(how.name, size, ours, other, 0.75, "other: tmpfs"))
	}
	return rows, nil
}

// coldRead empties the page cache of the mount, not that of the database, and reads all.
func coldRead(path string) (time.Duration, error) {
	if err := forget(path); err != nil {
		return 0, err
	}
	return timed(func() error { return readAll(path) })
}

// cold reads sequentially, with the database file cached and the mount's page cache empty.
func cold(ctx context.Context, b *bench) ([]Row, error) {
	db, oid, err := b.database("cold.fs", b.size, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer os.Remove(db)
	m, err := b.ours(ctx, db)
	if err != nil {
		return nil, err
	}
	defer m.close()
	plain := filepath.Join(b.dir, "cold.bin")
	if err := copyTo(plain, m.head(oid)); err != nil {
		return nil, err
	}
	defer os.Remove(plain)
	bare, err := b.bare(ctx, plain)
	if err != nil {
		return nil, err
	}
	defer bare.close()

	mine := func() (time.Duration, error) { return coldRead(m.head(oid)) }
	ours, other, err := b.pair(mine, func() (time.Duration, error) { return coldRead(filepath.Join(bare.dir, "file")) })
	if err != nil {
		return nil, err
	}
	rows := []Row{speed("cold sequential read", b.size, ours, other, 0.7, "other: bare FUSE server that splices a plain file")}

	ours, other, err = b.pair(mine, func() (time.Duration, error) { return pythonLoad(ctx, db, oid) })
	if err != nil {
		return rows, err
	}
	rows = append(rows, speed("cold sequential read", b.size, ours, other, 5, "other: Python ZODB loading the same blocks"))

	ours, other, err = b.pair(
		func() (time.Duration, error) {
			if err := forget(db); err != nil {
				return 0, err
			}
			return mine()
		},
		func() (time.Duration, error) { return coldRead(db) })
	if err != nil {
		return rows, err
	}
	return append(rows, speed("cold sequential read, from disk", b.size, ours, other, 0.9, "other: the database file read from disk")), nil
}

// memory compares how much memory the server has after it served a quarter of a file, and all of it.
func memory(ctx context.Context, b *bench) ([]Row, error) {
	db, oid, err := b.database("memory.fs", b.size, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer os.Remove(db)
	m, err := b.ours(ctx, db)
	if err != nil {
		return nil, err
	}
	defer m.close()
	f, err := os.Open(m.head(oid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rss [2]float64
	buf := make([]byte, 1<<20)
	for i, end := range []int64{b.size / 4, b.size} {
		for off := int64(0); off < end; off += int64(len(buf)) {
			if _, err := f.ReadAt(buf, off); err != nil {
				return nil, err
			}
		}
		if rss[i], err = m.rss(); err != nil {
			return nil, err
		}
	}
	return []Row{{fmt.Sprintf("memory of the server, %d MiB and a quarter read", b.size>>20), fmt.Sprintf("%.0f MiB", rss[1]), fmt.Sprintf("%.0f MiB", rss[0]),
		rss[1] / rss[0], 0, "no term that grows with what was read: about 1"}}, nil
}

// pythonLoad has Python load all blocks of a file; it tells how long that took, without its start.
func pythonLoad(ctx context.Context, db string, oid zodb.Oid) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, ".deps/py5/bin/python", "t/bench/load.py", db, oid.String())
	cmd.Env = append(os.Environ(), "PYTHONPATH=t/py")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("t/bench/load.py: %w", err)
	}
	s, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(s * float64(time.Second)), err
}

// random reads 4 KiB of blocks that are not cached, and whole blocks from the database file.
func random(ctx context.Context, b *bench) ([]Row, error) {
	db, oid, err := b.database("random.fs", b.size, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer os.Remove(db)
	m, err := b.ours(ctx, db)
	if err != nil {
		return nil, err
	}
	defer m.close()
	rng := rand.New(rand.NewPCG(2, 2))
	const n = 100
	at := func(path string, size int) (time.Duration, error) {
		f, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		buf := make([]byte, size)
		return timed(func() error {
			for range n {
				if _, err := f.ReadAt(buf, rng.Int64N(b.size/blksize-1)*blksize); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ours, other, err := b.pair(
		func() (time.Duration, error) {
			if err := forget(m.head(oid)); err != nil {
				return 0, err
			}
			return at(m.head(oid), 4096)
		},
		func() (time.Duration, error) { return at(db, blksize) })
	if err != nil {
		return nil, err
	}
	r := cost("cold 4 KiB read at a random block", ours/n, other/n, 2)
	r.Note = "at most: latency; other: pread of 2 MiB from the database file"
	return []Row{r}, nil
}

// zblk1 reads a file of many small chunks, and the same data in whole blocks.
func zblk1(ctx context.Context, b *bench) ([]Row, error) {
	size := b.size / 4
	var took [2]func() (time.Duration, error)
	for i, kind := range []zgen.Kind{zgen.Blk1, zgen.Blk0} {
		db, oid, err := b.database(fmt.Sprintf("zblk%d.fs", i), size, kind)
		if err != nil {
			return nil, err
		}
		defer os.Remove(db)
		m, err := b.ours(ctx, db)
		if err != nil {
			return nil, err
		}
		defer m.close()
		took[i] = func() (time.Duration, error) { return coldRead(m.head(oid)) }
	}
	ours, other, err := b.pair(took[0], took[1])
	if err != nil {
		return nil, err
	}
	return []Row{speed("cold sequential read of ZBlk1", size, ours, other, 0.25, "other: ZBlk0")}, nil
}

// open opens a large FileStorage with its index, and by a scan.
func open(ctx context.Context, b *bench) ([]Row, error) {
	const total = 4 << 30
	path := filepath.Join(b.dir, "open.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	tid := zodb.TidFromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for oid := zodb.Oid(0); w.Size() < total; tid += 1 << 20 {
		sizes := make(map[zodb.Oid]int64)
		for range 16 {
			sizes[oid] = 64 << 10
			oid++
		}
		if err := w.CommitHoles(tid, sizes); err != nil {
			return nil, err
		}
	}
	if err := w.WriteIndex(); err != nil {
		return nil, err
	}
	w.Close()
	opened := func(noIndex bool) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			return timed(func() error {
				s, err := filestorage.Open(ctx, "file://"+path, filestorage.Options{NoIndex: noIndex})
				if err != nil {
					return err
				}
				return s.Close()
			})
		}
	}
	ours, other, err := b.pair(opened(false), opened(true))
	if err != nil {
		return nil, err
	}
	return []Row{{"open a FileStorage of 4 GiB, 64 Ki records", ours.String(), other.String(), other.Seconds() / ours.Seconds(), 0, "with index; other: by scanning"}}, nil
}
