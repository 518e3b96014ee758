package relstorage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

const stopCrash = syscall.SIGQUIT

// refuse opens url, which must fail with a message that has every one of words, and soon.
func refuse(t *testing.T, url string, opt relstorage.Options, kind error, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := relstorage.Open(ctx, url, opt)
	if err == nil {
		s.Close()
		t.Fatalf("%s was opened", url)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("%v; want %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v; lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "s3cr") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v; has the password or a line break", err)
	}
}

// TestPasswordInURL: refused in every form, and nowhere repeated.
func TestPasswordInURL(t *testing.T) {
	for _, url := range []string{
		"postgresql://me:s3cret@host/db",
		"postgres://me:s3cret@host:5432/db?sslmode=require",
		"postgresql://me:s3c/r@et@host/db",
		"postgresql://me:s3cr%zzet@host/db",
		"postgresql://:s3cret@host/db",
		"postgresql://me@host/db?password=s3cret",
		"postgresql://me@host/db?PassWord=s3cret",
		"postgresql://me@host/db?a=b&pass%77ord=s3cret",
		"postgresql://me@host/db?sslpassword=s3cret",
		"postgresql://me:s3cret@/db?host=/tmp",
	} {
		refuse(t, url, relstorage.Options{}, relstorage.ErrPassword, "PGPASSFILE", "--storage-password-file")
	}
}

func TestBadURL(t *testing.T) {
	opt := relstorage.Options{Timeout: 300 * time.Millisecond}
	refuse(t, "mysql://host/db", opt, nil, "unknown scheme", "postgresql", "sqlite")
	refuse(t, "postgresql://host", opt, nil, "names no database")
	refuse(t, "postgresql://host/db%zz", opt, nil, "not a URL")
	refuse(t, "postgresql://me@/db?host=/nowhere", opt, nil, "/nowhere")
	refuse(t, "sqlite://host/path", opt, nil, "names no file")
	refuse(t, "sqlite:relative", opt, nil, "names no file")
	refuse(t, "sqlite:///nowhere/main.sqlite3", opt, os.ErrNotExist, "/nowhere/main.sqlite3", "RelStorage")
	text := filepath.Join(t.TempDir(), "main.sqlite3")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is text\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(t, "sqlite://"+text, opt, relstorage.ErrSchema, "not a SQLite file")
	refuse(t, env.PG.URL("nosuch"), opt, nil, "nosuch", "name of the database")
}

func TestSchema(t *testing.T) {
	opt := relstorage.Options{}
	empty, err := env.Empty()
	if err != nil {
		t.Fatal(err)
	}
	refuse(t, env.PG.URL(empty), opt, relstorage.ErrSchema, "lacks RelStorage's tables")
	free, err := env.Empty()
	if err != nil {
		t.Fatal(err)
	}
	w, err := env.Py.Open("postgresql", env.PG.DSN(free), false)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	refuse(t, env.PG.URL(free), opt, relstorage.ErrSchema, "history-free", "zodbconvert", "keep-history")
	dir, w, err := env.SQLite(false)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	refuse(t, "sqlite://"+dir, opt, relstorage.ErrSchema, "history-free", "zodbconvert", "keep-history")
	file := filepath.Join(t.TempDir(), "main.sqlite3")
	if err := os.WriteFile(file, nil, 0o600); err != nil { // an empty file is an empty database
		t.Fatal(err)
	}
	refuse(t, "sqlite://"+file, opt, relstorage.ErrSchema, "lacks RelStorage's tables")
}

// TestRights: what a user lacks is told by its name.
func TestRights(t *testing.T) {
	b := newPostgres(t)
	b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	w := newSQL(t, b.url)
	w.do("CREATE ROLE reader LOGIN")
	t.Cleanup(func() { w.do("DROP OWNED BY reader"); w.do("DROP ROLE reader") })
	url := strings.Replace(b.url, "wcfs@", "reader@", 1)
	refuse(t, url, relstorage.Options{}, nil, "permission denied", "GRANT SELECT")
	w.do(`GRANT SELECT ON "transaction", object_state TO reader`)
	s := open(t, url, relstorage.Options{})
	f := follow(t, s, mustHead(t, s))
	if tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)}); f.next().Tid != tid {
		t.Fatal("not followed")
	}
	w.do(`REVOKE SELECT ON "transaction" FROM reader`)
	select {
	case err := <-f.err:
		if !strings.Contains(err.Error(), "permission denied") {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("following without the right goes on")
	}
}

// TestHosts: a URL may name several servers; the first that answers is taken.
func TestHosts(t *testing.T) {
	b := newPostgres(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	s := open(t, strings.Replace(b.url, "host=", "host=/nowhere,", 1), relstorage.Options{})
	if h := mustHead(t, s); h != tid {
		t.Errorf("head %s; want %s", h, tid)
	}
}

// TestSQLiteURLs: all forms name the same database.
func TestSQLiteURLs(t *testing.T) {
	b := newSQLite(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	file := strings.TrimPrefix(b.url, "sqlite://")
	for _, url := range []string{b.url, "sqlite://" + filepath.Dir(file), "sqlite://?data_dir=" + filepath.Dir(file)} {
		s := open(t, url, relstorage.Options{})
		if h := mustHead(t, s); h != tid || s.URL() != url {
			t.Errorf("%s: head %s; want %s", url, h, tid)
		}
	}
}

// TestCredentials: passwords come from a file, and a wrong one is told without showing it.
func TestCredentials(t *testing.T) {
	b := newPostgres(t)
	tid := b.Commit(t, map[zodb.Oid][]byte{0x1000: storagetest.Record(nil)})
	w := newSQL(t, b.url)
	w.do("CREATE ROLE guarded LOGIN PASSWORD 's3cret'")
	t.Cleanup(func() { w.do("DROP OWNED BY guarded"); w.do("DROP ROLE guarded") })
	w.do(`GRANT SELECT ON "transaction", object_state TO guarded`)
	hba := filepath.Join(env.PG.DataDir(), "pg_hba.conf")
	old, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba, append([]byte("local all guarded scram-sha-256\n"), old...), 0o600); err != nil {
		t.Fatal(err)
	}
	w.do("SELECT pg_reload_conf()")
	url := strings.Replace(b.url, "wcfs@", "guarded@", 1)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PGPASSFILE", file("none", ""))
	wrong := relstorage.Options{PasswordFile: file("wrong", "s3crap\n")}
	// The server may need a moment to take the new rules.
	for end := time.Now().Add(patience); time.Now().Before(end); {
		s, err := relstorage.Open(t.Context(), url, wrong)
		if err != nil {
			break
		}
		s.Close()
	}
	refuse(t, url, wrong, nil, "password authentication failed", "guarded", "--storage-password-file", "PGPASSFILE")
	refuse(t, url, relstorage.Options{}, nil, "--storage-password-file")
	refuse(t, url, relstorage.Options{PasswordFile: filepath.Join(dir, "nosuch")}, os.ErrNotExist, "password file")
	right := relstorage.Options{PasswordFile: file("right", "s3cret\n")}
	if h := mustHead(t, open(t, url, right)); h != tid {
		t.Fatalf("head %s; want %s", h, tid)
	}
	t.Setenv("PGPASSFILE", file("pass", "*:*:*:guarded:s3cret\n"))
	if h := mustHead(t, open(t, url, relstorage.Options{})); h != tid {
		t.Fatalf("head %s; want %s", h, tid)
	}
}
