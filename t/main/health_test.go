package main_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wcfs/t/served"
	zeotest "wcfs/t/zeo"
	"wcfs/zcore/tree/treetest/fixture"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// health is what status tells as JSON.
type health struct {
	State, Since, Why string
	Health            struct {
		Storage struct {
			Connected bool
			Since     time.Time
			Error     string
		}
	}
}

// isHealth waits until status says of a target that it is in a state, with that exit code.
func isHealth(t *testing.T, target, state string, code int) health {
	t.Helper()
	var h health
	var out string
	var got int
	for end := time.Now().Add(served.Patience); ; time.Sleep(20 * time.Millisecond) {
		h = health{}
		out, _, got = run(t, "status", "--json", target)
		if json.Unmarshal([]byte(out), &h) == nil && h.State == state {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status of %s: %s; want %s", target, out, state)
		}
	}
	if got != code || (h.Why == "") != (state == "ok") {
		t.Errorf("status of %s: exit %d, %s; want exit %d", target, got, out, code)
	}
	return h
}

// The ZEO server goes away: status says so, over both fronts, before anybody has read (ops/repro_status).
func TestStatusInAnOutage(t *testing.T) {
	srv := zeotest.Start(t, zeotest.Config{Version: 6})
	srv.Client().Commit(zeotest.Object{Oid: 1, Data: zeotest.Record([]byte("x"))})
	mnt, sock := t.TempDir(), filepath.Join(t.TempDir(), "s")
	serve(t, mnt, "serve", "--mount", mnt, "--9p", "unix:"+sock, srv.URL())
	for _, target := range []string{mnt, "unix:" + sock} {
		isHealth(t, target, "ok", 0)
	}
	srv.Kill()
	for _, target := range []string{mnt, "unix:" + sock} {
		h := isHealth(t, target, "degraded", 3)
		if s := h.Health.Storage; s.Connected || s.Error == "" || time.Since(s.Since) > time.Minute || !strings.Contains(h.Why, s.Error) {
			t.Errorf("%s: %+v", target, h)
		}
	}
	if out, _, code := run(t, "status", mnt); code != 3 || !strings.Contains(out, "reconnecting since ") {
		t.Errorf("exit %d: %s", code, out)
	}
	srv.Run()
	for _, target := range []string{mnt, "unix:" + sock} {
		isHealth(t, target, "ok", 0)
	}
}

// fails serves a database, and has it fail for good; oid is what that is about.
func fails(t *testing.T, mnt string, args ...string) (p *served.Proc, oid zodb.Oid) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	db, err := fixture.Make(w)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "ZURL", "file://"+path)
	}
	p = serve(t, mnt, args...)
	oid = db.Files(db.Head())[0]
	if _, err := os.Stat(filepath.Join(mnt, "head/bigfile", oid.String())); err != nil {
		t.Fatal(err)
	}
	tx := db.Begin()
	tx.DeleteFile(oid)
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return p, oid
}

// In EIO mode status says since when and why, and all but .wcfs/health is ENOTCONN. The process does not end well.
func TestStatusInEIOMode(t *testing.T) {
	mnt, sock := t.TempDir(), filepath.Join(t.TempDir(), "s")
	p, oid := fails(t, mnt, "serve", "--on-file-change=mount", "--mount", mnt, "--9p", "unix:"+sock, "ZURL")
	for _, target := range []string{mnt, "unix:" + sock} {
		if h := isHealth(t, target, "failed", 1); !strings.Contains(h.Why, oid.String()) || h.Since == "" {
			t.Errorf("%s: %+v; want %s in why", target, h, oid)
		}
	}
	for _, name := range []string{".wcfs/zurl", ".wcfs/stats", "head", "head/at", "head/bigfile/" + oid.String(), "@0000000000000001"} {
		if _, err := os.Stat(filepath.Join(mnt, name)); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: %v; want ENOTCONN", name, err)
		}
	}
	if _, err := os.ReadDir(filepath.Join(mnt, ".wcfs")); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("listing of .wcfs: %v; want ENOTCONN", err)
	}
	p.Cmd.Process.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

// In the form that existing clients start, everything is ENOTCONN as they count on, and status says what it can.
func TestStatusInEIOModeOfOldClients(t *testing.T) {
	mnt := t.TempDir()
	p, _ := fails(t, mnt, "ZURL", mnt)
	if h := isHealth(t, mnt, "failed", 1); !strings.Contains(h.Why, "EIO mode") {
		t.Errorf("%+v", h)
	}
	for _, name := range []string{"", ".wcfs", ".wcfs/health", ".wcfs/zurl"} {
		if _, err := os.Stat(filepath.Join(mnt, name)); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%q: %v; want ENOTCONN", name, err)
		}
	}
	p.Cmd.Process.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

// With --on-failure=exit the process ends with 1 and takes the mount away.
func TestExitOnFailure(t *testing.T) {
	mnt := t.TempDir()
	p, oid := fails(t, mnt, "serve", "--on-failure=exit", "--on-file-change=mount", "--mount", mnt, "ZURL")
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if mountOf(t, mnt) != nil {
		t.Error("the mount is still there")
	}
	if !strings.Contains(p.Log.String(), "the service had failed: ") || !strings.Contains(p.Log.String(), oid.String()) {
		t.Errorf("the log: %s", p.Log)
	}
}
