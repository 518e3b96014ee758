package relstorage

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wcfs/zcore/zodb"
)

// pgSession is one connection to PostgreSQL. Each query is bounded, so that a peer that swallows
// packets is noticed.
type pgSession struct {
	conn    *pgxpool.Conn
	timeout time.Duration
}

func (s *pgSession) release() { s.conn.Release() }

func (s *pgSession) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

func (s *pgSession) newest(ctx context.Context) (t zodb.Tid, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = s.conn.QueryRow(ctx, pgNewest).Scan(&t)
	return t, err
}

func (s *pgSession) packedAround(ctx context.Context, tid zodb.Tid) (is bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = s.conn.QueryRow(ctx, pgPackedAround, int64(tid)).Scan(&is)
	return is, err
}

func (s *pgSession) primary(ctx context.Context) (is bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = s.conn.QueryRow(ctx, `SELECT NOT pg_is_in_recovery()`).Scan(&is)
	return is, err
}

func (s *pgSession) writers(ctx context.Context) (map[string]int64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	m := map[string]int64{}
	var vxid string
	var pid int64
	rows, err := s.conn.Query(ctx, pgWriters)
	if err != nil {
		return nil, err
	}
	_, err = pgx.ForEachRow(rows, []any{&vxid, &pid}, func() error {
		m[vxid] = pid
		return nil
	})
	return m, err
}

func (s *pgSession) tids(ctx context.Context, after, upto zodb.Tid, max int) ([]zodb.Tid, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.conn.Query(ctx, pgTids, int64(after), int64(upto), max)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[zodb.Tid])
}

func (s *pgSession) transactions(ctx context.Context, after, upto zodb.Tid, max int) (txns []transaction, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = pgx.BeginTxFunc(ctx, s.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var t transaction
		rows, err := tx.Query(ctx, pgTxns, int64(after), int64(upto), max)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&t.tid, &t.packed}, func() error {
			txns = append(txns, t)
			return nil
		})
		if err != nil || len(txns) == 0 {
			return err
		}
		var tid zodb.Tid
		var oid int64
		i := 0
		rows, err = tx.Query(ctx, pgTxnObj, int64(after), int64(txns[len(txns)-1].tid))
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&tid, &oid}, func() error {
			i = addOid(txns, i, tid, zodb.Oid(oid))
			return nil
		})
		return err
	})
	return txns, err
}

// addOid adds oid to the transaction tid, which is txns[i] or comes after it, and returns its index.
func addOid(txns []transaction, i int, tid zodb.Tid, oid zodb.Oid) int {
	for i < len(txns)-1 && txns[i].tid < tid {
		i++
	}
	if txns[i].tid == tid {
		txns[i].oids = append(txns[i].oids, oid)
	}
	return i
}

func (s *pgSession) packedAt(ctx context.Context, at zodb.Tid) (t zodb.Tid, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var packed bool
	err = s.conn.QueryRow(ctx, pgPackedHere, int64(at)).Scan(&packed)
	if err == nil && packed {
		err = s.conn.QueryRow(ctx, pgPackedLast).Scan(&t)
	}
	if err == pgx.ErrNoRows {
		return 0, nil
	}
	return t, err
}

func (s *pgSession) oids(ctx context.Context, at zodb.Tid, naming string, from int64, max int) (oids []zodb.Oid, last int64, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.conn.Query(ctx, pgOids, from, int64(at), []byte(naming), max)
	if err != nil {
		return nil, 0, err
	}
	last = from
	var data bool
	_, err = pgx.ForEachRow(rows, []any{&last, &data}, func() error {
		if data {
			oids = append(oids, zodb.Oid(last))
		}
		return nil
	})
	return oids, last, err
}
