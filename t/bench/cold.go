package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/t/bench/kit"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// coldSet is a bigfile served by us, and the same bytes in a plain file served by the bare server.
type coldSet struct {
	db    *kit.Database
	oid   zodb.Oid
	ours  *kit.Server
	bare  *kit.Server
	plain string
}

// newColdSet serves a file with one of our forms: dropIn, or the command `serve`.
func newColdSet(ctx context.Context, b *kit.Bench, dropIn bool) (s *coldSet, err error) {
	s = &coldSet{plain: filepath.Join(b.Dir, "plain")}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.db, s.oid, err = b.Filled("", "cold.fs", b.Size, zgen.Blk0); err != nil {
		return s, err
	}
	if dropIn {
		s.ours, err = b.Mount(ctx, ".wcfs/zurl", b.WCFS, "file://"+s.db.Path)
	} else {
		s.ours, err = b.Serve(ctx, s.db.Path)
	}
	if err != nil {
		return s, err
	}
	if err := kit.Copy(s.plain, s.file()); err != nil {
		return s, err
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	s.bare, err = b.Mount(ctx, "file", self, spliceArg, s.plain)
	return s, err
}

func (s *coldSet) close() {
	for _, srv := range []*kit.Server{s.ours, s.bare} {
		if srv != nil {
			srv.Close()
		}
	}
	if s.db != nil {
		s.db.Close()
	}
	os.Remove(s.plain)
}

func (s *coldSet) file() string                     { return s.ours.Head(s.oid) }
func (s *coldSet) readOurs() (time.Duration, error) { return kit.Cold(s.file()) }
func (s *coldSet) readBare() (time.Duration, error) {
	return kit.Cold(filepath.Join(s.bare.Dir, "file"))
}
func (s *coldSet) readDisk() (time.Duration, error) { return kit.Cold(s.db.Path) }
func (s *coldSet) oursOnDisk() (time.Duration, error) {
	if err := kit.Forget(s.db.Path); err != nil {
		return 0, err
	}
	return s.readOurs()
}

// cold reads sequentially as the drop-in form serves: the kernel's own read-ahead.
func cold(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	s, err := newColdSet(ctx, b, true)
	if err != nil {
		return nil, err
	}
	defer s.close()
	const what = "cold sequential read"
	cpu := s.ours.CPU()
	p, err := b.Pair(ctx, s.readOurs, s.readBare)
	if err != nil {
		return nil, err
	}
	used := (s.ours.CPU() - cpu).Seconds() / (float64(b.Pairs+1) * float64(b.Size) / (1 << 30))
	rows = append(rows, p.Speed(what+", read-ahead 128 KiB", b.Size, 0.7,
		fmt.Sprintf("other: bare FUSE server splicing a plain file; the server takes %.2f s of a processor for a GiB", used)))
	if p, err = b.Pair(ctx, s.oursOnDisk, s.readDisk); err != nil {
		return rows, err
	}
	rows = append(rows, p.Speed(what+", database file on disk", b.Size, 0.9, "other: the database file read from disk"))
	if err := kit.Need(kit.Python, "py5"); err != nil {
		return rows, err
	}
	if p, err = b.Pair(ctx, s.readOurs, func() (time.Duration, error) { return pythonLoad(ctx, s.db.Path, s.oid) }); err != nil {
		return rows, err
	}
	return append(rows, p.Speed(what+", database file cached", b.Size, 5, "other: Python's ZODB loading the same blocks")), nil
}

// ahead reads at a read-ahead of 1 MiB, both.
func ahead(ctx context.Context, b *kit.Bench) ([]kit.Row, error) {
	s, err := newColdSet(ctx, b, false)
	if err != nil {
		return nil, err
	}
	defer s.close()
	for _, dir := range []string{s.ours.Dir, s.bare.Dir} {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
		if err := os.WriteFile(name, []byte("1024"), 0); err != nil {
			return nil, err
		}
	}
	p, err := b.Pair(ctx, s.readOurs, s.readBare)
	if err != nil {
		return nil, err
	}
	return []kit.Row{p.Speed("cold sequential read, read-ahead 1 MiB", b.Size, 0.7, "other: bare FUSE server splicing a plain file")}, nil
}

// pythonLoad has Python load all blocks of a file; it tells how long that took, without its start.
func pythonLoad(ctx context.Context, db string, oid zodb.Oid) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, kit.Python, "t/bench/load.py", db, oid.String())
	cmd.Env = append(os.Environ(), "PYTHONPATH=t/py")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("t/bench/load.py: %w", err)
	}
	s, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(s * float64(time.Second)), err
}
