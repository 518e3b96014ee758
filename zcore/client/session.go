package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"wcfs/zcore/watchproto"
	"wcfs/zcore/zodb"
)

// session is a view over one shared file: head, or one base. A view has another when its base moves.
type session struct {
	c       *Conn
	oid     zodb.Oid
	base    zodb.Tid // what shared is of, in base mode
	shared  *os.File // what is read where nothing is pinned
	blksize int64    // bytes
	link    *link

	mu        sync.Mutex
	lost      error                 // mu; why no more can be read
	at        zodb.Tid              // mu
	size      int64                 // mu; bytes, as of at
	sharedEnd int64                 // mu; from there on it is @at that is read, not shared; whole blocks
	pins      map[Blk]zodb.Tid      // mu; without those that mean shared
	atFile    *os.File              // mu; the file as of at
	revs      map[zodb.Tid]*os.File // mu; the file as of pinned revisions, kept open for the next read
	mem       *mapping              // mu; nil: none is wanted
}

// maxRevs bounds how many files of revisions a view keeps open.
const maxRevs = 32

// openSession has the file shown as of at, which the server has come to.
func openSession(ctx context.Context, c *Conn, oid zodb.Oid, at zodb.Tid, o *Options) (_ *session, err error) {
	s := &session{c: c, oid: oid, blksize: o.Blksize, pins: map[Blk]zodb.Tid{}, revs: map[zodb.Tid]*os.File{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.shared, s.base, err = openShared(c, oid, at); err != nil {
		return nil, err
	}
	if s.blksize == 0 {
		if s.blksize, err = c.blksize(s.shared, oid); err != nil {
			return nil, err
		}
	}
	if o.Map {
		if s.mem, err = newMapping(s.blksize); err != nil {
			return nil, err
		}
	}
	if s.link, err = openLink(c, s.pin, o.OnPin, s.lose); err != nil {
		return nil, err
	}
	if err := s.watch(ctx, at); err != nil {
		return nil, err
	}
	return s, s.arrange(at)
}

// openShared opens head, or the base that is right for at.
func openShared(c *Conn, oid zodb.Oid, at zodb.Tid) (f *os.File, base zodb.Tid, err error) {
	if !c.base {
		f, err = c.openBigfile("head", oid)
		return f, 0, err
	}
	if base, err = c.readTid("head/base"); err != nil {
		return nil, 0, err
	}
	if base < at {
		f, err = c.openBigfile("base/"+base.String(), oid)
		if err == nil || !errors.Is(err, unix.EINVAL) {
			return f, base, err
		}
		// else the file is younger than the base
	}
	f, err = c.openBigfile("base/"+at.String(), oid)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("@%s is older than what the server follows (base @%s): %w", at, base, err)
	}
	return f, at, err
}

// watch has the server show the file as of at. Meanwhile pins come, and are done.
func (s *session) watch(ctx context.Context, at zodb.Tid) error {
	r := watchproto.Request{Oid: s.oid, At: at, Base: s.base, HasBase: s.c.base}
	err := s.link.ask(ctx, r.String())
	if err == nil {
		return nil
	}
	if lost := s.err(); lost != nil {
		return lost
	}
	return err
}

// arrange takes size and tail of @at, once the server shows that.
func (s *session) arrange(at zodb.Tid) error {
	f, err := s.c.openRev(at, s.oid)
	if err != nil {
		return err
	}
	size, _, err1 := attrs(f)
	shared, _, err2 := attrs(s.shared)
	if err := errors.Join(err1, err2); err != nil {
		f.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.atFile != nil {
		s.atFile.Close()
	}
	s.at, s.atFile, s.size, s.sharedEnd = at, f, size, shared
	if size%s.blksize != 0 || shared%s.blksize != 0 {
		return fmt.Errorf("ZBigFile %s has %d bytes, which are no whole blocks of %d: give the right Options.Blksize", s.oid, size, s.blksize)
	}
	if s.mem == nil || s.lost != nil {
		return s.lost
	}
	return s.mapAllLocked()
}

// pin is called by the link. Bytes already read are not touched: readers check for pins after reading.
func (s *session) pin(p watchproto.Pin) error {
	if p.Oid != s.oid {
		return fmt.Errorf("watch link: pin of %s, which is not watched", p.Oid)
	}
	var f *os.File
	toShared := p.Head || s.c.base && p.Rev == s.base
	s.mu.Lock()
	mapped := s.mem != nil
	s.mu.Unlock()
	if mapped && !toShared {
		var err error
		if f, err = s.c.openRev(p.Rev, s.oid); err != nil {
			return fmt.Errorf("pin of block %d @%s: %w", p.Blk, p.Rev, err)
		}
		defer f.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if toShared {
		delete(s.pins, p.Blk)
	} else {
		s.pins[p.Blk] = p.Rev
	}
	if !mapped {
		return nil
	}
	return s.mapBlkLocked(p.Blk, f)
}

// lose is called by the link when it has ended.
func (s *session) lose(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = fmt.Errorf("%w: %w", ErrLost, why)
	}
	if s.mem != nil {
		s.mem.spoil()
	}
}

func (s *session) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// revFile returns the file as of rev. It stays open until the session ends, or as long as there are few.
func (s *session) revFile(rev zodb.Tid) (*os.File, error) {
	s.mu.Lock()
	f := s.revs[rev]
	s.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := s.c.openRev(rev, s.oid)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.revs[rev]; other != nil {
		f.Close()
		return other, nil
	}
	for old, g := range s.revs {
		if len(s.revs) < maxRevs {
			break
		}
		g.Close() // whoever reads from it gets the data, or os.ErrClosed and opens it again
		delete(s.revs, old)
	}
	s.revs[rev] = f
	return f, nil
}

// source is what a block is to be read from.
type source struct {
	f      *os.File
	shared bool  // pins are to be looked at afterwards
	whole  bool  // all of the view's size is there; else what is past the end is zeros
	size   int64 // of the view, bytes
}

// source tells where to read at off.
func (s *session) source(off int64) (source, error) {
	s.mu.Lock()
	rev := s.pins[Blk(off/s.blksize)]
	src := source{f: s.shared, shared: true, size: s.size}
	if rev == 0 && off >= s.sharedEnd {
		src = source{f: s.atFile, whole: true, size: s.size}
	}
	err := s.lost
	s.mu.Unlock()
	if err == nil && rev != 0 {
		src = source{size: src.size}
		src.f, err = s.revFile(rev)
	}
	return src, err
}

// readAt is View.ReadAt, while at does not change.
func (s *session) readAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := s.readPart(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readPart reads as much of one block as is wanted and comes at once.
func (s *session) readPart(p []byte, off int64) (int, error) {
	for {
		src, err := s.source(off)
		if err != nil {
			return 0, err
		}
		if off >= src.size {
			return 0, io.EOF
		}
		q := p[:min(int64(len(p)), s.blksize-off%s.blksize)]
		n, err := src.f.ReadAt(q, off)
		atEnd := errors.Is(err, io.EOF)
		switch {
		case src.shared:
			again, lost := s.readShared(off, n, atEnd)
			if lost != nil {
				return 0, lost
			}
			if again {
				continue
			}
		case errors.Is(err, os.ErrClosed):
			continue // forgotten, as there were many
		case atEnd && !src.whole:
			clear(q[n:])
			n = len(q)
		}
		if atEnd && n > 0 {
			err = nil
		}
		return n, err
	}
}

// readShared is told what came of reading the shared file; again says that it is not to be used.
func (s *session) readShared(off int64, n int, atEnd bool) (again bool, lost error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		return false, s.lost
	}
	if s.pins[Blk(off/s.blksize)] != 0 {
		return true, nil // it may be newer than at
	}
	if n == 0 && atEnd { // the file has become shorter
		s.sharedEnd = min(s.sharedEnd, off-off%s.blksize)
		return true, nil
	}
	return false, nil
}

// close leaves nothing; it may be called for a session that is not whole.
func (s *session) close() {
	if s.link != nil {
		s.link.close()
	}
	if s.shared != nil {
		s.shared.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = ErrClosed
	}
	for _, f := range s.revs {
		f.Close()
	}
	clear(s.revs)
	if s.atFile != nil {
		s.atFile.Close()
	}
	if s.mem != nil {
		s.mem.unmap()
		s.mem = nil
	}
}

func (s *session) atNow() zodb.Tid {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}
