package relstorage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	neturl "net/url"
	"os"
	"strings"
	"sync/atomic"

	sqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// sqliteDB is a database in RelStorage's main.sqlite3, opened read-only. It is in WAL mode: readers do
// not hinder the writer, nor it them. There is one writer at a time and it chooses its tid as such, so
// transactions become visible in the order of their tids.
type sqliteDB struct {
	db   *sql.DB
	path string
	main *sqliteMain
	seen atomic.Uint64 // the newest tid that was visible

	load, serial, exists, last *sql.Stmt // set by check, before anything else is called
}

func openSqlite(url string, opt Options) (database, error) {
	path, err := sqlitePath(url)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("relstorage: %w", err)
	}
	dsn := neturl.URL{Scheme: "file", Opaque: (&neturl.URL{Path: path}).EscapedPath(), RawQuery: neturl.Values{
		"mode": {"ro"}, "_pragma": {fmt.Sprintf("busy_timeout(%d)", opt.Timeout.Milliseconds()), "query_only(1)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("relstorage: %s: %w", path, err)
	}
	db.SetMaxOpenConns(opt.Conns + 1)
	db.SetMaxIdleConns(opt.Conns + 1)
	main, err := openMain(path)
	if err != nil {
		return nil, fmt.Errorf("relstorage: %s: %w", path, err)
	}
	return &sqliteDB{db: db, path: path, main: main}, nil
}

func (d *sqliteDB) close() {
	d.db.Close()
	d.main.db.Close()
}

const (
	sqlUntil = `(SELECT min(n.tid) FROM object_state n WHERE n.zoid = ?1 AND n.tid > ?2)`
	sqlFrom  = ` FROM object_state o WHERE o.zoid = ?1 AND o.tid <= ?2 ORDER BY o.tid DESC LIMIT 1`
	sqlLoad  = `SELECT o.tid, o.state IS NULL, coalesce(length(o.state), 0), ` + sqlUntil + `,
		CASE WHEN length(o.state) <= ?3 THEN o.state END, ?4 = 0 OR EXISTS (SELECT 1 FROM "transaction" WHERE tid = ?4)` + sqlFrom
	sqlSerial       = `SELECT o.tid, o.state IS NULL, 0, ` + sqlUntil + `, ?3 = 0 OR EXISTS (SELECT 1 FROM "transaction" WHERE tid = ?3)` + sqlFrom
	sqlExists       = `SELECT EXISTS (SELECT 1 FROM object_state WHERE zoid = ?1), ?2 = 0 OR EXISTS (SELECT 1 FROM "transaction" WHERE tid = ?2)`
	sqlNewest       = `SELECT coalesce(max(tid), 0) FROM "transaction"`
	sqlTids         = `SELECT tid FROM "transaction" WHERE tid > ? AND tid <= ? ORDER BY tid LIMIT ?`
	sqlTxns         = `SELECT tid, packed FROM "transaction" WHERE tid > ? AND tid <= ? ORDER BY tid LIMIT ?`
	sqlTxnObj       = `SELECT tid, zoid FROM object_state WHERE tid > ? AND tid <= ? ORDER BY tid`
	sqlPackedHere   = `SELECT packed FROM "transaction" WHERE tid > 0 AND tid >= ? ORDER BY tid LIMIT 1`
	sqlPackedLast   = `SELECT tid FROM "transaction" WHERE tid > 0 AND packed ORDER BY tid DESC LIMIT 1`
	sqlPackedAround = `SELECT EXISTS (SELECT 1 FROM "transaction" WHERE tid > ?1) AND (
			coalesce((SELECT packed FROM "transaction" WHERE tid > ?1 ORDER BY tid LIMIT 1), false)
			OR coalesce((SELECT packed FROM "transaction" WHERE tid > 0 AND tid < ?1 ORDER BY tid DESC LIMIT 1), false))`

	// Columns beside max() come from the row of the maximum: documented by SQLite.
	sqlOids = `SELECT zoid, state IS NOT NULL AND (?3 = ''
			OR instr(substr(state, 1, 256), CAST(?3 AS BLOB)) > 0 OR substr(state, 1, 2) IN (x'2e7a', x'2e65')), max(tid)
		FROM object_state WHERE zoid > ?1 AND tid <= ?2 GROUP BY zoid ORDER BY zoid LIMIT ?4`
	sqlTables = `SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('transaction', 'object_state', 'current_object')`
)

func (d *sqliteDB) revision(ctx context.Context, oid zodb.Oid, at, _ zodb.Tid, data bool) (rev revision, err error) {
	seen := d.seen.Load()
	rev, err = d.find(ctx, oid, at, seen, data)
	if bad := d.main.sure(ctx); bad != nil { // before anything is given out
		return revision{}, bad
	}
	return rev, err
}

// find is revision less the check of the file.
func (d *sqliteDB) find(ctx context.Context, oid zodb.Oid, at zodb.Tid, seen uint64, data bool) (rev revision, err error) {
	there := true
	defer func() {
		if err == nil && !there {
			rev.lost = zodb.Tid(seen)
		}
	}()
	var until sql.NullInt64
	if data {
		err = d.load.QueryRowContext(ctx, int64(oid), int64(at), int64(record.MaxSize), int64(seen)).
			Scan(&rev.serial, &rev.null, &rev.size, &until, &rev.data, &there)
	} else {
		err = d.serial.QueryRowContext(ctx, int64(oid), int64(at), int64(seen)).
			Scan(&rev.serial, &rev.null, &rev.size, &until, &there)
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = d.exists.QueryRowContext(ctx, int64(oid), int64(seen)).Scan(&rev.exists, &there)
		return rev, err
	}
	rev.found, rev.until = true, zodb.TidMax
	if until.Valid {
		rev.until = zodb.Tid(until.Int64)
	}
	return rev, err
}

// session implements database. Nothing here asks for the same connection twice.
func (d *sqliteDB) session(context.Context) (session, error) { return d, nil }

func (d *sqliteDB) release() {}

func (d *sqliteDB) check(ctx context.Context) error {
	var names []string
	err := each(ctx, d.db, sqlTables, nil, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	if sqliteCode(err) == sqlite3.SQLITE_NOTADB {
		return fmt.Errorf("%w: it is not a SQLite file", ErrSchema)
	}
	if sqliteCode(err) == sqlite3.SQLITE_CANTOPEN || sqliteCode(err) == sqlite3.SQLITE_READONLY {
		return fmt.Errorf("%w: reading a database in WAL mode takes write permission for its folder (the -shm file)", err)
	}
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, n := range names {
		has[n] = true
	}
	if err := schemaError(has["transaction"], has["object_state"], has["current_object"]); err != nil {
		return err
	}
	for stmt, text := range map[**sql.Stmt]string{&d.load: sqlLoad, &d.serial: sqlSerial, &d.exists: sqlExists, &d.last: sqlNewest} {
		if *stmt, err = d.db.PrepareContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// kind implements database. What SQLite says of a page that it cannot read or that is damaged is an answer; an error
// that has no code of SQLite is about the values in a row, or says that the database is closed.
func (d *sqliteDB) kind(err error) zodb.Kind {
	var se *sqlite.Error
	switch {
	case errors.Is(err, sql.ErrConnDone), err != nil && err.Error() == "sql: database is closed":
		return zodb.KindOutage
	case !errors.As(err, &se):
		return zodb.KindAnswer
	case se.Code() == sqlite3.SQLITE_IOERR_READ, se.Code() == sqlite3.SQLITE_IOERR_SHORT_READ,
		se.Code() == sqlite3.SQLITE_IOERR_CORRUPTFS, se.Code() == sqlite3.SQLITE_IOERR_DATA:
		return zodb.KindAnswer
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_SCHEMA,
		sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL:
		return zodb.KindOutage
	case sqlite3.SQLITE_NOTADB: // it was one when it was opened
		return zodb.KindOtherDatabase
	case sqlite3.SQLITE_ERROR: // the statements were prepared once: its tables were there
		if strings.Contains(se.Error(), "no such table") {
			return zodb.KindOtherDatabase
		}
	}
	return zodb.KindAnswer
}

// sqliteCode returns the primary result code of err, 0 when it is none.
func sqliteCode(err error) int {
	var se *sqlite.Error
	if errors.As(err, &se) {
		return se.Code() & 0xff
	}
	return 0
}

// querier is what *sql.DB and *sql.Tx have in common.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls fn for every row.
func each(ctx context.Context, q querier, query string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// newest implements session. Connections stay with a file that another took the place of.
func (d *sqliteDB) newest(ctx context.Context) (t zodb.Tid, err error) {
	if err := d.main.sure(ctx); err != nil {
		return 0, err
	}
	if err = d.last.QueryRowContext(ctx).Scan(&t); err == nil {
		d.seen.Store(uint64(t))
	}
	return t, err
}

func (d *sqliteDB) packedAround(ctx context.Context, tid zodb.Tid) (is bool, err error) {
	err = d.db.QueryRowContext(ctx, sqlPackedAround, int64(tid)).Scan(&is)
	return is, err
}

// primary implements session.
func (d *sqliteDB) primary(context.Context) (bool, error) {
	return true, nil
}

func (d *sqliteDB) writers(context.Context) (map[string]int64, error) { return nil, nil }

func (d *sqliteDB) tids(ctx context.Context, after, upto zodb.Tid, max int) (tids []zodb.Tid, err error) {
	err = each(ctx, d.db, sqlTids, []any{int64(after), int64(upto), max}, func(scan func(...any) error) error {
		var t zodb.Tid
		err := scan(&t)
		tids = append(tids, t)
		return err
	})
	return tids, err
}

func (d *sqliteDB) transactions(ctx context.Context, after, upto zodb.Tid, max int) (txns []transaction, err error) {
	tx, err := d.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	err = each(ctx, tx, sqlTxns, []any{int64(after), int64(upto), max}, func(scan func(...any) error) error {
		var t transaction
		err := scan(&t.tid, &t.packed)
		txns = append(txns, t)
		return err
	})
	if err != nil || len(txns) == 0 {
		return nil, err
	}
	i := 0
	err = each(ctx, tx, sqlTxnObj, []any{int64(after), int64(txns[len(txns)-1].tid)}, func(scan func(...any) error) error {
		var tid zodb.Tid
		var oid int64
		err := scan(&tid, &oid)
		i = addOid(txns, i, tid, zodb.Oid(oid))
		return err
	})
	return txns, err
}

func (d *sqliteDB) packedAt(ctx context.Context, at zodb.Tid) (t zodb.Tid, err error) {
	var packed bool
	err = d.db.QueryRowContext(ctx, sqlPackedHere, int64(at)).Scan(&packed)
	if err == nil && packed {
		err = d.db.QueryRowContext(ctx, sqlPackedLast).Scan(&t)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return t, err
}

func (d *sqliteDB) oids(ctx context.Context, at zodb.Tid, naming string, from int64, max int) (oids []zodb.Oid, last int64, err error) {
	last = from
	err = each(ctx, d.db, sqlOids, []any{from, int64(at), naming, max}, func(scan func(...any) error) error {
		var data bool
		var tid int64
		err := scan(&last, &data, &tid)
		if err == nil && data {
			oids = append(oids, zodb.Oid(last))
		}
		return err
	})
	return oids, last, err
}
