package relstorage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

var patience = wait.Patience

// sqlWriter writes transactions without any of RelStorage's locks.
type sqlWriter struct {
	*pgx.Conn
	t testing.TB
}

func newSQL(t testing.TB, url string) sqlWriter {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return sqlWriter{conn, t}
}

func (w sqlWriter) do(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.Exec(context.Background(), sql, args...); err != nil {
		w.t.Errorf("%s: %v", sql, err)
	}
}

// insert adds a transaction that changed oid.
func (w sqlWriter) insert(tid zodb.Tid, oid zodb.Oid) {
	w.t.Helper()
	w.do(`INSERT INTO "transaction" (tid, username, description) VALUES ($1, '', '')`, int64(tid))
	w.do(`INSERT INTO object_state (zoid, tid, prev_tid, state_size, state) VALUES ($1, $2, 0, 3, 'abc')`, int64(oid), int64(tid))
}

// following collects what Follow reports.
type following struct {
	t       testing.TB
	commits chan zodb.Commit
	err     chan error
}

func follow(t testing.TB, s *relstorage.Storage, after zodb.Tid) *following {
	f := &following{t, make(chan zodb.Commit, 100000), make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.err <- s.Follow(ctx, after, func(c zodb.Commit) error { f.commits <- c; return nil })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *following) next() zodb.Commit {
	f.t.Helper()
	select {
	case c := <-f.commits:
		return c
	case err := <-f.err:
		f.t.Fatalf("follow: %v", err)
	case <-time.After(patience):
		f.t.Fatal("no commit reported")
	}
	panic("not reached")
}

// none checks that nothing is reported for a while: 20 polls.
func (f *following) none() {
	f.t.Helper()
	select {
	case c := <-f.commits:
		f.t.Fatalf("reported %s too early", c.Tid)
	case err := <-f.err:
		f.t.Fatalf("follow: %v", err)
	case <-time.After(400 * time.Millisecond):
	}
}

// fails waits for Follow to fail for good.
func (f *following) fails(want error) {
	f.t.Helper()
	select {
	case err := <-f.err:
		if !errors.Is(err, want) {
			f.t.Fatalf("follow: %v; want %v", err, want)
		}
	case <-time.After(patience):
		f.t.Fatalf("follow goes on; want %v", want)
	}
}

func mustHead(t testing.TB, s *relstorage.Storage) zodb.Tid {
	t.Helper()
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// TestHeldBack: a transaction with a lower tid is not visible yet when one with a higher tid is.
func TestHeldBack(t *testing.T) {
	for _, commit := range []bool{true, false} {
		t.Run(fmt.Sprintf("commit=%v", commit), func(t *testing.T) {
			b := newPostgres(t)
			first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
			s := b.Open(t).(*relstorage.Storage)
			head := mustHead(t, s)
			if head != first {
				t.Fatalf("head %s; want %s", head, first)
			}
			f := follow(t, s, head)
			held, quick := newSQL(t, b.url), newSQL(t, b.url)
			held.do("BEGIN")
			held.insert(first+1000, 0x1001)
			quick.insert(first+2000, 0x1002) // two SQL transactions, the second has the object
			f.none()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if h, err := s.Head(ctx); h >= first+2000 {
				t.Fatalf("Head is %s, %v although %s may still come", h, err, first+1000)
			}
			want := []zodb.Tid{first + 2000}
			if commit {
				held.do("COMMIT")
				want = []zodb.Tid{first + 1000, first + 2000}
			} else {
				held.do("ROLLBACK")
			}
			for _, tid := range want {
				if c := f.next(); c.Tid != tid || len(c.Oids) != 1 {
					t.Fatalf("reported %+v; want %s", c, tid)
				}
			}
			if h := mustHead(t, s); h != first+2000 {
				t.Fatalf("head %s; want %s", h, first+2000)
			}
		})
	}
}

// TestImportBesideCommits: RelStorage's import takes a lock of its own, so it can hold a tid back
// while ordinary commits go on. What it holds is the row of commit_row_lock.
func TestImportBesideCommits(t *testing.T) {
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	held := newSQL(t, b.url)
	held.do("BEGIN")
	held.do("SELECT tid FROM commit_row_lock FOR UPDATE") // has its tid, did not insert it yet
	last := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	f.none()
	held.insert(first+1, 0x1001)
	held.do("COMMIT")
	for _, tid := range []zodb.Tid{first + 1, last} {
		if c := f.next(); c.Tid != tid {
			t.Fatalf("reported %s; want %s", c.Tid, tid)
		}
	}
}

// TestPackBatch: a pack in the middle of a batch does not hold head back; an import beside it does.
func TestPackBatch(t *testing.T) {
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	lock, pack := newSQL(t, b.url), newSQL(t, b.url)
	lock.do("SELECT pg_try_advisory_lock(-2)") // as RelStorage does
	pack.do("BEGIN")
	pack.do(`UPDATE "transaction" SET packed = TRUE WHERE tid = $1`, int64(first))
	last := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	if c := f.next(); c.Tid != last || c.Gap != 0 {
		t.Fatalf("reported %+v; want %s", c, last)
	}
	held := newSQL(t, b.url)
	held.do("BEGIN")
	held.do("SELECT tid FROM commit_row_lock FOR UPDATE")
	held.insert(last+1, 0x1001)
	newSQL(t, b.url).insert(last+2, 0x1002)
	f.none()
	held.do("COMMIT")
	for _, tid := range []zodb.Tid{last + 1, last + 2} {
		if c := f.next(); c.Tid != tid {
			t.Fatalf("reported %s; want %s", c.Tid, tid)
		}
	}
	pack.do("ROLLBACK")
}

// TestRandomOrder: eight writers take tids from one counter and make them visible in any order, some
// never. Every one that was committed is reported, in order, and none else.
func TestRandomOrder(t *testing.T) {
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	var mu sync.Mutex
	next, committed := first, []zodb.Tid{}
	var wg sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range 8 {
		w := newSQL(t, b.url)
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 40 {
				w.do("BEGIN")
				w.do(`LOCK TABLE "transaction" IN ROW EXCLUSIVE MODE`)
				mu.Lock()
				next++
				tid := next
				mu.Unlock()
				w.insert(tid, zodb.Oid(0x1000+tid-first))
				time.Sleep(time.Duration(rnd.Int64N(int64(8 * time.Millisecond))))
				if rnd.IntN(5) == 0 {
					w.do("ROLLBACK")
					continue
				}
				mu.Lock()
				committed = append(committed, tid)
				mu.Unlock()
				w.do("COMMIT")
			}
		})
	}
	wg.Wait()
	slices.Sort(committed)
	for i, tid := range committed {
		c := f.next()
		if c.Tid != tid || len(c.Oids) != 1 || c.Oids[0] != zodb.Oid(0x1000+tid-first) {
			t.Fatalf("transaction %d of %d: reported %+v; want %s", i, len(committed), c, tid)
		}
	}
	f.none()
}

