package zeo

import (
	"context"

	"wcfs/zcore/zodb"
)

// A server tells its last transaction, and that need not be one. A FileStorage whose server was killed
// in the middle of a commit cuts the rest of that off when it is opened again, and takes its tid for
// that of the last transaction, until it is opened once more. Such a tid is a phantom here.
//
// A phantom is passed on as head, since Python clients of that server are at it and would wait for
// head to reach it; it is not counted as known, so that nobody misses it when it is gone. Nothing is
// committed at or before a phantom later on, unless the clock went back: that ends following.

// phantom takes note that the server told head as its last transaction, when last was.
func (s *Storage) phantom(head, last zodb.Tid) {
	s.mu.Lock()
	s.phantoms[head] = last
	s.told = max(s.told, head)
	s.mu.Unlock()
	s.opt.Log.Warn("the ZEO server's last transaction is none: it was killed in the middle of one",
		"url", s.url, "told", head, "last", last)
}

// settled returns the last transaction up to tid, given that tid is one or a phantom.
func (s *Storage) settled(tid zodb.Tid) zodb.Tid {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.phantoms[tid]; ok {
		return last
	}
	return tid
}

// prove finds out whether head, which the server told, is a transaction.
func (s *Storage) prove(ctx context.Context, c *conn, head zodb.Tid) error {
	last, err := lastUpTo(ctx, c, head)
	if isServerError(err) { // a storage that cannot be iterated over: believed
		last, err = head, nil
	}
	if err != nil {
		return err
	}
	if last != head {
		s.phantom(head, last)
	}
	s.know(last)
	return nil
}

// lastUpTo returns the last transaction at or before tid, 0 for none. That is tid itself nearly
// always; otherwise it is looked for from the end, where servers look things up fast.
func lastUpTo(ctx context.Context, c *conn, tid zodb.Tid) (zodb.Tid, error) {
	tids, err := transactions(ctx, c, tid, tid)
	if err != nil || len(tids) > 0 || tid == 0 {
		return tid, err
	}
	// low is at or before the last transaction, once there is one; nothing is after high.
	low, high := tid, tid-1
	for reach := zodb.Tid(1 << 26); ; reach *= 2 { // a second
		low = tid - min(reach, tid-1)
		there, err := anyIn(ctx, c, low, high)
		if err != nil {
			return 0, err
		}
		if there {
			break
		}
		if high = low - 1; high == 0 {
			return 0, nil
		}
	}
	for low < high {
		mid := high - (high-low)/2
		there, err := anyIn(ctx, c, mid, high)
		switch {
		case err != nil:
			return 0, err
		case there:
			low = mid
		default:
			high = mid - 1
		}
	}
	return low, nil
}

// anyIn tells whether there is a transaction in [from, to].
func anyIn(ctx context.Context, c *conn, from, to zodb.Tid) (bool, error) {
	if from > to {
		return false, nil
	}
	it, err := c.call(ctx, "iterator_start", idBytes(from), idBytes(to))
	if err != nil {
		return false, err
	}
	v, err := c.call(ctx, "iterator_next", it)
	if err != nil || v == nil { // after its end the server forgets the iterator
		return false, err
	}
	_, err = c.call(ctx, "iterator_gc", []any{it})
	return true, err
}
