// Package p9 has the rows of the bench about 9P: on the host and in guests, against diod and tmpfs.
//
// The same bytes are once a bigfile of a database that wcfs serves, and once a file that diod exports,
// both in a tmpfs.
package p9

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"wcfs/p9srv"
	"wcfs/t/bench/kit"
	"wcfs/zcore/zdata/zgen"
)

const (
	hostSize  = 256 << 20
	diodMsize = 64 << 10 // the most that diod takes
)

// set is the data and both servers.
type set struct {
	dir        string // in a tmpfs
	export     string // what diod exports; has `file`
	path       string // of the bigfile in the tree
	ours, diod *kit.Server
}

// newSet makes data of n bytes and serves it at addresses of our kind, unix:PATH or tcp:HOST:PORT; of ours may be more
// options.
func newSet(ctx context.Context, b *kit.Bench, n int64, oursAddr, diodAddr func(dir string) string, options ...string) (s *set, err error) {
	if err := kit.Need("diod", "deb"); err != nil {
		return nil, err
	}
	s = &set{}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if s.dir, err = os.MkdirTemp("/dev/shm", "wcfs-bench-9p-"); err != nil {
		return s, err
	}
	s.export = filepath.Join(s.dir, "export")
	db, oid, err := b.Filled(s.dir, "db.fs", n, zgen.Blk0)
	if err != nil {
		return s, err
	}
	s.path = "head/bigfile/" + oid.String()
	if err := os.Mkdir(s.export, 0o755); err != nil {
		return s, err
	}
	ours, diod := oursAddr(s.dir), diodAddr(s.dir)
	args := append([]string{"serve", "--9p", ours}, options...)
	if s.ours, err = kit.Start(ctx, func() error { return answers(ctx, ours) }, b.WCFS, append(args, "file://"+db.Path)...); err != nil {
		return s, err
	}
	if err := s.copyFile(ctx, ours, n); err != nil {
		return s, err
	}
	_, listen := cut(diod)
	s.diod, err = kit.Start(ctx, func() error { return answers(ctx, diod) }, "diod", "-f", "-n", "-N", "-S", "-U", "root", "-c", "/dev/null", "-L", "stderr",
		"-e", s.export, "-l", listen)
	return s, err
}

func (s *set) close() {
	for _, srv := range []*kit.Server{s.ours, s.diod} {
		if srv != nil {
			srv.Close()
		}
	}
	os.RemoveAll(s.dir)
}

func cut(addr string) (kind, rest string) {
	for i := range addr {
		if addr[i] == ':' {
			return addr[:i], addr[i+1:]
		}
	}
	return addr, ""
}

// answers tells whether a server takes connections.
func answers(ctx context.Context, addr string) error {
	c, err := p9srv.DialOptions{}.Dial(ctx, addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// copyFile writes what is served to where diod has it.
func (s *set) copyFile(ctx context.Context, addr string, n int64) error {
	c, err := p9srv.NewClient(ctx, addr, "", p9srv.DialOptions{})
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.Open(s.path, false)
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(s.export, "file"))
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, kit.Blksize)
	for off := int64(0); off < n; off += int64(len(buf)) {
		if _, err := f.ReadAt(buf, off); err != nil {
			return err
		}
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// Rows measures on the host.
func Rows(ctx context.Context, b *kit.Bench) (rows []kit.Row, err error) {
	socket := func(name string) func(string) string {
		return func(dir string) string { return "unix:" + filepath.Join(dir, name) }
	}
	s, err := newSet(ctx, b, hostSize, socket("ours.sock"), socket("diod.sock"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	ours, diod := socket("ours.sock")(s.dir), socket("diod.sock")(s.dir)
	for _, c := range []load{{1, 1, diodMsize}, {1, 1, 1 << 20}, {8, 8, diodMsize}, {8, 8, 1 << 20}, {8, 1, diodMsize}} {
		row, err := s.hostPair(ctx, b, c, ours, diod)
		if err != nil {
			return rows, fmt.Errorf("%+v: %w", c, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// load is who reads.
type load struct {
	readers, conns int
	msize          uint32
}

func (s *set) hostPair(ctx context.Context, b *kit.Bench, c load, ours, diod string) (kit.Row, error) {
	what, target, note := fmt.Sprintf("9P sequential read, Unix socket, msize %d, readers: %d", c.msize, c.readers), 1.0, "other: diod on a tmpfs file"
	if c.conns < c.readers {
		what += ", one connection"
	}
	if c.msize > diodMsize {
		target, note = 0, note+fmt.Sprintf(", at %d, which is its most", diodMsize)
	}
	theirs := c
	theirs.msize = diodMsize
	var used [2]time.Duration // by the servers, and the client with each
	p, err := b.Pair(ctx,
		charged(s.ours, &used[0], func() error { return s.read(ctx, ours, "", s.path, c) }),
		charged(s.diod, &used[1], func() error { return s.read(ctx, diod, s.export, "file", theirs) }))
	if err != nil {
		return kit.Row{}, err
	}
	gib := float64(b.Pairs+1) * hostSize / (1 << 30)
	note += fmt.Sprintf("; processor for a GiB, server and client: %.2f s, other %.2f s", used[0].Seconds()/gib, used[1].Seconds()/gib)
	return p.Speed(what, hostSize, target, note), nil
}

// charged adds the processor time of a server and of ourselves to total.
func charged(srv *kit.Server, total *time.Duration, fn func() error) kit.Run {
	return func() (time.Duration, error) {
		before := srv.CPU() + ownCPU()
		t, err := kit.Timed(fn)
		*total += srv.CPU() + ownCPU() - before
		return t, err
	}
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// read has each reader read its part of the file.
func (s *set) read(ctx context.Context, addr, aname, path string, l load) error {
	files := make([]*p9srv.File, l.conns)
	for i := range files {
		c, err := p9srv.NewClient(ctx, addr, aname, p9srv.DialOptions{Msize: l.msize})
		if err != nil {
			return err
		}
		defer c.Close()
		if files[i], err = c.Open(path, false); err != nil {
			return err
		}
	}
	errs := make([]error, l.readers)
	var wg sync.WaitGroup
	for i := range l.readers {
		f := files[i%l.conns]
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			part := int64(hostSize / l.readers)
			for off := part * int64(i); off < part*int64(i+1); off += int64(len(buf)) {
				if n, err := f.ReadAt(buf, off); n != len(buf) {
					errs[i] = fmt.Errorf("%d bytes at %d: %w", n, off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
