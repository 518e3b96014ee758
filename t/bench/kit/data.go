package kit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// Database is a FileStorage that can be written to.
type Database struct {
	Path string
	DB   *zgen.DB
	w    *fswriter.Writer
}

// Create makes an empty one in dir, which may be "": the run's own.
func (b *Bench) Create(dir, name string) (*Database, error) {
	if dir == "" {
		dir = b.Dir
	}
	d := &Database{Path: filepath.Join(dir, name)}
	var err error
	if d.w, err = fswriter.Create(d.Path); err != nil {
		return nil, err
	}
	d.DB = zgen.New(d.w, zgen.Options{NoModel: true})
	return d, nil
}

// Close removes it.
func (d *Database) Close() {
	d.w.Close()
	os.Remove(d.Path)
	os.Remove(d.Path + ".index")
}

// Finish writes the index and puts all on disk: only then can it be dropped from the page cache.
func (d *Database) Finish() error { return errors.Join(d.w.WriteIndex(), Flush(d.Path)) }

// Filled is a database with one bigfile of n bytes at random.
func (b *Bench) Filled(dir, name string, n int64, kind zgen.Kind) (*Database, zodb.Oid, error) {
	block := make([]byte, Blksize)
	rng := rand.New(rand.NewPCG(1, 1))
	return b.blocks(dir, name, n/Blksize, 16, kind, func(zdata.Blk) []byte { // transactions of 32 MiB
		for i := 0; i < len(block); i += 8 {
			binary.LittleEndian.PutUint64(block[i:], rng.Uint64()|1<<63)
		}
		return block
	})
}

// Sparse is a database with one bigfile of n bytes, all of whose blocks are there, but of a few bytes each.
func (b *Bench) Sparse(name string, n int64) (*Database, zodb.Oid, error) {
	return b.blocks("", name, n/Blksize, 4096, zgen.Blk0, func(blk zdata.Blk) []byte { return fmt.Appendf(nil, "block %d", blk) })
}

func (b *Bench) blocks(dir, name string, n, perCommit int64, kind zgen.Kind, data func(zdata.Blk) []byte) (d *Database, oid zodb.Oid, err error) {
	if d, err = b.Create(dir, name); err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	tx := d.DB.Begin()
	oid = tx.NewFile(Blksize)
	for blk := range n {
		tx.Write(oid, zdata.Blk(blk), data(zdata.Blk(blk)), kind)
		if (blk+1)%perCommit == 0 {
			if _, err := tx.Commit(); err != nil {
				return nil, 0, err
			}
			tx = d.DB.Begin()
		}
	}
	if _, err := tx.Commit(); err != nil {
		return nil, 0, err
	}
	return d, oid, d.Finish()
}

// Read reads a file from the beginning as a program does that goes through it, or its first n bytes; n 0: all.
func Read(path string, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); n == 0 || off < n; {
		got, err := f.Read(buf)
		if off += int64(got); err == io.EOF && (n == 0 || off >= n) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Cold drops a file from the page cache of its file system, and tells how long reading it takes.
func Cold(path string) (time.Duration, error) {
	if err := Forget(path); err != nil {
		return 0, err
	}
	return Timed(func() error { return Read(path, 0) })
}

// Forget drops a file from the page cache of its file system.
func Forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// Flush puts a file on disk.
func Flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Copy copies the content of a file.
func Copy(dst, src string) error {
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
