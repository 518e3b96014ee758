// Package fast has rows of the bench about cold reads at a raised read-ahead, and about how soon a commit
// to a FileStorage shows.
//
// It is run inside t/bench, whose program is the bare FUSE server too, from the root of the repository.
package fast

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// Row is one comparison; it has the fields of t/bench's. Ratio is how many times faster ours is, and
// Target means "at least", unless Note says "at most".
type Row struct {
	What, Ours, Other string
	Ratio, Target     float64
	Note              string
}

const (
	blksize = 2 << 20
	total   = 1 << 30
	pairs   = 5
	commits = 20
)

// Rows measures.
func Rows(ctx context.Context) (rows []Row, err error) {
	b := &bench{}
	if b.dir, err = os.MkdirTemp("", "wcfs-fast-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	b.wcfs = filepath.Join(b.dir, "wcfs")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.wcfs, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	for _, fn := range []func(context.Context) ([]Row, error){b.cold, b.visible} {
		more, err := fn(ctx)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

type bench struct {
	dir  string // of this run
	wcfs string // the binary
}

// database is a FileStorage that can be written to.
type database struct {
	path string
	w    *fswriter.Writer
	db   *zgen.DB
	oid  zodb.Oid
}

// create makes one with a bigfile of n blocks of random bytes.
func (b *bench) create(name string, n int) (*database, error) {
	d := &database{path: filepath.Join(b.dir, name)}
	var err error
	if d.w, err = fswriter.Create(d.path); err != nil {
		return nil, err
	}
	d.db = zgen.New(d.w, zgen.Options{NoModel: true})
	rng := rand.New(rand.NewPCG(1, 1))
	tx := d.db.Begin()
	d.oid = tx.NewFile(blksize)
	data := make([]byte, blksize)
	for blk := range n {
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], rng.Uint64()|1<<63)
		}
		tx.Write(d.oid, zdata.Blk(blk), data, zgen.Blk0)
		if blk%16 == 15 {
			if _, err := tx.Commit(); err != nil {
				return nil, err
			}
			tx = d.db.Begin()
		}
	}
	_, err = tx.Commit()
	return d, errors.Join(err, d.w.WriteIndex())
}

func (d *database) close() {
	d.w.Close()
	os.Remove(d.path)
}

// serve starts a server, given all but the mount point, and waits until probe is there.
func (b *bench) serve(ctx context.Context, probe string, args ...string) (dir string, stop func(), err error) {
	if dir, err = os.MkdirTemp(b.dir, "mnt"); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, args[0], append(args[1:], dir)...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		unix.Unmount(dir, unix.MNT_DETACH)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, probe)); err == nil {
			return dir, stop, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			stop()
			return "", nil, fmt.Errorf("%s did not get ready:\n%s", args[0], log.String())
		}
	}
}

// cold reads a file whose page cache is empty, the database's not, at a read-ahead of 1 MiB.
func (b *bench) cold(ctx context.Context) ([]Row, error) {
	d, err := b.create("cold.fs", total/blksize)
	if err != nil {
		return nil, err
	}
	defer d.close()
	dir, stop, err := b.serve(ctx, ".wcfs/zurl", b.wcfs, "serve", "file://"+d.path, "--mount")
	if err != nil {
		return nil, err
	}
	defer stop()
	ours := filepath.Join(dir, "head/bigfile", d.oid.String())
	plain := filepath.Join(b.dir, "plain")
	if err := copyFile(plain, ours); err != nil {
		return nil, err
	}
	defer os.Remove(plain)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bare, stopBare, err := b.serve(ctx, "file", self, "splice", plain)
	if err != nil {
		return nil, err
	}
	defer stopBare()
	other := filepath.Join(bare, "file")
	if err := errors.Join(readAhead(ours), readAhead(other)); err != nil {
		return nil, err
	}
	var ratios, mine, theirs []float64
	for range pairs {
		a, err := coldRead(ours)
		if err != nil {
			return nil, err
		}
		o, err := coldRead(other)
		if err != nil {
			return nil, err
		}
		mine, theirs, ratios = append(mine, a), append(theirs, o), append(ratios, o/a)
	}
	return []Row{{
		What: "cold sequential read, read-ahead 1 MiB",
		Ours: rate(median(mine)), Other: rate(median(theirs)), Ratio: median(ratios), Target: 0.7,
		Note: fmt.Sprintf("other: bare FUSE server over a plain file; ratios of the pairs from %.2f to %.2f", slices.Min(ratios), slices.Max(ratios)),
	}}, nil
}

