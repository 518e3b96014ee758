package main_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb/fswriter"
)

// webAddress is where a process says that it serves HTTP.
func webAddress(p *served.Proc) (url string) {
	p.Until("an address of HTTP", func() bool {
		_, after, ok := strings.Cut(p.Log.String(), " http=")
		url, _, _ = strings.Cut(after, "\n")
		return ok && strings.Contains(after, "\n")
	})
	return url
}

func fetch(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// --http serves beside a mount, at a port of this host or at a socket; what it counts is what the mount did.
func TestHTTP(t *testing.T) {
	zurl, db := database(t)
	mnt := t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, "--http", "127.0.0.1:0", zurl)
	url := webAddress(p)
	if code, text := fetch(t, http.DefaultClient, url+"healthz"); code != 200 || text != "ok\n" {
		t.Errorf("%d %q", code, text)
	}
	oid := db.Files(db.Head())[0]
	if _, err := os.ReadFile(filepath.Join(mnt, "head/bigfile", oid.String())); err != nil {
		t.Fatal(err)
	}
	code, text := fetch(t, http.DefaultClient, url+"metrics")
	if code != 200 || !strings.Contains(text, "\nwcfs_bigfiles 1\n") || strings.Contains(text, "\nwcfs_reads_total{front=\"fuse\",tree=\"head\"} 0\n") {
		t.Errorf("%d %s", code, text)
	}
	var state struct {
		Files []struct{ Oid string }
	}
	raw, err := os.ReadFile(filepath.Join(mnt, ".wcfs/state"))
	if err := json.Unmarshal(raw, &state); err != nil || len(state.Files) != 1 || state.Files[0].Oid != oid.String() {
		t.Errorf("%s: %v", raw, err)
	}
	if err != nil {
		t.Error(err)
	}
	p.End()

	sock := filepath.Join(t.TempDir(), "s")
	p = serve(t, mnt, "serve", "--mount", mnt, "--http", "unix:"+sock, zurl)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", sock) }}}
	if code, text := fetch(t, client, "http://wcfs/healthz"); code != 200 {
		t.Errorf("%d %q", code, text)
	}
	p.End()
	if _, err := os.Lstat(sock); err == nil {
		t.Error("the socket is left")
	}
}

// Addresses of others need TLS.
func TestHTTPUsage(t *testing.T) {
	mnt := t.TempDir()
	zurl, _ := database(t)
	for _, addr := range []string{"0.0.0.0:0", "8080", "tls:127.0.0.1:0"} {
		if _, stderr, code := run(t, "serve", "--mount", mnt, "--http", addr, zurl); code != 2 || !strings.Contains(stderr, "--http") || !strings.Contains(stderr, "tls") {
			t.Errorf("--http %s: exit %d: %s", addr, code, stderr)
		}
	}
}

// The map of a bigfile has the revisions that `wcfs history` finds, block by block: the two go different ways.
func TestMapIsHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	db, rng := zgen.New(w, zgen.Options{LeafMax: 3, NodeMax: 3}), rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		if _, err := db.Random(rng, zgen.Mix{}); err != nil {
			t.Fatal(err)
		}
	}
	mnt := t.TempDir()
	p := serve(t, mnt, "serve", "--mount", mnt, "--http", "127.0.0.1:0", "file://"+path)
	url := webAddress(p)
	type rev struct {
		Tid    string
		Size   int64
		Blocks []int64
	}
	files := 0
	for _, oid := range db.Files(db.Head()) {
		out, stderr, code := run(t, "history", "--json", "file://"+path, oid.String())
		var want, got []rev
		for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
			var r rev
			if err := dec.Decode(&r); err != nil {
				t.Fatal(err)
			}
			want = append(want, r)
		}
		if code != 0 {
			t.Logf("history of %s: %s", oid, stderr)
			continue
		}
		p.Until("the map of "+oid.String(), func() bool {
			_, text := fetch(t, http.DefaultClient, url+"api/map?w=10&h=10&file="+oid.String())
			return strings.Contains(text, `"done":true`)
		})
		_, text := fetch(t, http.DefaultClient, url+"api/revs?n=1000&file="+oid.String())
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: map\n%+v\nhistory\n%+v", oid, got, want)
		}
		files++
	}
	if files == 0 {
		t.Error("no bigfile was compared")
	}
	p.End()
}