// TestLateTransaction: a tid below head that no lock announced ends following: nothing stale is served
// in silence.
func TestLateTransaction(t *testing.T) {
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	w := newSQL(t, b.url)
	w.insert(first+2000, 0x1001)
	if c := f.next(); c.Tid != first+2000 {
		t.Fatalf("reported %s", c.Tid)
	}
	w.insert(first+1000, 0x1002)
	f.fails(relstorage.ErrOutOfOrder)
}

// TestReplaced: after a reconnect the database lacks what was served.
func TestReplaced(t *testing.T) {
	b := newPostgres(t)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	w := newSQL(t, b.url)
	w.insert(first+1000, 0x1001)
	f.next()
	w.do("BEGIN")
	w.do(`LOCK TABLE "transaction" IN ACCESS EXCLUSIVE MODE`) // nobody looks while it changes
	w.do("DELETE FROM object_state WHERE tid = $1", int64(first+1000))
	w.do(`DELETE FROM "transaction" WHERE tid = $1`, int64(first+1000))
	w.insert(first+1001, 0x1001)
	terminate(t, b.url)
	w.do("COMMIT")
	f.fails(relstorage.ErrReplaced)
}

// TestCleared: everything is deleted, as by zodbconvert --clear.
func TestCleared(t *testing.T) {
	b := newPostgres(t)
	b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	f.next()
	newSQL(t, b.url).do(`TRUNCATE "transaction" CASCADE`)
	f.fails(relstorage.ErrReplaced)
}

