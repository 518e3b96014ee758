package relstorage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// postgres is a database in a PostgreSQL server. Its statements are prepared once per connection (by
// pgx, on first use), run alone and so see one snapshot each, in read-only transactions.
type postgres struct {
	pool    *pgxpool.Pool
	timeout time.Duration
}

func openPostgres(url string, opt Options) (database, error) {
	cfg, err := poolConfig(url, opt)
	if err != nil {
		return nil, err
	}
	// Makes no connection yet.
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("relstorage: %w", err)
	}
	return &postgres{pool: pool, timeout: opt.Timeout}, nil
}

func (p *postgres) close() { p.pool.Close() }

const (
	pgUntil = `(SELECT min(n.tid) FROM object_state n WHERE n.zoid = $1 AND n.tid > $2)`
	pgFrom  = ` FROM object_state o WHERE o.zoid = $1 AND o.tid <= $2 ORDER BY o.tid DESC LIMIT 1`

	// octet_length knows the size of a state without fetching it.
	pgLoad = `SELECT o.tid, o.state IS NULL, coalesce(octet_length(o.state), 0), ` + pgUntil + `,
		CASE WHEN octet_length(o.state) <= $3 THEN o.state END,
		$4 = 0::bigint OR EXISTS (SELECT FROM "transaction" WHERE tid = $4)` + pgFrom
	pgSerial = `SELECT o.tid, o.state IS NULL, 0, ` + pgUntil + `,
		$3 = 0::bigint OR EXISTS (SELECT FROM "transaction" WHERE tid = $3)` + pgFrom
	pgExists = `SELECT EXISTS (SELECT FROM object_state WHERE zoid = $1),
		$2 = 0::bigint OR EXISTS (SELECT FROM "transaction" WHERE tid = $2)`

	pgNewest = `SELECT coalesce(max(tid), 0) FROM "transaction"`

	// Who may be about to add a tid. Advisory locks -1 (commit) and -2 (pack) are listed as pairs of
	// unsigned halves; imports lock the row of commit_row_lock.
	pgWriters = `WITH l AS MATERIALIZED (
			SELECT *, CASE WHEN locktype = 'advisory' AND classid = 4294967295 AND objsubid = 1 THEN objid::bigint - 4294967296 END AS advisory
			FROM pg_locks WHERE granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
		SELECT virtualtransaction, coalesce(pid, 0)::bigint FROM l
		WHERE advisory = -1
			OR locktype = 'relation' AND relation = to_regclass('commit_row_lock') AND mode = 'RowShareLock'
			OR locktype = 'relation' AND relation = to_regclass('"transaction"')
				AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
				AND NOT EXISTS (SELECT FROM l WHERE advisory = -2)`

	pgTids   = `SELECT tid FROM "transaction" WHERE tid > $1 AND tid <= $2 ORDER BY tid LIMIT $3`
	pgTxns   = `SELECT tid, packed FROM "transaction" WHERE tid > $1 AND tid <= $2 ORDER BY tid LIMIT $3`
	pgTxnObj = `SELECT tid, zoid FROM object_state WHERE tid > $1 AND tid <= $2 ORDER BY tid`

	pgPackedHere = `SELECT packed FROM "transaction" WHERE tid > 0 AND tid >= $1 ORDER BY tid LIMIT 1`
	pgPackedLast = `SELECT tid FROM "transaction" WHERE tid > 0 AND packed ORDER BY tid DESC LIMIT 1`

	pgPackedAround = `SELECT EXISTS (SELECT 1 FROM "transaction" WHERE tid > $1) AND (
			coalesce((SELECT packed FROM "transaction" WHERE tid > $1 ORDER BY tid LIMIT 1), false)
			OR coalesce((SELECT packed FROM "transaction" WHERE tid > 0 AND tid < $1 ORDER BY tid DESC LIMIT 1), false))`

	// substring of a state fetches no more than it needs, unless PostgreSQL compressed the state.
	pgOids = `SELECT zoid, state IS NOT NULL AND ($3 = ''::bytea
			OR position($3 IN substring(state FOR 256)) > 0 OR substring(state FOR 2) IN ('.z', '.e'))
		FROM (SELECT DISTINCT ON (zoid) zoid, state FROM object_state
			WHERE zoid > $1 AND tid <= $2 ORDER BY zoid, tid DESC LIMIT $4) newest`
)

