package relstorage

import (
	"context"
	"maps"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

// settleWarn is after how long a writer that holds head back is named in the log.
const settleWarn = 10 * time.Second

// settle returns a tid such that every transaction not newer than it that will ever be visible is
// visible to statements begun after settle returned. See "No commit is skipped" in the package doc.
func (s *Storage) settle(ctx context.Context, ses session, last zodb.Tid) (zodb.Tid, error) {
	newest, err := ses.newest(ctx)
	if err != nil || newest <= last {
		return newest, err
	}
	pending, err := ses.writers(ctx)
	if err != nil {
		return 0, err
	}
	start, warned := time.Now(), false
	for wait := time.Millisecond; len(pending) > 0; wait = min(2*wait, s.opt.Poll) {
		sleep(ctx, wait)
		now, err := ses.writers(ctx)
		if err != nil {
			return 0, err
		}
		maps.DeleteFunc(pending, func(vxid string, _ int64) bool {
			_, still := now[vxid]
			return !still
		})
		if !warned && len(pending) > 0 && time.Since(start) > settleWarn {
			warned = true
			s.opt.Log.Warn("head waits for transactions that may add a lower tid: end them, or see who holds them in pg_stat_activity or pg_prepared_xacts",
				"url", s.url, "head", last.String(), "next", newest.String(),
				"pids", slices.Sorted(maps.Values(pending)))
		}
	}
	return newest, nil
}

// Head implements zodb.Storage.
func (s *Storage) Head(ctx context.Context) (zodb.Tid, error) {
	err := s.retry(ctx, func(ctx context.Context) error {
		return s.withSession(ctx, func(ses session) error {
			t, err := s.settle(ctx, ses, zodb.Tid(s.head.Load()))
			if err == nil {
				s.advance(t)
			}
			return err
		})
	})
	// A server that is behind the one asked before does not take anything back: loads wait for it.
	return zodb.Tid(s.head.Load()), err
}
