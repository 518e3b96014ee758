package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/bench/kit"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// memory reads 16 GiB through a mount, and looks how the server grows meanwhile.
func memory(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	const step, first, last = int64(1 << 30), int64(4 << 30), int64(16 << 30)
	db, oid, err := b.Sparse("memory.fs", last)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	m, err := b.Serve(ctx, db.Path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	f, err := os.Open(m.Head(oid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rss [2]int64
	buf := make([]byte, 1<<20)
	for off := int64(0); off < last; off += int64(len(buf)) {
		if _, err := f.ReadAt(buf, off); err != nil {
			return nil, err
		}
		if end := off + int64(len(buf)); end%step == 0 {
			if rss[1], err = m.RSS(); err != nil {
				return nil, err
			}
			if end == first {
				rss[0] = rss[1]
			}
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil { // the kernel's memory is not meant
				return nil, err
			}
		}
	}
	blocks := (last - first) / kit.Blksize
	return []kit.Row{{What: "resident memory of the server after reading 16 GiB",
		Ours: fmt.Sprintf("%.1f MiB", float64(rss[1])/(1<<20)), Other: fmt.Sprintf("%.1f MiB", float64(rss[0])/(1<<20)),
		Ratios: []float64{float64(rss[1]) / float64(rss[0])}, AtMost: true,
		Note: fmt.Sprintf("other: after 4 GiB; grown by %d bytes for each of %d more blocks of 2 MiB", (rss[1]-rss[0])/blocks, blocks)}}, nil
}

// open starts the server on large FileStorages, whose records are holes with real headers.
func open(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	for _, c := range []struct {
		what          string
		total, record int64
	}{{"4 GiB", 4 << 30, 64 << 10}, {"100 GB", 100e9, 2 << 20}} {
		path := filepath.Join(b.Dir, "open.fs")
		n, err := holes(path, c.total, c.record)
		if err != nil {
			return rows, err
		}
		index, aside := path+".index", path+".aside"
		start := func(from, to string) kit.Run {
			return func() (time.Duration, error) {
				if err := os.Rename(from, to); err != nil && !os.IsNotExist(err) {
					return 0, err
				}
				began := time.Now()
				m, err := b.Serve(ctx, path)
				if err != nil {
					return 0, err
				}
				defer m.Close()
				return time.Since(began), nil
			}
		}
		p, err := b.Pair(ctx, start(aside, index), start(index, aside))
		if err != nil {
			return rows, err
		}
		row := p.Cost(fmt.Sprintf("start of the server on a FileStorage of %s, %d records", c.what, n), 0, "with index; other: without")
		rows = append(rows, row)
		for _, name := range []string{path, index, aside} {
			os.Remove(name)
		}
	}
	return rows, nil
}

// holes makes a database of records that take no space, and its index.
func holes(path string, total, record int64) (records int, err error) {
	w, err := fswriter.Create(path)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	tid := zodb.TidFromTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for ; w.Size() < total; tid += 1 << 20 {
		sizes := make(map[zodb.Oid]int64)
		for range 16 {
			sizes[zodb.Oid(records)] = record
			records++
		}
		if err := w.CommitHoles(tid, sizes); err != nil {
			return 0, err
		}
	}
	return records, w.WriteIndex()
}

// size reads files of more and more blocks, which are all there, but hold a few bytes each.
func size(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	var random, sequential, starts []kit.Point
	for _, c := range []struct {
		name string
		n    int64
	}{{"1 GiB", 1 << 30}, {"32 GiB", 32 << 30}, {"1 TiB", 1 << 40}} {
		db, oid, err := b.Sparse(strings.ReplaceAll(c.name, " ", "")+".fs", c.n)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		starts = append(starts, kit.Point{Name: "file of " + c.name, Run: func() (time.Duration, error) {
			began := time.Now()
			m, err := b.Serve(ctx, db.Path)
			if err != nil {
				return 0, err
			}
			defer m.Close()
			return time.Since(began), nil
		}})
		m, err := b.Serve(ctx, db.Path)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		rng := rand.New(rand.NewPCG(3, 3))
		random = append(random, kit.Point{Name: "file of " + c.name, Run: func() (time.Duration, error) {
			if err := kit.Forget(m.Head(oid)); err != nil {
				return 0, err
			}
			return randomReads(m.Head(oid), c.n, 4096, rng)
		}, Note: func() string { return "the server has " + mib(m) }})
		sequential = append(sequential, kit.Point{Name: "file of " + c.name, Run: func() (time.Duration, error) {
			if err := kit.Forget(m.Head(oid)); err != nil {
				return 0, err
			}
			return kit.Timed(func() error { return kit.Read(m.Head(oid), 512<<20) })
		}})
	}
	for _, curve := range []struct {
		what   string
		points []kit.Point
	}{{"start of the server", starts}, {"cold 4 KiB at a random block", random},
		{"cold read of the first 512 MiB", sequential}} {
		more, err := b.Curve(ctx, curve.what, curve.points...)
		if rows = append(rows, more...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func mib(m *kit.Server) string {
	rss, err := m.RSS()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d MiB resident", rss>>20)
}

// served is a database of files that were read, and its server.
type served struct {
	*kit.Server
	db    *kit.Database
	files []zodb.Oid
	n     int // commits
}

const servedBlocks = 16 // of each file

func newServed(ctx context.Context, b *kit.Bench, files int) (s *served, err error) {
	s = &served{}
	if s.db, err = b.Create("", fmt.Sprintf("files%d.fs", files)); err != nil {
		return nil, err
	}
	tx := s.db.DB.Begin()
	for range files {
		oid := tx.NewFile(kit.Blksize)
		for blk := range servedBlocks {
			tx.Write(oid, zdata.Blk(blk), []byte("x"), zgen.Blk0)
		}
		s.files = append(s.files, oid)
	}
	if _, err = tx.Commit(); err == nil {
		err = s.db.Finish()
	}
	if err == nil {
		s.Server, err = b.Serve(ctx, s.db.Path)
	}
	for i := 0; err == nil && i < files; i++ {
		err = kit.Read(s.Head(s.files[i]), 0)
		err = errors.Join(err, kit.Forget(s.Head(s.files[i]))) // tracked, but not kept for @rev
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *served) close() {
	if s.Server != nil {
		s.Server.Close()
	}
	s.db.Close()
}

// commit changes some blocks of the first few files.
func (s *served) commit(files, blocks int) (zodb.Tid, error) {
	s.n++
	tx := s.db.DB.Begin()
	for _, oid := range s.files[:files] {
		for i := range blocks {
			tx.Write(oid, zdata.Blk((s.n+i)%servedBlocks), fmt.Appendf(nil, "%d", s.n), zgen.Blk0)
		}
	}
	return tx.Commit()
}
