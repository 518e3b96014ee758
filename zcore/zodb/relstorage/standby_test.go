package relstorage_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rel "wcfs/t/relstorage"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

const socket = ".s.PGSQL.5432"

// proxy is a name that leads to one server now and to another later.
type proxy struct {
	dir   string
	mu    sync.Mutex
	to    string     // folder of the server; guarded by mu
	conns []net.Conn // guarded by mu
}

func newProxy(t testing.TB, to string) *proxy {
	p := &proxy{dir: t.TempDir(), to: to}
	l, err := net.Listen("unix", filepath.Join(p.dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.lead("") })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			d, err := net.Dial("unix", filepath.Join(p.to, socket))
			p.conns = append(p.conns, c, d)
			p.mu.Unlock()
			if err != nil {
				c.Close()
				continue
			}
			go func() { io.Copy(c, d); c.Close() }()
			go func() { io.Copy(d, c); d.Close() }()
		}
	}()
	return p
}

// lead makes the name lead to another server; connections end.
func (p *proxy) lead(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if c != nil {
			c.Close()
		}
	}
	p.to, p.conns = to, nil
}

// TestStandby: a streaming standby is a database whose head is older; a name that leads to a server
// which is behind never gives an old revision for a new one; a standby that is promoted goes on.
func TestStandby(t *testing.T) {
	ctx := t.Context()
	d, err := rel.NewDatabases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	name, w, err := d.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	oid := zodb.Oid(0x1000)
	commit := func() zodb.Tid {
		tid, err := w.Commit(map[zodb.Oid][]byte{oid: storagetest.Record(nil)})
		if err != nil {
			t.Fatal(err)
		}
		return tid
	}
	first := commit()
	sb, err := d.PG.Standby(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sb.Close)

	s := open(t, sb.URL(name), relstorage.Options{})
	waitHead(t, s, first)
	f := follow(t, s, first)
	second := commit()
	if c := f.next(); c.Tid != second {
		t.Fatalf("reported %s; want %s", c.Tid, second)
	}

	via := newProxy(t, d.PG.Dir)
	moved := open(t, strings.Replace(d.PG.URL(name), url.QueryEscape(d.PG.Dir), url.QueryEscape(via.dir), 1), relstorage.Options{})
	g := follow(t, moved, mustHead(t, moved))
	replay := newSQL(t, sb.URL(name))
	replay.do("SELECT pg_wal_replay_pause()")
	third := commit()
	if c := g.next(); c.Tid != third {
		t.Fatalf("primary: reported %s; want %s", c.Tid, third)
	}
	f.none()
	if h := mustHead(t, s); h != second {
		t.Fatalf("standby's head %s; want %s", h, second)
	}
	if r, err := s.LoadAt(ctx, 0x1000, second); err != nil || r.Serial != second {
		t.Fatalf("standby: %v, %s", err, r.Serial)
	}

	// The same storage, led to the standby: what it has is answered, what it lacks is waited for.
	via.lead(sb.Dir)
	if r, err := moved.LoadAt(ctx, 0x1000, second); err != nil || r.Serial != second {
		t.Fatalf("moved: %v, %s", err, r.Serial)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if r, err := moved.LoadAt(short, 0x1000, third); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a server that is at %s answered for %s: %v, serial %s", second, third, err, r.Serial)
	}
	if h := mustHead(t, moved); h != third {
		t.Fatalf("head went back to %s", h)
	}
	replay.do("SELECT pg_wal_replay_resume()")
	if r, err := moved.LoadAt(ctx, 0x1000, third); err != nil || r.Serial != third {
		t.Fatalf("moved, caught up: %v, %s", err, r.Serial)
	}
	if c := f.next(); c.Tid != third {
		t.Fatalf("standby: reported %s; want %s", c.Tid, third)
	}

	// Failover.
	d.PG.Stop(stopCrash)
	replay.do("SELECT pg_promote()")
	w, err = d.Py.Open("postgresql", sb.DSN(name), true)
	if err != nil {
		t.Fatal(err)
	}
	oid = 0x1001 // the new writer does not know the serial of the old one
	fourth := commit()
	for who, h := range map[string]*following{"standby": f, "moved": g} {
		if c := h.next(); c.Tid != fourth || c.Gap != 0 {
			t.Fatalf("%s after failover: reported %+v; want %s", who, c, fourth)
		}
	}
}

// waitHead waits until head is at least tid.
func waitHead(t testing.TB, s *relstorage.Storage, tid zodb.Tid) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if mustHead(t, s) >= tid {
			return
		}
	}
	t.Fatalf("head does not reach %s", tid)
}
