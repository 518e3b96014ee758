package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

const blksize = 2 << 20

// database writes one bigfile of size bytes.
func (b *bench) database(name string, size int64, kind zgen.Kind) (path string, oid zodb.Oid, err error) {
	path = filepath.Join(b.dir, name)
	w, err := fswriter.Create(path)
	if err != nil {
		return "", 0, err
	}
	defer w.Close()
	db := zgen.New(w, zgen.Options{NoModel: true})
	rng := rand.New(rand.NewPCG(1, 1))
	tx := db.Begin()
	oid = tx.NewFile(blksize)
	data := make([]byte, blksize)
	for blk := range size / blksize {
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], rng.Uint64()|1<<63)
		}
		tx.Write(oid, zdata.Blk(blk), data, kind)
		if blk%16 == 15 { // transactions of 32 MiB
			if _, err := tx.Commit(); err != nil {
				return "", 0, err
			}
			tx = db.Begin()
		}
	}
	if _, err := tx.Commit(); err != nil {
		return "", 0, err
	}
	return path, oid, errors.Join(w.WriteIndex(), flush(path))
}

// mount is a server process of ours, or of the bare one.
type mount struct {
	dir string
	cmd *exec.Cmd
}

// serve starts args plus the mount point and waits until probe is there.
func (b *bench) serve(ctx context.Context, probe string, args ...string) (*mount, error) {
	dir, err := os.MkdirTemp(b.dir, "mnt")
	if err != nil {
		return nil, err
	}
	m := &mount{dir, exec.CommandContext(ctx, args[0], append(args[1:], dir)...)}
	m.cmd.Cancel = func() error { return m.cmd.Process.Signal(syscall.SIGTERM) }
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, probe)); err == nil {
			return m, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			m.close()
			text, _ := os.ReadFile(dir + ".log")
			return nil, fmt.Errorf("%s did not get ready:\n%s", args[0], text)
		}
	}
}

func (b *bench) ours(ctx context.Context, database string) (*mount, error) {
	return b.serve(ctx, ".wcfs/zurl", b.wcfs, "file://"+database)
}

func (b *bench) bare(ctx context.Context, file string) (*mount, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.serve(ctx, "file", self, spliceArg, file)
}

func (m *mount) close() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	m.cmd.Wait()
	unix.Unmount(m.dir, unix.MNT_DETACH)
}

// rss is the resident memory of the server in MiB.
func (m *mount) rss() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var total, resident float64
	_, err = fmt.Sscan(string(text), &total, &resident)
	return resident * float64(os.Getpagesize()) / (1 << 20), err
}

func (m *mount) head(oid zodb.Oid) string { return filepath.Join(m.dir, "head/bigfile", oid.String()) }

// readAll reads a file as a program does that goes through it.
func readAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		_, err := f.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
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

// forget drops a file from the page cache of its file system.
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// flush writes a file to disk: only then can it be dropped from the page cache.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyTo copies the content of a file.
func copyTo(dst, src string) error {
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
