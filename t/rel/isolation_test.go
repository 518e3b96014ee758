package rel_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/rel"
	"wcfs/zcore/zodb"
)

const (
	stampBlk    = 16384
	stampBlocks = 16
)

// stamps is what bigfile.py stamp committed: at each tid the counters that fill the blocks.
type stamps struct {
	mu   sync.Mutex
	tids []zodb.Tid                    // guarded by mu; ascending
	revs map[zodb.Tid][stampBlocks]int // guarded by mu
	err  error                         // guarded by mu; why no more come
}

// follow reads what the writer prints.
func (s *stamps) follow(lines *bufio.Scanner) {
	var now [stampBlocks]int
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		tid, err := zodb.ParseTid(words[0])
		for _, w := range words[1:] {
			var blk, n int
			if _, serr := fmt.Sscanf(w, "%d=%d", &blk, &n); serr != nil {
				err = serr
			}
			now[blk] = n
		}
		s.mu.Lock()
		s.tids, s.revs[tid], s.err = append(s.tids, tid), now, err
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.err = errors.Join(s.err, lines.Err(), io.EOF)
	s.mu.Unlock()
}

// at waits until the writer told of tid, which a server may know first.
func (s *stamps) at(tid zodb.Tid) ([stampBlocks]int, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		rev, ok := s.revs[tid]
		err := s.err
		s.mu.Unlock()
		if ok || err != nil {
			return rev, err
		}
	}
	return [stampBlocks]int{}, fmt.Errorf("the writer does not tell of %s", tid)
}

func (s *stamps) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tids)
}

// client holds a view of one file over one watch link, as wendelin.core's clients do.
type client struct {
	mnt, oid string
	model    *stamps
	rnd      *rand.Rand
	head     *os.File
	link     *os.File
	replies  chan string // on stream 1, 3, ...
	stream   int
	pinned   *atomic.Int64 // pins that came, of all clients

	mu   sync.Mutex
	pins map[int64]string // block -> revision; guarded by mu
	gen  int              // how often pins changed; guarded by mu
}

// handle serves the link: pins are noted before they are acknowledged.
func (c *client) handle() {
	defer close(c.replies)
	lines := bufio.NewScanner(c.link)
	for lines.Scan() {
		var stream, blk int64
		var oid, rev string
		if n, _ := fmt.Sscanf(lines.Text(), "%d pin %s #%d @%s", &stream, &oid, &blk, &rev); n != 4 {
			c.replies <- lines.Text()
			continue
		}
		c.mu.Lock()
		c.gen++
		c.pins[blk] = rev
		if rev == "head" {
			delete(c.pins, blk)
		}
		c.mu.Unlock()
		c.pinned.Add(1)
		fmt.Fprintf(c.link, "%d ack\n", stream)
	}
}

func (c *client) open() (err error) {
	if c.link, err = os.OpenFile(filepath.Join(c.mnt, "head/watch"), os.O_RDWR, 0); err != nil {
		return err
	}
	c.mu.Lock()
	c.pins = map[int64]string{}
	c.mu.Unlock()
	c.replies = make(chan string, 16)
	go c.handle()
	return nil
}

// bye ends the link; what the server does not close itself would hang here.
func (c *client) bye() {
	fmt.Fprintf(c.link, "%d bye\n", c.stream+2)
	for range c.replies {
	}
	c.link.Close()
}

// watch moves the view to head and returns it.
func (c *client) watch() (zodb.Tid, error) {
	text, err := os.ReadFile(filepath.Join(c.mnt, "head/at"))
	if err != nil {
		return 0, err
	}
	at, err := zodb.ParseTid(string(text))
	if err != nil {
		return 0, err
	}
	c.stream += 2
	fmt.Fprintf(c.link, "%d watch %s @%s\n", c.stream, c.oid, at)
	select {
	case line := <-c.replies:
		if want := fmt.Sprintf("%d ok", c.stream); line != want {
			return 0, fmt.Errorf("watch: %q", line)
		}
		return at, nil
	case <-time.After(patience):
		return 0, errors.New("watch: no reply")
	}
}

