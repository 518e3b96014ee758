// Package client reads bigfiles of a mounted wcfs as of a revision, while others commit.
//
//	c, err := client.Connect("/mnt/wcfs")
//	v, err := c.Open(ctx, oid, client.Head, client.Options{})
//	n, err := v.ReadAt(p, off)      // the bytes as of v.At()
//	err = v.Resync(ctx, client.Head) // move on to what was committed since
//	err = v.Close()
//
// It owns the watch link of each view, the pins that came over it and, on request, a mapping that follows
// them. It does not own the mount, and keeps no data: all views share the kernel's page cache.
//
// Invariant: ReadAt gives the bytes of At() or an error, never a byte of another revision. When the server is
// lost, or ends the watch link, the view is lost: every read is an error from then on, and the mapping is
// SIGBUS.
//
// Over FUSE a view reads head/bigfile and is told by pins which blocks to take from @<rev>/ instead. On a
// 9p mount, and where it is asked for, it works in base mode: the same over base/<tid>/bigfile, which
// never changes, so that the guest's page cache may keep it. The mount must be cache=none and, over native
// 9P, have a uname.
//
// Why ReadAt does not go through a mapping. A goroutine in a page fault keeps its P: as soon as a garbage
// collection starts, all goroutines stop until the fault is served, the one that acknowledges pins too, and
// the fault may be waiting for it. So data is read by pread, whose wait the scheduler knows of, and then it
// is checked that the block was not pinned meanwhile: the server shows newer content only after the pin is
// acknowledged, so what was read is then of the revision. This needs no address space and works for blocks of
// any size. Bytes is there for programs that can live with what it says.
//
// Locks: View.use is held by readers over their I/O and by Resync and Close alone; nothing that answers
// pins takes it. session.mu guards a view's state; it is held over mmap, close and, where a whole file is
// mapped, opens below @<rev>/, none of which ever waits for pins. Order: View.use, session.mu; link.mu is a leaf.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// Blk is the number of a block in its file.
type Blk = zdata.Blk

// Head as a revision to open or go to is the newest transaction.
const Head zodb.Tid = 0

// Kinds of errors, for errors.Is.
var (
	// ErrLost says that the server is gone or has ended the view.
	ErrLost = errors.New("view is lost")
	// ErrClosed says that the view was closed.
	ErrClosed = errors.New("view is closed")
	// ErrGoingBack says that a view was to go to an older revision.
	ErrGoingBack = errors.New("a view cannot go back")
)

// Conn is a mounted wcfs. Its methods may be called from many goroutines.
type Conn struct {
	dir  string
	base bool // work in base mode
}

// Connect checks that a wcfs is mounted at dir. It holds nothing open.
func Connect(dir string) (*Conn, error) {
	is9p, err := mountIs9p(dir)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", dir, err)
	}
	c := &Conn{dir: dir, base: is9p}
	if _, err := c.Head(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("no wcfs is mounted there")
		}
		return nil, fmt.Errorf("connect to %s: %w", dir, err)
	}
	return c, nil
}

// ConnectBase is Connect for a mount that is to be used in base mode though it is not 9p, such as
// another file system that passes a 9p mount on.
func ConnectBase(dir string) (*Conn, error) {
	c, err := Connect(dir)
	if err == nil {
		c.base = true
	}
	return c, err
}

// BaseMode tells whether views are over a base instead of head.
func (c *Conn) BaseMode() bool { return c.base }

// Head returns the newest transaction that the server shows.
func (c *Conn) Head() (zodb.Tid, error) { return c.readTid("head/at") }

// readTid reads a file that holds a tid.
func (c *Conn) readTid(name string) (zodb.Tid, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		return 0, err
	}
	tid, err := zodb.ParseTid(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return tid, nil
}

// waitHead returns at, or the head if at is Head; it waits until the server has come to at.
func (c *Conn) waitHead(ctx context.Context, at zodb.Tid) (zodb.Tid, error) {
	const often, seldom = time.Millisecond, 50 * time.Millisecond
	for wait := often; ; wait = min(wait*2, seldom) {
		head, err := c.Head()
		if err != nil {
			return 0, err
		}
		if at == Head {
			return head, nil
		}
		if at <= head {
			return at, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, fmt.Errorf("head is still @%s: %w", head, ctx.Err())
		}
	}
}

func (c *Conn) openRev(rev zodb.Tid, oid zodb.Oid) (*os.File, error) {
	return c.openBigfile("@"+rev.String(), oid)
}

// openBigfile opens a bigfile below dir. Errors say what they mean for a bigfile.
func (c *Conn) openBigfile(dir string, oid zodb.Oid) (*os.File, error) {
	f, err := os.Open(filepath.Join(c.dir, dir, "bigfile", oid.String()))
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%s/bigfile/%s: there is no ZBigFile %s: %w", dir, oid, oid, unix.EINVAL)
	}
	return f, err
}

// attrs returns size and st_blksize.
func attrs(f *os.File) (size, blksize int64, err error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	return fi.Size(), int64(fi.Sys().(*syscall.Stat_t).Blksize), nil
}
