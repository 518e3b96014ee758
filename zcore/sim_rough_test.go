package zcore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// database is what the simulation runs over.
type database interface {
	zodb.Storage
	zodb.SerialLoader
	zodb.Lister
}

// gappy is a database whose follower falls behind now and then: what it missed is told as one gap.
type gappy struct {
	*memstorage.Store
	rng *rand.Rand // of Follow
}

func (g *gappy) Follow(ctx context.Context, after zodb.Tid, fn func(zodb.Commit) error) error {
	return g.Store.Follow(ctx, after, func(c zodb.Commit) error {
		if c.Tid <= after {
			return nil
		}
		if g.rng.IntN(6) == 0 {
			time.Sleep(time.Duration(g.rng.IntN(1500)) * time.Microsecond)
			head, err := g.Head(ctx)
			if err != nil {
				return err
			}
			c = zodb.Commit{Tid: head, Gap: after}
		}
		after = c.Tid
		return fn(c)
	})
}

// refused tells a reply that clients must live with: at lies in a gap, or before what is remembered, or the
// file was another one.
func refused(reply string) bool {
	return strings.Contains(reply, "too far away back") || strings.Contains(reply, "file epoch detected")
}

// replied waits for the reply to a request.
func replied(ctx context.Context, got <-chan string) (string, error) {
	select {
	case reply := <-got:
		return reply, nil
	case <-ctx.Done():
		return "", errors.New("no reply")
	}
}

// touches touches n pages. Now and then what is watched is watched again meanwhile.
func touches(ctx context.Context, rng *rand.Rand, n int, ask func(), touch func(context.Context) error, got <-chan string) error {
	asked := false
	for i := range n {
		if !asked && rng.IntN(6) == 0 {
			ask()
			asked = true
		}
		if err := touch(ctx); err != nil {
			return err
		}
		if !asked || i < n-1 && rng.IntN(3) > 0 {
			continue
		}
		reply, err := replied(ctx, got)
		if err == nil && reply != "ok" && !refused(reply) {
			err = errors.New(reply)
		}
		if err != nil {
			return fmt.Errorf("watched again: %w", err)
		}
		asked = false
	}
	return nil
}

// unwatched waits for n replies, of which the last request was `-`. No pin may come after that.
func unwatched(ctx context.Context, n int, got <-chan string, mu *sync.Mutex, pins map[Blk]zodb.Tid) error {
	for range n {
		reply, err := replied(ctx, got)
		if err == nil && reply != "ok" && !refused(reply) && !strings.Contains(reply, errRemoved.Error()) {
			err = errors.New(reply)
		}
		if err != nil {
			return fmt.Errorf("watch -: %w", err)
		}
	}
	mu.Lock()
	clear(pins)
	mu.Unlock()
	time.Sleep(50 * time.Microsecond)
	mu.Lock()
	defer mu.Unlock()
	if len(pins) > 0 {
		return fmt.Errorf("pins after `watch -`: %v", pins)
	}
	return nil
}

// past reads a page of a file as of two revisions at once.
func (s *sim) past(ctx context.Context, rng *rand.Rand) error {
	tids := s.db.Tids()
	newer := rng.IntN(len(tids))
	older := tids[max(0, newer-1-rng.IntN(3))]
	files := s.db.Files(older)
	if tids[newer] > s.core.Head() || len(files) == 0 {
		return nil
	}
	oid := files[rng.IntN(len(files))]
	size := min(s.db.Size(oid, older), s.db.Size(oid, tids[newer]))
	if size == 0 {
		return nil
	}
	off := rng.Int64N(size/simPage) * simPage
	read := func(at zodb.Tid) error {
		bf, ok := s.db.File(oid, at)
		if !ok {
			return nil
		}
		data, err := s.readRev(ctx, at, oid, off)
		blk, o := Blk(off/bf.Blksize), off%bf.Blksize
		if want := string(s.db.Data(oid, blk, at)[o : o+simPage]); err == nil && data != want {
			err = fmt.Errorf("f<%s>[%d]+%d @%s: %q, want %q", oid, blk, o, at, data, want)
		}
		return err
	}
	first := make(chan error, 1)
	go func() { first <- read(older) }()
	for _, err := range []error{read(tids[newer]), <-first} {
		if err != nil && !s.forgiven(err) {
			return err
		}
	}
	return nil
}
