package fusesrv

import (
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/zcore/tree"
	"wcfs/zcore/zodb"
)

// notified turns the kernel's answer to a notification into an error. An unknown inode is no error: the kernel
// then has no page of that file.
func notified(op string, node uint64, st fuse.Status) error {
	switch syscall.Errno(st) {
	case 0, syscall.ENOENT:
		return nil
	case syscall.ENODEV, syscall.EBADF, syscall.ENOTCONN: // unmounted or aborted
		return fmt.Errorf("%s inode %d: %w", op, node, tree.ErrNotConn)
	}
	return fmt.Errorf("%s inode %d: %w", op, node, syscall.Errno(st))
}

// Retrieve implements zcore.PageCache.
func (s *Server) Retrieve(oid zodb.Oid, off int64, p []byte) (int, error) {
	node, ok := s.fs.inodes.head(oid)
	if !ok || len(p) == 0 {
		return 0, nil
	}
	got := 0
	for got < len(p) {
		piece := p[got:min(len(p), got+s.maxWrite)]
		n, st := s.fuse.InodeRetrieveCache(node, off+int64(got), piece)
		got += n
		if err := notified("retrieve", node, st); err != nil {
			return got, err
		}
		if n < len(piece) {
			break
		}
	}
	return got, nil
}

// Invalidate implements zcore.PageCache.
func (s *Server) Invalidate(oid zodb.Oid, off, size int64) error {
	node, ok := s.fs.inodes.head(oid)
	if !ok || size <= 0 { // for the kernel, no size is the whole file
		return nil
	}
	return notified("invalidate", node, s.fuse.InodeNotify(node, off, size))
}

// Drop implements zcore.PageCache.
func (s *Server) Drop(oid zodb.Oid) error {
	node, ok := s.fs.inodes.head(oid)
	if !ok {
		return nil
	}
	return notified("drop", node, s.fuse.InodeNotify(node, 0, 0))
}

// DropName implements zcore.PageCache.
func (s *Server) DropName(oid zodb.Oid) error {
	dir, ok := s.fs.inodes.headDir(oid)
	if !ok {
		return nil
	}
	return notified("drop name in", dir, s.fuse.EntryNotify(dir, oid.String()))
}

// InvalidateAttr implements zcore.PageCache.
func (s *Server) InvalidateAttr(oid zodb.Oid) error {
	node, ok := s.fs.inodes.head(oid)
	if !ok {
		return nil
	}
	return notified("invalidate attributes", node, s.fuse.InodeNotify(node, -1, 0))
}

// Upload implements zcore.PageCache.
func (s *Server) Upload(oid zodb.Oid, off int64, data []byte) error {
	node, ok := s.fs.inodes.head(oid)
	if !ok {
		return nil
	}
	return s.store(node, off, data)
}

// StoreRev implements zcore.PageCache. The kernel comes to know the file by a stat of its path.
func (s *Server) StoreRev(rev zodb.Tid, oid zodb.Oid, off int64, data []byte) error {
	name := "@" + rev.String()
	path := filepath.Join(s.dir, name, "bigfile", oid.String())
	dev, ino, err := s.looker.look(path)
	if err != nil {
		return err
	}
	if dev != deviceNumber(s.dev) {
		return nil // something else is mounted there: ours is out of sight
	}
	if in := s.fs.inodes.get(ino); in != nil {
		s.fs.inodes.use(in, 0)
	}
	return s.store(ino, off, data)
}

// store counts as a request, so that what it stores as the file system is cut off is dropped again.
func (s *Server) store(node uint64, off int64, data []byte) error {
	s.fs.gate.inFlight.Add(1)
	defer s.fs.gate.inFlight.Add(-1)
	if s.fs.gate.closed() {
		return fmt.Errorf("store inode %d: %w", node, tree.ErrNotConn)
	}
	for len(data) > 0 {
		n := min(len(data), s.maxWrite)
		st := s.fuse.InodeNotifyStoreCache(node, off, data[:n])
		if err := notified("store", node, st); err != nil || st != fuse.OK {
			return err
		}
		off += int64(n)
		data = data[n:]
	}
	return nil
}

// SetDisconnected puts the mount into EIO mode: from now on every access fails with ENOTCONN, close(2)
// included, those under way too, and what is cached is dropped; the mount entry stays. It returns
// when that is so.
//
// The connection is kept and answered with ENOTCONN, since the end of it would leave cached pages
// readable and nobody to notice an unmount. Only when requests hang in the tree is it aborted.
func (s *Server) SetDisconnected() {
	s.disconnect.Do(func() {
		s.fs.stopAll()
		over := make(chan struct{})
		go func() {
			defer close(over)
			s.dropAll()
			if s.drained() {
				s.dropAll() // answers that were on their way
			}
		}()
		patience := time.After(disconnectPatience)
		for {
			select {
			case <-over:
				return
			case <-s.done:
				return
			case <-patience:
			}
			if s.fs.gate.inFlight.Load() > 0 {
				break
			}
			patience = time.After(disconnectPatience) // nothing hangs, there is just much to drop
		}
		s.log.Warn("requests do not end; aborting the FUSE connection", "dir", s.dir)
		if err := abort(s.dev); err != nil {
			s.log.Error("cannot abort the FUSE connection", "dir", s.dir, "err", err)
		}
	})
}

// disconnectPatience is how long requests get to end by themselves in SetDisconnected.
const disconnectPatience = 1500 * time.Millisecond

// dropAll has the kernel drop data and attributes of all files. It waits for READs under way.
func (s *Server) dropAll() {
	for _, id := range s.fs.inodes.ids() {
		if st := s.fuse.InodeNotify(id, 0, 0); st != fuse.OK && st != fuse.ENOENT {
			return // unmounted or aborted
		}
	}
}

// drained waits until no request is under way; false when serving ends first.
func (s *Server) drained() bool {
	for tick := time.Tick(5 * time.Millisecond); s.fs.gate.inFlight.Load() > 0; {
		select {
		case <-tick:
		case <-s.done:
			return false
		}
	}
	return true
}
