package relstorage

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/storagetest"
)

// What PostgreSQL says by its codes, as the errors of a load are marked.
func TestKindsPostgres(t *testing.T) {
	s := &Storage{db: &postgres{}}
	for code, want := range map[string]zodb.Kind{
		"58030": zodb.KindAnswer, // io_error: could not read block
		"58P01": zodb.KindAnswer, // undefined_file
		"XX000": zodb.KindAnswer, // internal_error
		"XX001": zodb.KindAnswer, // data_corrupted
		"XX002": zodb.KindAnswer, // index_corrupted
		"22003": zodb.KindAnswer, // numeric_value_out_of_range
		"08006": zodb.KindOutage, // connection_failure
		"28P01": zodb.KindOutage, // invalid_password: it may be being changed
		"3D000": zodb.KindOutage, // invalid_catalog_name: it may be being made anew
		"40001": zodb.KindOutage, // serialization_failure: cancelled on a standby
		"53300": zodb.KindOutage, // too_many_connections
		"55P03": zodb.KindOutage, // lock_not_available
		"57014": zodb.KindOutage, // query_canceled
		"57P01": zodb.KindOutage, // admin_shutdown
		"57P03": zodb.KindOutage, // cannot_connect_now
		"42P01": zodb.KindOtherDatabase,
		"42501": zodb.KindOtherDatabase,
	} {
		storagetest.WantKind(t, code, s.mark(fmt.Errorf("load: %w", &pgconn.PgError{Code: code})), want)
	}
	for _, c := range []struct {
		err  error
		want zodb.Kind
	}{
		{io.ErrUnexpectedEOF, zodb.KindOutage}, // the network
		{&pgconn.ConnectError{}, zodb.KindOutage},
		{pgx.ScanArgError{Err: errors.New("x")}, zodb.KindAnswer},
		{ErrBehind, zodb.KindOutage}, {ErrClosed, zodb.KindOutage},
		{ErrReplaced, zodb.KindOtherDatabase}, {ErrOutOfOrder, zodb.KindOtherDatabase},
	} {
		storagetest.WantKind(t, fmt.Sprintf("%T", c.err), s.mark(c.err), c.want)
	}
}

// A real SQLite file: a page that is damaged, tables that are locked or gone, a file that is none any more.
func TestKindsSQLite(t *testing.T) {
	open := func() (*sqliteDB, string) {
		path := filepath.Join(t.TempDir(), "main.sqlite3")
		db, err := sql.Open("sqlite", "file:"+path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if _, err := db.Exec(`PRAGMA page_size = 4096; CREATE TABLE o (id INTEGER PRIMARY KEY, b BLOB)`); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := db.Exec(`INSERT INTO o (b) VALUES (randomblob(3000))`); err != nil {
				t.Fatal(err)
			}
		}
		return &sqliteDB{db: db, path: path}, path
	}
	read := func(d *sqliteDB) error {
		var n int
		return d.db.QueryRow(`SELECT sum(length(hex(b))) FROM o`).Scan(&n)
	}
	damage := func(path string, off int64) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(d *sqliteDB, path string) error
		want  zodb.Kind
	}{
		"a damaged page": {func(d *sqliteDB, path string) error { damage(path, 20*4096); return read(d) }, zodb.KindAnswer},
		"not SQLite":     {func(d *sqliteDB, path string) error { damage(path, 0); return read(d) }, zodb.KindOtherDatabase},
		"closed":         {func(d *sqliteDB, path string) error { d.db.Close(); return read(d) }, zodb.KindOutage},
		"locked": {func(d *sqliteDB, path string) error {
			other, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if _, err := other.Exec(`BEGIN EXCLUSIVE`); err != nil {
				t.Fatal(err)
			}
			return read(d)
		}, zodb.KindOutage},
		"another type": {func(d *sqliteDB, _ string) error {
			var n int
			return d.db.QueryRow(`SELECT 'text'`).Scan(&n)
		}, zodb.KindAnswer},
	} {
		d, path := open()
		s := &Storage{db: d}
		if err := read(d); err != nil {
			t.Fatal(err)
		}
		d.db.SetMaxIdleConns(0) // a new connection reads anew
		storagetest.WantKind(t, name, s.mark(c.spoil(d, path)), c.want)
	}
}
