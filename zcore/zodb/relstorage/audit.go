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
	base  zodb.Tid   // tids hold every transaction of (base, last reported]
	tids  []zodb.Tid // ascending
	shown bool       // the present connection's server has shown the last one reported
	next  time.Time
}

func newAudit(after zodb.Tid) audit { return audit{base: after} }

// add notes a commit that was reported.
func (a *audit) add(c zodb.Commit) {
	a.shown = true
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

// resume makes the next look, at once, one over a new connection: after a failover or a restore it may
// lead to another database.
func (a *audit) resume() { a.shown, a.next = false, time.Time{} }

// look compares, once in a while, what was reported with what is there. Fewer is no harm, a pack
// removes transactions, as long as the last is there or there are later ones. A server that never
// showed the last may be one that is behind.
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
	if len(there) > 0 && there[len(there)-1] == last {
		a.shown = true
		return nil
	}
	newest, err := ses.newest(ctx)
	if err != nil {
		return err
	}
	if behind := newest < last; behind == a.shown {
		return fmt.Errorf("%w: transaction %s, served before, is not there (a failover that lost commits, a restored backup, a cleared database); restart to read the database anew", ErrReplaced, last)
	}
	return nil
}