// read reads a block as the view has it: of the pinned revision, else of head. A pin that came
// meanwhile counts, as it does for a mapping.
func (c *client) read(blk int64) ([]byte, error) {
	for buf := make([]byte, stampBlk); ; {
		c.mu.Lock()
		rev, gen := c.pins[blk], c.gen
		c.mu.Unlock()
		f := c.head
		if rev != "" {
			var err error
			if f, err = os.Open(filepath.Join(c.mnt, "@"+rev, "bigfile", c.oid)); err != nil {
				return nil, err
			}
		}
		_, err := f.ReadAt(buf, blk*stampBlk)
		if rev != "" {
			f.Close()
		}
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		same := gen == c.gen
		c.mu.Unlock()
		if same {
			return buf, nil
		}
	}
}

func (c *client) pin(blk int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins[blk]
}

// run moves the view along and checks every byte that it shows.
func (c *client) run(stop *atomic.Bool, reads *atomic.Int64) (err error) {
	if c.head, err = os.Open(filepath.Join(c.mnt, "head/bigfile", c.oid)); err != nil {
		return err
	}
	defer c.head.Close()
	if err := c.open(); err != nil {
		return err
	}
	defer func() { c.bye() }() // of the link there is then
	for !stop.Load() {
		at, err := c.watch()
		if err != nil {
			return err
		}
		want, err := c.model.at(at)
		if err != nil {
			return err
		}
		for range 1 + c.rnd.IntN(200) {
			blk := c.rnd.Int64N(stampBlocks)
			got, err := c.read(blk)
			if err != nil {
				return fmt.Errorf("block %d of @%s: %w", blk, at, err)
			}
			full := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(want[blk])), stampBlk/8)
			if !bytes.Equal(got, full) {
				return fmt.Errorf("block %d of view @%s is of counter %d; want %d (pinned: %q)", blk, at,
					binary.LittleEndian.Uint64(got), want[blk], c.pin(blk))
			}
			reads.Add(1)
		}
		if c.rnd.IntN(10) == 0 { // begin anew
			c.bye()
			if err := c.open(); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestIsolation: six clients at views of their own while Python commits to PostgreSQL and the server
// ends wcfs's connections once a second. WCFS_SOAK=1: for a minute.
func TestIsolation(t *testing.T) {
	long := 3 * time.Second
	if os.Getenv("WCFS_SOAK") != "" {
		long = time.Minute
	}
	name, _, err := env.Postgres()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano()) >> 1
	t.Logf("seed %d", seed)
	model, oid := writeStamps(t, "postgresql:"+env.PG.DSN(name), seed)
	mnt := t.TempDir()
	m, err := rel.NewMount(t.Context(), exec.Command(env.wcfs, "serve", "--mount", mnt, env.PG.URL(name)), mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()

	var stop atomic.Bool
	var reads, pinned atomic.Int64
	errc := make(chan error, 6)
	for i := range cap(errc) {
		c := &client{mnt: mnt, oid: oid, model: model, rnd: rand.New(rand.NewPCG(seed, uint64(i))), stream: -1, pinned: &pinned}
		go func() { errc <- c.run(&stop, &reads) }()
	}
	before := model.count()
	for end := time.Now().Add(long); time.Now().Before(end) && len(errc) == 0; time.Sleep(time.Second) {
		if err := env.PG.Exec(t.Context(), name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wcfs'"); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	for range cap(errc) {
		select {
		case err := <-errc:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("a client hangs")
		}
	}
	t.Logf("%d commits, %d reads, %d pins", model.count()-before, reads.Load(), pinned.Load())
	if model.count() == before || reads.Load() == 0 || pinned.Load() == 0 {
		t.Error("too little happened to mean anything")
	}
}

// writeStamps starts bigfile.py stamp and waits for its first commit.
func writeStamps(t *testing.T, storage string, seed uint64) (*stamps, string) {
	t.Helper()
	cmd, err := rel.BigFile(t.Context(), "stamp", storage, fmt.Sprint(seed))
	if err != nil {
		t.Fatal(err)
	}
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
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the writer ended: %v", cmd.Wait())
	}
	s := &stamps{revs: map[zodb.Tid][stampBlocks]int{}}
	ended := make(chan struct{})
	oid := lines.Text()
	go func() { s.follow(lines); close(ended) }()
	t.Cleanup(func() {
		in.Close()
		<-ended
		cmd.Wait()
	})
	return s, oid
}
