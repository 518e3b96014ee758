package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// Options of a view. The zero value reads only.
type Options struct {
	// Map has the file mapped too, see View.Bytes.
	Map bool

	// OnPin, if not nil, is called after each pin is acknowledged, by the goroutine that answers pins. It
	// must return at once: pins that come meanwhile wait, and a process that lets them wait is killed.
	OnPin func(Pin)

	// Blksize is the file's block size in bytes; 0: what the mount says. Some kernels and QEMU's virtfs
	// do not tell the true one.
	Blksize int64
}

// Pin says that a block is shown as of a revision from now on.
type Pin = watchproto.Pin

// View is one bigfile as of a revision. ReadAt and what tells of the view may be called from many
// goroutines; Resync and Close wait for reads to end.
type View struct {
	c    *Conn
	oid  zodb.Oid
	opts Options

	use    sync.RWMutex
	s      *session // use; not nil
	closed bool     // use
}

// Open shows the ZBigFile oid as of at, or as of head. If the server has not come to at yet it waits, as
// long as ctx allows.
func (c *Conn) Open(ctx context.Context, oid zodb.Oid, at zodb.Tid, o Options) (*View, error) {
	v := &View{c: c, oid: oid, opts: o}
	at, err := c.waitHead(ctx, at)
	if err == nil {
		v.s, err = openSession(ctx, c, oid, at, &v.opts)
	}
	if err != nil {
		return nil, fmt.Errorf("open ZBigFile %s of %s: %w", oid, c.dir, err)
	}
	return v, nil
}

// session returns the present one for a look at its state.
func (v *View) session() *session {
	v.use.RLock()
	defer v.use.RUnlock()
	return v.s
}

// Oid is the file's.
func (v *View) Oid() zodb.Oid { return v.oid }

// At is the revision that is shown.
func (v *View) At() zodb.Tid {
	s := v.session()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// Size is the file's as of At, in bytes: a whole number of blocks.
func (v *View) Size() int64 {
	s := v.session()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// Blksize is the size of a block in bytes.
func (v *View) Blksize() int64 { return v.session().blksize }

// Pinned returns the blocks that are read as of a revision instead of from what all views share.
func (v *View) Pinned() map[Blk]zodb.Tid {
	s := v.session()
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.pins)
}

// Err returns why the view is lost, nil if it is not.
func (v *View) Err() error { return v.session().err() }

// Lost is closed when the view is lost or closed, or when Resync has moved to another base.
func (v *View) Lost() <-chan struct{} { return v.session().link.ended }

// ReadAt is io.ReaderAt of the bytes as of At. It may wait for other clients to acknowledge their pins.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	v.use.RLock()
	defer v.use.RUnlock()
	if v.closed {
		return 0, ErrClosed
	}
	if off < 0 {
		return 0, fmt.Errorf("read ZBigFile %s at %d: %w", v.oid, off, unix.EINVAL)
	}
	n, err := v.s.readAt(p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read ZBigFile %s at %d: %w", v.oid, off+int64(n), err)
	}
	return n, err
}

// Resync moves the view to a later revision, or to head. If the server has not come to it yet it waits. A
// revision that is refused leaves the view as it was; another error, the end of ctx during the move
// included, loses it.
func (v *View) Resync(ctx context.Context, at zodb.Tid) error {
	v.use.Lock()
	defer v.use.Unlock()
	err := v.resync(ctx, at)
	if err != nil {
		return fmt.Errorf("resync of ZBigFile %s of %s: %w", v.oid, v.c.dir, err)
	}
	return nil
}

func (v *View) resync(ctx context.Context, at zodb.Tid) error {
	if v.closed {
		return ErrClosed
	}
	s := v.s
	if err := s.err(); err != nil {
		return err
	}
	at, err := v.c.waitHead(ctx, at)
	if err != nil {
		return err
	}
	if was := s.atNow(); at < was {
		return fmt.Errorf("@%s is before @%s: %w", at, was, ErrGoingBack)
	}
	if moved, err := v.moveBase(ctx, at); moved || err != nil {
		return err
	}
	if err = s.watch(ctx, at); err == nil {
		err = s.arrange(at)
	}
	if err != nil && !errors.As(err, new(refusal)) {
		s.lose(err)
	}
	return err
}

// moveBase changes to the present base, if there is a newer one: with a link of its own, so that no pin
// can be of either.
func (v *View) moveBase(ctx context.Context, at zodb.Tid) (moved bool, err error) {
	if !v.c.base {
		return false, nil
	}
	base, err := v.c.readTid("head/base")
	if err != nil || min(base, at) <= v.s.base {
		return false, err
	}
	s, err := openSession(ctx, v.c, v.oid, at, &v.opts)
	if err != nil {
		return false, err
	}
	old := v.s
	v.s = s
	old.close()
	return true, nil
}

// Bytes returns the file as of At as memory, nil without Options.Map or when it is empty. It is valid
// until Resync or Close. It follows pins, and is SIGBUS when the view is lost.
//
// A goroutine that touches a page that is not resident can stop the whole program (see the package's
// doc) until the server gives up waiting for a pin, and kills it. Call Populate first, with reads by
// ReadAt instead wherever that does not do, and set debug.SetPanicOnFault where losing the server
// must not end the program. Programs that want memory, and nothing else, should use the C library.
func (v *View) Bytes() []byte {
	return v.session().bytes()
}

func (s *session) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil || s.mem.addr == nil || s.size == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(s.mem.addr), s.size)
}

// Populate has the pages of [off, off+n) of Bytes resident, in a way that stops nothing else. They stay as long
// as memory is not short and nobody commits to them. If the bytes are not available: an error.
func (v *View) Populate(off, n int64) error {
	v.use.RLock()
	defer v.use.RUnlock()
	mem := v.s.bytes()
	if v.closed || off < 0 || n < 0 || off > int64(len(mem))-n {
		return fmt.Errorf("populate %d bytes at %d of ZBigFile %s: not mapped: %w", n, off, v.oid, unix.EINVAL)
	}
	page := int64(unix.Getpagesize())
	start := off - off%page
	if n == 0 {
		return nil
	}
	if err := unix.Madvise(mem[start:off+n], unix.MADV_POPULATE_READ); err != nil {
		return fmt.Errorf("populate %d bytes at %d of ZBigFile %s: %w", n, off, v.oid, err)
	}
	return nil
}

// Close ends the view. With pins under way, too, that is no fault in the server's eyes. Closing again does nothing.
func (v *View) Close() error {
	v.use.Lock()
	defer v.use.Unlock()
	if !v.closed {
		v.closed = true
		v.s.close()
	}
	return nil
}
