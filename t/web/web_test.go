// Package web_test looks at the page of a running server in Debian's Chromium, as a person does: a pin that comes and goes, the map, keys
// only, light and dark, narrow.
//
// It owns the browser, the servers and the databases. The page's script runs in page.mjs, which does what it is told by lines of JSON.
package web_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wcfs/t/py"
	"wcfs/t/served"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fswriter"
)

var wcfsPath string

func TestMain(m *testing.M) { os.Exit(served.Main(m, func(wcfs string) { wcfsPath = wcfs })) }

// browser is a page that is open.
type browser struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func open(t *testing.T, url string) *browser {
	t.Helper()
	cmd := exec.Command("node", filepath.Join(py.Root(), "t/web/page.mjs"), url, filepath.Join(py.Root(), ".deps/node"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // it closes the browser
		ended := time.AfterFunc(served.Patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		ended.Stop()
	})
	b := &browser{t: t, in: in, out: bufio.NewScanner(out)}
	b.out.Buffer(nil, 16<<20)
	return b
}

// do has the page do something, and puts the answer into to.
func (b *browser) do(to any, name string, args ...string) {
	b.t.Helper()
	line, err := json.Marshal(append([]string{name}, args...))
	if err != nil {
		b.t.Fatal(err)
	}
	fmt.Fprintf(b.in, "%s\n", line)
	if !b.out.Scan() {
		b.t.Fatalf("%s %q: the browser has ended: %v", name, args, b.out.Err())
	}
	var answer struct {
		OK    json.RawMessage
		Error string
	}
	if err := json.Unmarshal(b.out.Bytes(), &answer); err != nil || answer.Error != "" {
		b.t.Fatalf("%s %q: %s %v", name, args, answer.Error, err)
	}
	if to != nil {
		if err := json.Unmarshal(answer.OK, to); err != nil {
			b.t.Fatalf("%s %q: %s: %v", name, args, answer.OK, err)
		}
	}
}

func (b *browser) wait(js string) { b.t.Helper(); b.do(nil, "wait", js) }

func (b *browser) text(js string) (s string) { b.t.Helper(); b.do(&s, "eval", js); return s }

// sound sees that nothing went wrong, and that nothing is in the way of those who see or move otherwise.
func (b *browser) sound() {
	b.t.Helper()
	var errs []string
	b.do(&errs, "errors")
	if len(errs) > 0 {
		b.t.Errorf("console: %q", errs)
	}
	var found []struct {
		ID, Impact string
		Nodes      []string
	}
	b.do(&found, "axe")
	for _, v := range found {
		if v.Impact == "serious" || v.Impact == "critical" {
			b.t.Errorf("axe: %s: %s: %q", v.Impact, v.ID, v.Nodes)
		}
	}
}

// shot keeps a picture where WCFS_SHOTS says.
func (b *browser) shot(name string) {
	b.t.Helper()
	if dir := os.Getenv("WCFS_SHOTS"); dir != "" {
		b.do(nil, "shot", filepath.Join(dir, name+".png"))
	}
}

// site is a served database.
type site struct {
	t    *testing.T
	db   *zgen.DB
	zurl string
	mnt  string
	url  string
	proc *served.Proc
}

// start serves what make writes.
func start(t *testing.T, make func(*zgen.DB)) *site {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Data.fs")
	w, err := fswriter.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	s := &site{t: t, db: zgen.New(w, zgen.Options{Start: zodb.TidFromTime(time.Now().Add(-24 * time.Hour))}), zurl: "file://" + path, mnt: t.TempDir()}
	make(s.db)
	s.proc = served.Serve(t, s.mnt, exec.Command(wcfsPath, "serve", "--mount", s.mnt, "--http", "127.0.0.1:0", "--slow", "500ms", "--pintimeout", "10m", s.zurl))
	s.proc.Until("an address of HTTP", func() bool {
		_, after, ok := strings.Cut(s.proc.Log.String(), " http=")
		s.url, _, _ = strings.Cut(after, "\n")
		return ok && strings.Contains(after, "\n")
	})
	return s
}

func commit(t *testing.T, db *zgen.DB, fill func(*zgen.Tx)) zodb.Tid {
	t.Helper()
	tx := db.Begin()
	fill(tx)
	tid, err := tx.CommitAt(max(zodb.TidFromTime(time.Now()), db.Head()+1))
	if err != nil {
		t.Fatal(err)
	}
	return tid
}

// doubles is a block of numbers.
func doubles(seed int) []byte {
	var b []byte
	for i := range 512 {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(1e6+math.Sin(float64(i)/float64(20+seed%7))*float64(i)))
	}
	return b
}

