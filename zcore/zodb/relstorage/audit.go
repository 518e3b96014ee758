package relstorage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

const (
	auditEvery = 400 * time.Millisecond
	auditMax   = 4096 // commits looked back at
)

// audit notices when the past of the database is not what was reported: a transaction that appeared
// below the last one reported, or a server that does not have the last one. It belongs to the
// goroutine of Follow.
type audit struct {
	base  zodb.Tid   // tids hold every transaction of (base, last reported]
	tids  []zodb.Tid // ascending
	shown bool       // the present connection's server has shown the last one reported
	sure  bool       // the last of tids is known to be a transaction
	next  time.Time
}

// newAudit begins with the transaction after which following begins, if there is one: nobody was told of others.
func newAudit(after zodb.Tid) audit {
	if after == 0 {
		return audit{}
	}
	return audit{base: after - 1, tids: []zodb.Tid{after}}
}

// add notes a commit that was reported.
func (a *audit) add(c zodb.Commit) {
	a.shown, a.sure = true, true
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

// look compares, a few times a second, what was reported with what is there. Fewer is no harm if it is a pack that
// removed them. A standby that never showed the last may be one that is behind.
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
		a.shown, a.sure = true, true
		return a.missing(ctx, ses, there)
	}
	newest, err := ses.newest(ctx)
	if err != nil {
		return err
	}
	if !a.sure { // nobody said that following begins after a transaction
		if newest >= last {
			a.base, a.tids = last, nil
		}
		return nil
	}
	if newest < last && !a.shown {
		if primary, err := ses.primary(ctx); err != nil || !primary {
			return err // it is behind
		}
	}
	return gone(ctx, ses, last)
}

// missing looks for transactions that were reported and are not there. Those that a pack removed are forgotten.
func (a *audit) missing(ctx context.Context, ses session, there []zodb.Tid) error {
	if len(there) == len(a.tids) {
		return nil
	}
	for i := len(a.tids) - 1; i >= 0; i-- {
		if _, ok := slices.BinarySearch(there, a.tids[i]); !ok {
			if err := gone(ctx, ses, a.tids[i]); err != nil {
				return err
			}
			break // what a pack removed is older
		}
	}
	a.tids = there
	return nil
}

// beforeMore is asked before transactions after last are reported, as look may not have come yet.
func (a *audit) beforeMore(ctx context.Context, ses session, last zodb.Tid) error {
	if !a.sure {
		return nil
	}
	there, err := ses.tids(ctx, last-1, last, 1)
	if err != nil || len(there) > 0 {
		return err
	}
	return gone(ctx, ses, last)
}

// gone says what it means that a transaction is not there: a pack may have removed it if others beside it are packed.
func gone(ctx context.Context, ses session, tid zodb.Tid) error {
	if packed, err := ses.packedAround(ctx, tid); err != nil || packed {
		return err
	}
	newest, err := ses.newest(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: transaction %s, served before, is not there, the last one is %s (a failover that lost commits, a restored backup, "+
		"a cleared database, another one of that name); restart to read the database anew", ErrReplaced, tid, newest)
}
