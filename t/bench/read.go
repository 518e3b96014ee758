package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/bench/kit"
	"wcfs/zcore/zdata/zgen"
)

// warm reads a head file that is in the page cache, and the same bytes in a tmpfs.
func warm(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	n := min(b.Size, 512<<20)
	db, oid, err := b.Filled("", "warm.fs", n, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	m, err := b.Serve(ctx, db.Path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	shm, err := os.MkdirTemp("/dev/shm", "wcfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(shm)
	tmpfs := filepath.Join(shm, "file")
	if err := kit.Copy(tmpfs, m.Head(oid)); err != nil { // also warms ours
		return nil, err
	}
	for _, how := range []struct {
		name string
		fn   func(string) error
	}{{"warm read", func(path string) error { return kit.Read(path, 0) }}, {"warm mmap scan", scan}} {
		p, err := b.Pair(ctx,
			func() (time.Duration, error) { return kit.Timed(func() error { return how.fn(m.Head(oid)) }) },
			func() (time.Duration, error) { return kit.Timed(func() error { return how.fn(tmpfs) }) })
		if err != nil {
			return rows, err
		}
		rows = append(rows, p.Speed(how.name, n, 0.75, "other: tmpfs"))
	}
	return rows, nil
}

// scan sums a file up through a mapping.
func scan(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	sum := uint64(0)
	for i := 0; i+8 <= len(mem); i += 8 {
		sum += binary.LittleEndian.Uint64(mem[i:])
	}
	if sum == 1 {
		return errors.New("that cannot be")
	}
	return unix.Munmap(mem)
}

// random reads 4 KiB of blocks that are not cached, and whole blocks from the database file.
func random(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	db, oid, err := b.Filled("", "random.fs", b.Size, zgen.Blk0)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	m, err := b.Serve(ctx, db.Path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	rng := rand.New(rand.NewPCG(2, 2))
	p, err := b.Pair(ctx,
		func() (time.Duration, error) {
			if err := kit.Forget(m.Head(oid)); err != nil {
				return 0, err
			}
			return randomReads(m.Head(oid), b.Size, 4096, rng)
		},
		func() (time.Duration, error) { return randomReads(db.Path, b.Size, kit.Blksize, rng) })
	if err != nil {
		return nil, err
	}
	return []kit.Row{p.Cost("cold 4 KiB at a random block, latency", 2, "other: pread of 2 MiB of the database file")}, nil
}

// randomReads is the mean time of a read at the beginning of a block anywhere in the first n bytes of a file.
func randomReads(path string, n int64, size int, rng *rand.Rand) (time.Duration, error) {
	const times = 100
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, size)
	t, err := kit.Timed(func() error {
		for range times {
			if _, err := f.ReadAt(buf, rng.Int64N(n/kit.Blksize-1)*kit.Blksize); err != nil {
				return err
			}
		}
		return nil
	})
	return t / times, err
}

// zblk1 reads a file of many small chunks, and the same data in whole blocks.
func zblk1(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	n := b.Size / 4
	var took [2]kit.Run
	for i, kind := range []zgen.Kind{zgen.Blk1, zgen.Blk0} {
		db, oid, err := b.Filled("", fmt.Sprintf("zblk%d.fs", i), n, kind)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		m, err := b.Serve(ctx, db.Path)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		took[i] = func() (time.Duration, error) { return kit.Cold(m.Head(oid)) }
	}
	p, err := b.Pair(ctx, took[0], took[1])
	if err != nil {
		return nil, err
	}
	return []kit.Row{p.Speed("cold sequential read of ZBlk1", n, 0.25, "other: the same data as ZBlk0")}, nil
}