// A client that stands still: the page, .wcfs/state, status and the slow log name the same one while it lasts; then it is gone.
func TestPinOnThePage(t *testing.T) {
	var f zodb.Oid
	s := start(t, func(db *zgen.DB) {
		commit(t, db, func(tx *zgen.Tx) {
			f = tx.NewFile(4096)
			for blk := range zdata.Blk(40) {
				tx.Write(f, blk, doubles(int(blk)), zgen.Blk0)
			}
		})
		for i := range 30 {
			commit(t, db, func(tx *zgen.Tx) {
				for j := range 1 + i%4 {
					tx.Write(f, zdata.Blk((i*7+j*j)%(40+i/2)), doubles(i), zgen.Blk0)
				}
			})
		}
	})
	b := open(t, s.url)
	b.wait(`document.querySelector("#health").className === "ok"`)
	big := filepath.Join(s.mnt, "head/bigfile", f.String())
	if _, err := os.ReadFile(big); err != nil {
		t.Fatal(err)
	}
	at := s.db.Head()
	link, err := os.OpenFile(filepath.Join(s.mnt, "head/watch"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	fmt.Fprintf(link, "1 watch %s @%s\n", f, at)
	lines := bufio.NewReader(link)
	if line, err := lines.ReadString('\n'); err != nil || line != "1 ok\n" {
		t.Fatalf("%q %v", line, err)
	}
	who := fmt.Sprintf("pid %d", os.Getpid())
	b.wait(fmt.Sprintf(`document.querySelector("#clients").textContent.includes(%q)`, who))
	tid := commit(t, s.db, func(tx *zgen.Tx) { tx.Write(f, 3, doubles(99), zgen.Blk0) })
	b.wait(fmt.Sprintf(`document.querySelector("#head-at").textContent === %q`, tid.String()))
	done := make(chan error, 1)
	go func() { _, err := os.ReadFile(big); done <- err }()
	pin := fmt.Sprintf("pin %s #3 @", f)
	b.wait(fmt.Sprintf(`document.querySelector("#clients .pin")?.textContent.startsWith(%q) && document.querySelector("#owed-who").textContent.includes(%q)`, pin, who))
	s.proc.Until("the slow log", func() bool {
		return strings.Contains(s.proc.Log.String(), "a read waits for a client") && strings.Contains(s.proc.Log.String(), fmt.Sprintf("pid=%d", os.Getpid()))
	})
	state, err := os.ReadFile(filepath.Join(s.mnt, ".wcfs/state"))
	if err != nil || !strings.Contains(string(state), fmt.Sprintf(`"name":%q`, who)) || !strings.Contains(string(state), `"waiting":1`) {
		t.Errorf("%s %v", state, err)
	}
	s.proc.Until("status to say so", func() bool {
		out, _ := exec.Command(wcfsPath, "status", s.mnt).Output()
		return strings.Contains(string(out), "degraded") && strings.Contains(string(out), who)
	})
	if out, err := exec.Command(wcfsPath, "top", "--once", s.mnt).Output(); err != nil || !strings.Contains(string(out), who+" ") || !strings.Contains(string(out), f.String()+" #3") {
		t.Errorf("top: %v\n%s", err, out)
	}
	b.wait(`document.querySelector("#health").className === "degraded"`)
	b.shot("stalled")
	b.sound()
	line, err := lines.ReadString('\n')
	stream, _, _ := strings.Cut(line, " ")
	if err != nil || !strings.Contains(line, pin) {
		t.Fatalf("%q %v", line, err)
	}
	fmt.Fprintf(link, "%s ack\n", stream)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.wait(`!document.querySelector("#clients .pin") && document.querySelector("#health").className === "ok"`)

	// The map, by keys only.
	b.do(nil, "eval", fmt.Sprintf(`document.querySelector('[data-oid="%s"]').focus()`, f))
	b.do(nil, "key", "Enter")
	b.wait(`document.querySelector("#canvas").dataset.done === "true" && document.querySelector("#cursor").textContent !== ""`)
	b.do(nil, "eval", `document.querySelector("#canvas").focus()`)
	for range 3 {
		b.do(nil, "key", "ArrowRight")
	}
	b.wait(fmt.Sprintf(`document.querySelector("#cursor").textContent === %q`, "block 3, revision 0 back, @"+tid.String()+": changed here"))
	b.do(nil, "key", "Enter")
	b.wait(`document.querySelector("#hex").textContent !== ""`)
	want := doubles(99)
	if got := b.text(`document.querySelector("#hex").textContent.split("\n")[0]`); !strings.Contains(got, fmt.Sprintf("% x", want[:16])) {
		t.Errorf("block 3 in hex: %q; want % x", got, want[:16])
	}
	if got := b.text(`document.querySelector("#cell-title").textContent`); got != "Block 3 @"+tid.String() {
		t.Errorf("title: %q", got)
	}
	b.sound()
	b.shot("map")
	b.do(nil, "scheme", "dark")
	b.sound()
	b.shot("dark")
	b.do(nil, "size", "400", "800")
	b.wait(`document.documentElement.scrollWidth <= 400`)
	b.sound()
	b.shot("narrow")
	s.proc.End()
}

// A file of a million blocks is there to be seen soon.
func TestMillionBlocks(t *testing.T) {
	const blocks, changed = 1_000_000, 2000
	var f zodb.Oid
	s := start(t, func(db *zgen.DB) {
		commit(t, db, func(tx *zgen.Tx) {
			f = tx.NewFile(4096)
			for i := range zdata.Blk(changed) {
				tx.Write(f, i*(blocks/changed), []byte("x"), zgen.Blk0)
			}
			tx.Write(f, blocks-1, []byte("last"), zgen.Blk0)
		})
		commit(t, db, func(tx *zgen.Tx) { tx.Write(f, blocks/2, []byte("y"), zgen.Blk0) })
	})
	b := open(t, s.url)
	b.wait(`document.querySelector("#health").className === "ok"`)
	began := time.Now()
	b.do(nil, "eval", fmt.Sprintf(`location.hash = "file=%s"`, f))
	b.wait(`document.querySelector("#canvas").dataset.done === "true" && document.querySelector("#map-text").textContent.startsWith("1,000,000 blocks")`)
	took := time.Since(began)
	t.Logf("the map of %d blocks took %v", blocks, took)
	if took > served.Patience/4 { // a bound for a busy machine
		t.Errorf("the map of %d blocks took %v", blocks, took)
	}
	b.sound()
	b.shot("million")
	s.proc.End()
}
