// Package bench measures the 9P front against diod on this machine: the same bytes, once as a bigfile in a
// database that is served by wcfs, once as a file in a tmpfs that is served by diod, read by the same
// client over Unix sockets.
package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"wcfs/p9srv"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// Row is one line of the table of make bench.
type Row struct {
	What, Ours, Other string
	Ratio, Target     float64 // 0: none
	Note              string
}

const (
	blksize = 2 << 20
	blocks  = 128
	size    = blocks * blksize
	pairs   = 7
)

// servers are the two processes that are compared.
type servers struct {
	dir        string
	ours, diod string // addresses
	path       string // of the bigfile
	cmds       []*exec.Cmd
}

// Rows measures. It needs diod, Go, and room for twice 256 MiB, half of it in /dev/shm.
func Rows(ctx context.Context) (rows []Row, err error) {
	dir, err := os.MkdirTemp("/dev/shm", "wcfs-bench-9p-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &servers{dir: dir}
	defer s.stop()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	for _, readers := range []int{1, 8} {
		ours := func(msize uint32) func() (time.Duration, error) {
			return func() (time.Duration, error) { return s.read(ctx, s.ours, "", s.path, msize, readers) }
		}
		diod := func() (time.Duration, error) {
			return s.read(ctx, s.diod, filepath.Join(dir, "export"), "file", 64<<10, readers)
		}
		for _, msize := range []uint32{64 << 10, 1 << 20} {
			row := Row{What: fmt.Sprintf("9P sequential read, %d readers, msize %d", readers, msize), Target: 1, Note: "other: diod on a tmpfs file"}
			if msize > 64<<10 {
				row.Target, row.Note = 0, "other: diod on a tmpfs file, at 65536, which is its most"
			}
			if err := row.measure(ours(msize), diod); err != nil {
				return rows, fmt.Errorf("%s: %w", row.What, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// measure takes both in turn; the ratio is that of the medians.
func (r *Row) measure(ours, other func() (time.Duration, error)) error {
	var a, b []time.Duration
	for i := range pairs + 1 {
		x, err := ours()
		if err != nil {
			return fmt.Errorf("ours: %w", err)
		}
		y, err := other()
		if err != nil {
			return fmt.Errorf("diod: %w", err)
		}
		if i > 0 { // the first fills caches
			a, b = append(a, x), append(b, y)
		}
	}
	slices.Sort(a)
	slices.Sort(b)
	x, y := a[len(a)/2], b[len(b)/2]
	rate := func(d time.Duration) string { return fmt.Sprintf("%.2f GiB/s", float64(size)/(1<<30)/d.Seconds()) }
	r.Ours, r.Other, r.Ratio = rate(x), rate(y), y.Seconds()/x.Seconds()
	return nil
}

// read has each reader read its part of the file, over a connection of its own.
func (s *servers) read(ctx context.Context, addr, aname, path string, msize uint32, readers int) (time.Duration, error) {
	files := make([]*p9srv.File, readers)
	for i := range files {
		c, err := p9srv.NewClient(ctx, addr, aname, p9srv.DialOptions{Msize: msize})
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if files[i], err = c.Open(path, false); err != nil {
			return 0, err
		}
	}
	errs := make([]error, readers)
	var wg sync.WaitGroup
	began := time.Now()
	for i, f := range files {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			part := int64(size / readers)
			for off := part * int64(i); off < part*int64(i+1); off += int64(len(buf)) {
				if n, err := f.ReadAt(buf, off); n != len(buf) {
					errs[i] = fmt.Errorf("%d bytes at %d: %w", n, off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// start makes the data and both servers.
func (s *servers) start(ctx context.Context) error {
	oid, err := s.makeData()
	if err != nil {
		return err
	}
	s.path = "head/bigfile/" + oid.String()
	bin := filepath.Join(s.dir, "wcfs")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "wcfs").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	s.ours, s.diod = "unix:"+filepath.Join(s.dir, "ours.sock"), "unix:"+filepath.Join(s.dir, "diod.sock")
	if err := s.run(ctx, s.ours, bin, "serve", "--9p", s.ours, "file://"+filepath.Join(s.dir, "db.fs")); err != nil {
		return err
	}
	return s.run(ctx, s.diod, "diod", "-f", "-n", "-N", "-S", "-U", "root", "-c", "/dev/null", "-L", "stderr",
		"-e", filepath.Join(s.dir, "export"), "-l", filepath.Join(s.dir, "diod.sock"))
}

// makeData writes the same bytes into a database and into a file.
func (s *servers) makeData() (zodb.Oid, error) {
	if err := os.Mkdir(filepath.Join(s.dir, "export"), 0o755); err != nil {
		return 0, err
	}
	plain, err := os.Create(filepath.Join(s.dir, "export", "file"))
	if err != nil {
		return 0, err
	}
	defer plain.Close()
	w, err := fswriter.Create(filepath.Join(s.dir, "db.fs"))
	if err != nil {
		return 0, err
	}
	defer w.Close()
	db := zgen.New(w, zgen.Options{NoModel: true})
	rng := rand.New(rand.NewPCG(1, 1))
	tx := db.Begin()
	oid := tx.NewFile(blksize)
	data := make([]byte, blksize)
	for blk := range zdata.Blk(blocks) {
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], rng.Uint64()|1<<63)
		}
		tx.Write(oid, blk, data, zgen.Blk0)
		if _, err := plain.Write(data); err != nil {
			return 0, err
		}
		if blk%16 == 15 {
			if _, err := tx.Commit(); err != nil {
				return 0, err
			}
			tx = db.Begin()
		}
	}
	_, err = tx.Commit()
	return oid, errors.Join(err, w.WriteIndex())
}

// run starts a server and waits until it takes connections.
func (s *servers) run(ctx context.Context, addr, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(name)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmds = append(s.cmds, cmd)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c, err := p9srv.DialOptions{}.Dial(ctx, addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s did not get ready: %w\n%s", name, err, text)
		}
	}
}

func (s *servers) stop() {
	for _, c := range s.cmds {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	}
}
