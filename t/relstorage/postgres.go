// Package relstorage gives tests and benchmarks what package zcore/zodb/relstorage needs on the other side:
// PostgreSQL servers of their own in temporary folders, and RelStorage (Python) to write databases.
//
// It owns the processes it starts and the folders it makes. Servers listen on a Unix socket in their
// folder only, trust who may reach it, and run as the user postgres when the caller is root, since
// PostgreSQL refuses to. Nothing is shared with a server that the machine may have.
package relstorage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"wcfs/t/wait"
)

// User is the superuser of every server here.
const User = "wcfs"

var startTimeout = wait.Patience

// Postgres is a server. Methods may be called by one goroutine at a time.
type Postgres struct {
	Dir  string // holds data/, the socket and log
	bin  string
	cred *syscall.Credential // nil: run as the caller
	cmd  *exec.Cmd           // nil when stopped
	done chan struct{}       // closed when cmd ended
	opts []string            // name=value, given to the server
}

// NewPostgres makes and starts a server; opts are settings of it.
func NewPostgres(ctx context.Context, opts ...string) (*Postgres, error) {
	p, err := newDir(opts)
	if err != nil {
		return nil, err
	}
	err = p.tool(ctx, "initdb", "-D", p.data(), "-U", User, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err == nil {
		err = p.Start(ctx)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Standby makes and starts a streaming replica of p.
func (p *Postgres) Standby(ctx context.Context, opts ...string) (*Postgres, error) {
	s, err := newDir(opts)
	if err != nil {
		return nil, err
	}
	err = s.tool(ctx, "pg_basebackup", "-D", s.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-d", fmt.Sprintf("host=%s user=%s", p.Dir, User))
	if err == nil {
		err = s.Start(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newDir(opts []string) (*Postgres, error) {
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bin, opts: opts}
	if os.Geteuid() == 0 {
		if p.cred, err = credential("postgres"); err != nil {
			return nil, err
		}
	}
	// Short: the path of a socket has a limit of 107 bytes.
	if p.Dir, err = os.MkdirTemp("", "wcfs-pg-"); err != nil {
		return nil, err
	}
	if p.cred != nil {
		if err := os.Chown(p.Dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func binDir() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL server binaries (/usr/lib/postgresql/*/bin): run t/setup")
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func (p *Postgres) data() string { return filepath.Join(p.Dir, "data") }

// DataDir is the server's data folder.
func (p *Postgres) DataDir() string { return p.data() }

// BinDir is where PostgreSQL's programs are.
func (p *Postgres) BinDir() string { return p.bin }

// Tool makes a command of one of PostgreSQL's programs, run as the server is.
func (p *Postgres) Tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	return p.AsServer(ctx, filepath.Join(p.bin, name), args...)
}

// AsServer makes a command that is run as the server is.
func (p *Postgres) AsServer(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	return cmd
}

func (p *Postgres) tool(ctx context.Context, name string, args ...string) error {
	out, err := p.Tool(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// Start starts the server and waits until it takes connections.
func (p *Postgres) Start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", p.data(), "-k", p.Dir, "-c", "listen_addresses=", "-c", "fsync=off",
		"-c", "full_page_writes=off", "-c", "shared_buffers=64MB", "-c", "max_connections=60"}
	for _, o := range p.opts {
		args = append(args, "-c", o)
	}
	// Outlives ctx: Stop ends it.
	cmd := p.Tool(context.Background(), "postgres", args...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func() { cmd.Wait(); close(p.done) }()
	for end := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		if ended || time.Now().After(end) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("PostgreSQL did not start: %w\n%s", err, text)
		}
	}
}

// Stop stops the server: sig is SIGINT (orderly), SIGQUIT (as in a crash).
func (p *Postgres) Stop(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(startTimeout):
		p.cmd.Process.Kill()
		<-p.done
	}
	p.cmd = nil
}

// Close stops the server and removes its folder.
func (p *Postgres) Close() {
	p.Stop(syscall.SIGQUIT)
	os.RemoveAll(p.Dir)
}

// URL returns the database's URL, for wcfs and libpq alike.
func (p *Postgres) URL(db string) string { return p.URLAs(User, db) }

// URLAs is URL for another user.
func (p *Postgres) URLAs(user, db string) string {
	return fmt.Sprintf("postgresql://%s@/%s?host=%s", user, db, url.QueryEscape(p.Dir))
}

// DSN returns what RelStorage wants, which is not a URL.
func (p *Postgres) DSN(db string) string {
	return fmt.Sprintf("host=%s user=%s dbname=%s", p.Dir, User, db)
}

// Exec runs SQL statements, separated by semicolons, in a database.
func (p *Postgres) Exec(ctx context.Context, db, sql string) error {
	conn, err := pgx.Connect(ctx, p.URL(db))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// Connections returns how many connections wcfs has to a database.
func (p *Postgres) Connections(ctx context.Context, db string) (n int, err error) {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wcfs' AND datname = $1", db).Scan(&n)
	return n, err
}

// Log returns what the server logged.
func (p *Postgres) Log() string {
	b, _ := os.ReadFile(filepath.Join(p.Dir, "log"))
	return string(b)
}

// Root returns the root of this repository.
func Root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("not inside the repository")
		}
	}
	return "", err
}

// names makes names of databases that are unique in the process.
type names struct {
	mu sync.Mutex
	n  int // guarded by mu
}

func (c *names) next(prefix string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return fmt.Sprintf("%s%d", prefix, c.n)
}
