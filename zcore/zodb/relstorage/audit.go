package relstorage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

const (
	auditEvery = time.Second
	auditMax   = 4096 // commits looked back at
)

// audit notices when the past of the database is not what was reported: a transaction that appeared
// below the last one reported, or a server that does not have the last one. It belongs to the
// goroutine of Follow.
type audit struct {
	base zodb.Tid   // tids hold every transaction of (base, last reported]
	tids []zodb.Tid // ascending
	next time.Time
}

func newAudit(after zodb.Tid) audit { return audit{base: after} }

// add notes a commit that was reported.
func (a *audit) add(c zodb.Commit) {
	if c.Gap != 0 {
		a.base, a.tids = c.Tid, nil
		return
	}
	a.tids = append(a.tids, c.Tid)
	if len(a.tids) >= 2*auditMax {
		a.base = a.tids[len(a.tids)-auditMax-1]
		a.tids = slices.Clone(a.tids[len(a.tids)-auditMax:])
	}
}

// look compares, once in a while, what was reported with what is there. Fewer is no harm: a pack
// removes transactions.
func (a *audit) look(ctx context.Context, ses session) error {
	if len(a.tids) == 0 || time.Now().Before(a.next) {
		return nil
	}
	a.next = time.Now().Add(auditEvery)
	last := a.tids[len(a.tids)-1]
	there, err := ses.tids(ctx, a.base, last, len(a.tids)+1)
	if err != nil {
		return err
	}
	for _, t := range there {
		if _, ok := slices.BinarySearch(a.tids, t); !ok {
			return fmt.Errorf("%w: %s became visible after %s: only one program at a time may write with tids of its own (zodbconvert); restart to read the database anew",
				ErrOutOfOrder, t, last)
		}
	}
	return nil
}

// resume checks over a new connection that the database has what was reported last: after a failover
// or a restore it may be another one. A server that is behind has yet to get there.
func (a *audit) resume(ctx context.Context, ses session) error {
	if len(a.tids) == 0 {
		return nil
	}
	last := a.tids[len(a.tids)-1]
	newest, err := ses.newest(ctx)
	if err != nil || newest < last {
		return err
	}
	there, err := ses.tids(ctx, last-1, last, 1)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		return fmt.Errorf("%w: transaction %s, served before, is not there (a failover that lost commits, or a restored backup); restart to read the database anew", ErrReplaced, last)
	}
	return nil
}