func rate(seconds float64) string {
	return fmt.Sprintf("%.2f GiB/s", float64(total)/(1<<30)/seconds)
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// readAhead raises the read-ahead of the mount that path is in.
func readAhead(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev)), []byte("1024"), 0)
}

func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// coldRead returns how many seconds reading takes.
func coldRead(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, err
	}
	began := time.Now()
	for buf := make([]byte, 1<<20); err == nil; {
		_, err = f.Read(buf)
	}
	if err != io.EOF {
		return 0, err
	}
	return time.Since(began).Seconds(), nil
}

// visible has commits made and waits, in turn, until head/at shows them and until Python sees them.
func (b *bench) visible(ctx context.Context) ([]Row, error) {
	d, err := b.create("visible.fs", 16)
	if err != nil {
		return nil, err
	}
	defer d.close()
	dir, stop, err := b.serve(ctx, ".wcfs/zurl", b.wcfs, "serve", "file://"+d.path, "--mount")
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := coldRead(filepath.Join(dir, "head/bigfile", d.oid.String())); err != nil {
		return nil, err
	}
	py, err := startPoller(ctx, d.path)
	if err != nil {
		return nil, err
	}
	defer py.stop()
	var mine, theirs []float64
	for range commits {
		t, err := d.untilShown(filepath.Join(dir, "head/at"))
		if err != nil {
			return nil, err
		}
		mine = append(mine, t)
		if t, err = py.untilSeen(d); err != nil {
			return nil, err
		}
		theirs = append(theirs, t)
	}
	ms := func(s float64) string { return fmt.Sprintf("%.2f ms", s*1e3) }
	var cached []float64
	for range commits {
		if _, err := coldRead(filepath.Join(dir, "head/bigfile", d.oid.String())); err != nil {
			return nil, err
		}
		time.Sleep(20 * time.Millisecond) // longer than the grace after a READ
		t, err := d.untilShown(filepath.Join(dir, "head/at"))
		if err != nil {
			return nil, err
		}
		cached = append(cached, t)
	}
	return []Row{{
		What: "commit -> head/at, FileStorage", Ours: ms(median(mine)), Other: ms(median(theirs)),
		Ratio: median(mine) / median(theirs), Target: 1,
		Note: fmt.Sprintf("time, at most; other: Python opening the file again and again; ours from %s to %s", ms(slices.Min(mine)), ms(slices.Max(mine))),
	}, {
		What: "the same, the changed block being cached whole", Ours: ms(median(cached)), Other: ms(median(theirs)),
		Ratio: median(cached) / median(theirs),
		Note:  "time; 2 MiB are kept for @rev before head/at shows the commit",
	}}, nil
}

// commit changes one block; it returns when the last byte was written.
func (d *database) commit() (zodb.Tid, time.Time, error) {
	tx := d.db.Begin()
	tx.Write(d.oid, 3, []byte(time.Now().String()), zgen.Blk0)
	tid, err := tx.Commit()
	return tid, time.Now(), err
}

// untilShown commits and returns how many seconds it takes until the file at names that commit.
func (d *database) untilShown(at string) (float64, error) {
	tid, began, err := d.commit()
	for err == nil {
		var text []byte
		if text, err = os.ReadFile(at); strings.TrimSpace(string(text)) == tid.String() {
			return time.Since(began).Seconds(), nil
		}
		if time.Since(began) > time.Minute {
			err = fmt.Errorf("head/at does not come to %s", tid)
		}
		time.Sleep(100 * time.Microsecond) // the server needs the processor too
	}
	return 0, err
}

// poller is a Python process.
type poller struct {
	in   io.Writer
	out  *bufio.Reader
	stop func()
}

func startPoller(ctx context.Context, path string) (*poller, error) {
	cmd := exec.CommandContext(ctx, ".deps/py5/bin/python", "t/bench/fast/poll.py", path)
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
		return nil, fmt.Errorf("the peer of this row is missing, run t/setup: %w", err)
	}
	return &poller{in, bufio.NewReader(out), func() { in.Close(); cmd.Wait() }}, nil
}

// untilSeen commits and returns how many seconds it takes until Python has seen that commit.
func (p *poller) untilSeen(d *database) (float64, error) {
	// Which tid comes is not known before, but that it is above the last.
	if _, err := fmt.Fprintln(p.in, d.db.Head()+1); err != nil {
		return 0, err
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		return 0, fmt.Errorf("poll.py: %q, %w", line, err)
	}
	time.Sleep(20 * time.Millisecond) // it is in its loop by then
	_, began, err := d.commit()
	if err != nil {
		return 0, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("poll.py: %w", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Unix(0, ns).Sub(began).Seconds(), err
}