// TestRestoredUnseen: case db/24. What the server found when it was started is what must stay, though nothing was committed
// since: the same connection shows another history, longer than the old one.
func TestRestoredUnseen(t *testing.T) {
	b := newPostgres(t)
	w := newSQL(t, b.url)
	first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)}) + 1000
	w.insert(first, 0x1001)
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	ctx := context.Background()
	if _, err := s.LoadAt(ctx, 0x1000, first); err != nil {
		t.Fatal(err)
	}
	w.do("BEGIN")
	w.do("DELETE FROM object_state WHERE tid = $1", int64(first))
	w.do(`DELETE FROM "transaction" WHERE tid = $1`, int64(first))
	w.insert(first-1, 0x1001)
	w.insert(first+1, 0x1001)
	w.do("COMMIT")
	_, err := s.LoadAt(ctx, 0x1000, first) // at once, before following has noticed
	storagetest.WantKind(t, "LoadAt", err, zodb.KindOtherDatabase)
	f.fails(relstorage.ErrReplaced)
}

// TestOtherDatabaseOfThatName: what answers after a lost connection is a primary that lacks what was served, and is behind.
func TestOtherDatabaseOfThatName(t *testing.T) {
	b := newPostgres(t)
	w := newSQL(t, b.url)
	w.insert(b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})+1000, 0x1001)
	s := b.Open(t).(*relstorage.Storage)
	last := mustHead(t, s)
	f := follow(t, s, last)
	w.do("BEGIN")
	w.do(`LOCK TABLE "transaction" IN ACCESS EXCLUSIVE MODE`) // nobody looks while it changes
	w.do("DELETE FROM object_state WHERE tid = $1", int64(last))
	w.do(`DELETE FROM "transaction" WHERE tid = $1`, int64(last))
	terminate(t, b.url)
	w.do("COMMIT")
	f.fails(relstorage.ErrReplaced)
}

// TestSQLiteWrittenOver: case db/24. Another database is copied onto the file that is served, in place.
func TestSQLiteWrittenOver(t *testing.T) {
	for _, how := range []string{"cp", "over"} {
		b, other := newSQLite(t), newSQLite(t)
		ctx := context.Background()
		first := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record([]byte("mine"))})
		other.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record([]byte("other"))})
		path := func(b *backend) string { return strings.TrimPrefix(b.url, "sqlite://") }
		checkpoint(t, path(b))
		checkpoint(t, path(other))
		s := b.Open(t).(*relstorage.Storage)
		f := follow(t, s, mustHead(t, s))
		if _, err := s.LoadAt(ctx, 0x1000, first); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path(other))
		if err != nil {
			t.Fatal(err)
		}
		flags := os.O_WRONLY
		if how == "cp" {
			flags |= os.O_TRUNC
		}
		file, err := os.OpenFile(path(b), flags, 0)
		if err == nil {
			_, err = file.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		_, err = s.LoadAt(ctx, 0x1000, first) // at once
		storagetest.WantKind(t, how+": LoadAt", err, zodb.KindOtherDatabase)
		f.fails(relstorage.ErrReplaced)
	}
}

// checkpoint has all transactions in the file itself.
func checkpoint(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err == nil {
		_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestSQLiteReplaced: another file takes the place of the one that is served.
func TestSQLiteReplaced(t *testing.T) {
	b, other := newSQLite(t), newSQLite(t)
	b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := b.Open(t).(*relstorage.Storage)
	f := follow(t, s, mustHead(t, s))
	path := func(b *backend) string { return strings.TrimPrefix(b.url, "sqlite://") }
	if err := os.Rename(path(other), path(b)); err != nil {
		t.Fatal(err)
	}
	f.fails(relstorage.ErrReplaced)
}