func (p *postgres) revision(ctx context.Context, oid zodb.Oid, at, need zodb.Tid, data bool) (rev revision, err error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return rev, err
	}
	defer conn.Release()
	seen, err := knows(ctx, conn.Conn(), need)
	if err != nil {
		return rev, err
	}
	there := true
	defer func() {
		if err == nil && !there {
			rev.lost = seen
			delete(conn.Conn().PgConn().CustomData(), seenKey) // or it is asked for again and again
		}
	}()
	var until *int64
	if data {
		err = conn.QueryRow(ctx, pgLoad, int64(oid), int64(at), int64(record.MaxSize), int64(seen)).
			Scan(&rev.serial, &rev.null, &rev.size, &until, &rev.data, &there)
	} else {
		err = conn.QueryRow(ctx, pgSerial, int64(oid), int64(at), int64(seen)).
			Scan(&rev.serial, &rev.null, &rev.size, &until, &there)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = conn.QueryRow(ctx, pgExists, int64(oid), int64(seen)).Scan(&rev.exists, &there)
		return rev, err
	}
	rev.found, rev.until = true, zodb.TidMax
	if until != nil {
		rev.until = zodb.Tid(*until)
	}
	return rev, err
}

// knows makes sure that the server at the other end of conn has every transaction up to need. What a
// server has once shown it must keep, so this is remembered with the connection; it returns the newest one shown.
func knows(ctx context.Context, conn *pgx.Conn, need zodb.Tid) (head zodb.Tid, err error) {
	seen := conn.PgConn().CustomData()
	if head, ok := seen[seenKey].(zodb.Tid); ok && need <= head || need == 0 {
		return head, nil
	}
	if err := conn.QueryRow(ctx, pgNewest).Scan(&head); err != nil {
		return 0, err
	}
	seen[seenKey] = head
	if head < need {
		return 0, fmt.Errorf("%w: it has %s, not %s", ErrBehind, head, need)
	}
	return head, nil
}

const seenKey = "wcfs.head"

func (p *postgres) session(ctx context.Context) (session, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &pgSession{conn: conn, timeout: p.timeout}, nil
}

// check implements database. One query a table, so that a missing right is told by its name.
func (p *postgres) check(ctx context.Context) error {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return connectAdvice(err)
	}
	defer conn.Release()
	var has [3]bool
	err = conn.QueryRow(ctx, `SELECT to_regclass('"transaction"') IS NOT NULL,
		to_regclass('object_state') IS NOT NULL, to_regclass('current_object') IS NOT NULL`).
		Scan(&has[0], &has[1], &has[2])
	if err != nil {
		return err
	}
	if err := schemaError(has[0], has[1], has[2]); err != nil {
		return err
	}
	for _, sql := range []string{`SELECT tid, packed FROM "transaction" LIMIT 0`, `SELECT zoid, tid, state FROM object_state LIMIT 0`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			if code(err) == "42501" { // insufficient_privilege
				return fmt.Errorf("%w: GRANT SELECT ON \"transaction\", object_state TO this user", err)
			}
			return err
		}
	}
	return nil
}

// schemaError says what is wrong with a database that has only some of RelStorage's tables.
func schemaError(transaction, objectState, currentObject bool) error {
	switch {
	case transaction && objectState && currentObject:
		return nil
	case objectState && !transaction && !currentObject:
		return fmt.Errorf("%w: its tables are history-free, they keep no past revisions, and without those there are neither @revisions nor isolation: copy it with zodbconvert to a new database whose RelStorage section has keep-history true", ErrSchema)
	}
	return fmt.Errorf("%w: it lacks RelStorage's tables transaction, object_state and current_object: check the name of the database and the user's search_path, or make the tables by opening it once with RelStorage", ErrSchema)
}

// connectAdvice adds what to do about the commonest reasons for not getting a connection.
func connectAdvice(err error) error {
	switch code(err) {
	case "28P01", "28000":
		return fmt.Errorf("%w: put the right password into the file that --storage-password-file or PGPASSFILE names, and see the server's pg_hba.conf", err)
	case "3D000":
		return fmt.Errorf("%w: check the name of the database in the URL", err)
	case "53300":
		return fmt.Errorf("%w: raise the server's max_connections", err)
	}
	return err
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// kind implements database. An error that the server gave a code for helps itself only if it is about the server
// or the connection, or about what a standby had to cancel (class 40). Blocks that cannot be read or are damaged (58030,
// 58P01, XX...) are an answer. Everything without a code is about the network.
func (p *postgres) kind(err error) zodb.Kind {
	var pe *pgconn.PgError
	switch {
	case isScan(err):
		return zodb.KindAnswer
	case !errors.As(err, &pe):
		return zodb.KindOutage
	case pe.Code == "58030" || pe.Code == "58P01":
		return zodb.KindAnswer
	case strings.HasPrefix(pe.Code, "42"): // its tables are gone, or the right to read them
		return zodb.KindOtherDatabase
	}
	for _, class := range []string{"08", "28", "3D", "40", "53", "55", "57014", "57P", "58"} {
		if strings.HasPrefix(pe.Code, class) {
			return zodb.KindOutage
		}
	}
	return zodb.KindAnswer
}

func isScan(err error) bool {
	var se pgx.ScanArgError
	return errors.As(err, &se)
}
