package dbisolation

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/zcore/zodb"
)

// linked is a view of one file over one watch link, as wendelin.core's clients have it: the messages are
// written and read here, by nothing that wcfs has for it.
type linked struct {
	mnt     string
	oid     zodb.Oid
	head    *os.File
	link    *os.File
	replies chan string // on stream 1, 3, ...
	stream  int
	pinned  *atomic.Int64 // pins that came, of all clients

	mu   sync.Mutex
	pins map[int64]string // block -> revision; guarded by mu
	gen  int              // how often pins changed; guarded by mu
}

func openLinked(mnt string, oid zodb.Oid, pinned *atomic.Int64) (view, error) {
	head, err := os.Open(filepath.Join(mnt, "head/bigfile", oid.String()))
	if err != nil {
		return nil, err
	}
	link, err := os.OpenFile(filepath.Join(mnt, "head/watch"), os.O_RDWR, 0)
	if err != nil {
		head.Close()
		return nil, err
	}
	c := &linked{
		mnt: mnt, oid: oid, head: head, link: link, replies: make(chan string, 16), stream: -1, pinned: pinned,
		pins: map[int64]string{},
	}
	go c.handle()
	return c, nil
}

// handle serves the link: pins are noted before they are acknowledged.
func (c *linked) handle() {
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

// close ends the link; what the server does not close itself would hang here.
func (c *linked) close() {
	fmt.Fprintf(c.link, "%d bye\n", c.stream+2)
	for range c.replies {
	}
	c.link.Close()
	c.head.Close()
}

func (c *linked) move() (zodb.Tid, error) {
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
func (c *linked) read(buf []byte, blk int64) error {
	for {
		c.mu.Lock()
		rev, gen := c.pins[blk], c.gen
		c.mu.Unlock()
		if err := c.readOf(rev, buf, blk); err != nil {
			return err
		}
		c.mu.Lock()
		same := gen == c.gen
		c.mu.Unlock()
		if same {
			return nil
		}
	}
}

// readOf reads a block of a revision, or of head if rev is empty.
func (c *linked) readOf(rev string, buf []byte, blk int64) error {
	f := c.head
	if rev != "" {
		var err error
		if f, err = os.Open(filepath.Join(c.mnt, "@"+rev, "bigfile", c.oid.String())); err != nil {
			return err
		}
		defer f.Close()
	}
	_, err := f.ReadAt(buf, blk*blkSize)
	return err
}

func (c *linked) pin(blk int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins[blk]
}
