package relstorage

import (
	"context"
	"database/sql"
	"fmt"
	neturl "net/url"
	"os"
	"sync"
	"time"

	"wcfs/zcore/zodb"
)

// sqliteMain knows the database by what main.sqlite3 itself holds, without the log beside it. A backup that is copied
// onto that file leaves the log and the shared memory where they were, so that ordinary connections see a mixture
// of both. To the file alone checkpoints add transactions; each one that was there must stay.
type sqliteMain struct {
	path string
	db   *sql.DB // each query over a connection of its own, which knows nothing of the log

	mu      sync.Mutex
	file    os.FileInfo            // mu; of path when it was last looked at and right; nil: not yet
	settled bool                   // mu; file tells a later change
	last    zodb.Tid               // mu; the last transaction in the file then, 0: none
	beside  map[string]os.FileInfo // mu; the log and the shared memory
	bad     error                  // mu; for good
}

func openMain(path string) (*sqliteMain, error) {
	dsn := neturl.URL{Scheme: "file", Opaque: (&neturl.URL{Path: path}).EscapedPath(), RawQuery: "immutable=1&mode=ro"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(0)
	return &sqliteMain{path: path, db: db, beside: map[string]os.FileInfo{}}, nil
}

// tornTries is how often the file is read again, as it may be in the middle of a checkpoint.
const tornTries = 5

// sure says whether the file still is what it was. It costs a few system calls where nothing was written to the file.
func (m *sqliteMain) sure(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bad != nil {
		return m.bad
	}
	now, err := os.Stat(m.path)
	if err != nil {
		return nil // away for now; connections stay with what is open
	}
	if m.file != nil && !os.SameFile(now, m.file) {
		m.bad = fmt.Errorf("%w: %s is another file now; restart to read it", ErrReplaced, m.path)
		return m.bad
	}
	for _, ext := range []string{"-wal", "-shm"} {
		is, err := os.Stat(m.path + ext)
		was := m.beside[ext]
		if err == nil && was == nil {
			m.beside[ext] = is
		} else if was != nil && (err != nil || !os.SameFile(is, was)) {
			m.bad = fmt.Errorf("%w: %s was taken away, which is done when a backup is restored; restart to read the database anew", ErrReplaced, m.path+ext)
			return m.bad
		}
	}
	if m.file != nil && m.settled && m.file.Size() == now.Size() && m.file.ModTime().Equal(now.ModTime()) {
		return nil
	}
	last, err := m.look(ctx)
	if err != nil {
		return err
	}
	m.file, m.last = now, last
	m.settled = time.Since(now.ModTime()) > 50*time.Millisecond // the kernel's clock for that is coarse
	return nil
}

// look reads the file. mu must be held.
func (m *sqliteMain) look(ctx context.Context) (last zodb.Tid, err error) {
	for range tornTries {
		there := true
		err = m.db.QueryRowContext(ctx, `SELECT coalesce(max(tid), 0), ?1 = 0 OR EXISTS (SELECT 1 FROM "transaction" WHERE tid = ?1) FROM "transaction"`,
			int64(m.last)).Scan(&last, &there)
		if err == nil && !there {
			err = fmt.Errorf("it does not have transaction %s, which was there; its last one is %s", m.last, last)
		}
		if err == nil || ctx.Err() != nil {
			return last, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if m.last == 0 { // all that there is may be in the log
		return 0, nil
	}
	var packed bool
	if m.db.QueryRowContext(ctx, sqlPackedHere, int64(m.last)).Scan(&packed) == nil && packed {
		return last, nil
	}
	m.bad = fmt.Errorf("%w: %s was written over: %w; restart to read it", ErrReplaced, m.path, err)
	return 0, m.bad
}
