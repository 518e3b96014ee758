package main

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

// benchDatabase has one file of three blocks.
func benchDatabase(t *testing.T) (zurl string, oid zodb.Oid) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tx := zgen.New(w, zgen.Options{}).Begin()
	oid = tx.NewFile(1 << 20)
	for blk := range zdata.Blk(3) {
		tx.Write(oid, blk, bytes.Repeat([]byte{1}, 1<<20), zgen.Blk0)
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return fileURL(path), oid
}

func TestBench(t *testing.T) {
	zurl, oid := benchDatabase(t)
	mnt := t.TempDir()
	nine := "unix:" + filepath.Join(t.TempDir(), "s")
	c := &serveCmd{ZURL: zurl, Mount: mnt, PinTimeout: time.Second, usedHere: true}
	c.P9.Addr = []string{nine}
	s, err := c.start(testProgram(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for target, want := range map[string][]string{
		mnt:  {"sequential", "random 4 KiB", "mmap scan", "many, sequential", "many, random, commits"},
		zurl: {"sequential", "random 4 KiB", "many, sequential", "many, random, commits"},
		nine: {"sequential", "random 4 KiB", "many, sequential", "many, random, commits"},
	} {
		var out, errs bytes.Buffer
		code := runApart(t, []string{"bench", target, "head/bigfile/" + oid.String(), "--for=20ms", "--readers=3"}, &out, &errs)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if code != 0 || len(lines) != len(want)+1 {
			t.Fatalf("bench %s: %d, %s\n%s", target, code, &errs, &out)
		}
		for i, name := range want {
			if !strings.HasPrefix(lines[i+1], name+"  ") || strings.Contains(lines[i+1], "  0  0s  ") {
				t.Errorf("bench %s: %q, want a row about %q", target, lines[i+1], name)
			}
			if hits := strings.Contains(lines[i+1], "%"); hits != (target == mnt) {
				t.Errorf("bench %s: %q: only a mount has a page cache", target, lines[i+1])
			}
		}
	}
	for _, args := range [][]string{
		{"bench", zurl, "head/at"}, {"bench", zurl, "head"},
		{"bench", zurl, "head/bigfile/" + oid.String(), "--readers=0"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitUsage || errs.Len() == 0 {
			t.Errorf("%v: %d, %s", args, code, &errs)
		}
	}
}

func TestDebugAddr(t *testing.T) {
	p := testProgram(t.Context())
	for _, addr := range []string{"0.0.0.0:0", ":0", "localhost", "example.org:80", "[::]:0"} {
		if stop, _, err := p.listenDebug(addr); err == nil {
			stop()
			t.Errorf("%s: allowed", addr)
		} else if exitCode(err) != exitUsage {
			t.Errorf("%s: %v", addr, err)
		}
	}
	stop, at, err := p.listenDebug("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + at + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Contains(text, []byte("TestDebugAddr")) {
		t.Errorf("%.200s, %v", text, err)
	}
	stop()
	if _, err := http.Get("http://" + at + "/debug/pprof/"); err == nil {
		t.Error("it answers after it was stopped")
	}
}
