package isolation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wcfs/p9srv"
	"wcfs/t/isolation/writerlog"
	"wcfs/t/wait"
	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// nineClient is a guest with one proper client: over 9P it sees files as of a revision, through a base that its kernel would
// cache and what it is told to pin.
type nineClient struct {
	addr, name string
	log        *writerlog.Log
	oids       []string
	rnd        *rand.Rand
	checks     *atomic.Int64
	pins       *atomic.Int64

	c        *p9srv.Client
	at, base zodb.Tid
	link     *p9srv.File
	file     int
	data     *p9srv.File // under the base
	replies  chan string

	mu     sync.Mutex
	pinned map[client.Blk]zodb.Tid // mu
	failed error                   // mu; of the thread that acknowledges
}

// until looks at one view after another until stop is closed.
func (n *nineClient) until(stop <-chan struct{}) (err error) {
	n.c, err = p9srv.NewClient(context.Background(), n.addr, "/", p9srv.DialOptions{Uname: n.name})
	if err != nil {
		return err
	}
	defer n.c.Close()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := n.life(); err != nil {
			return fmt.Errorf("%s: f<%s> @%s over %s: %w", n.name, n.oids[n.file], n.at, n.base, err)
		}
	}
}

// life is one view from beginning to end.
func (n *nineClient) life() error {
	var err error
	text, err := n.text("head/base")
	if err != nil {
		return err
	}
	if n.base, err = zodb.ParseTid(text); err != nil {
		return err
	}
	if n.at, err = n.log.Pick(n.base, 100); err != nil || n.at == 0 {
		time.Sleep(time.Millisecond)
		return err
	}
	n.file = n.rnd.IntN(len(n.oids))
	n.pinned, n.replies = map[client.Blk]zodb.Tid{}, make(chan string, 1)
	if n.link, err = n.c.Open("head/watch", true); err != nil {
		return err
	}
	defer n.link.Close()
	if n.data, err = n.c.Open(fmt.Sprintf("base/%s/bigfile/%s", n.base, n.oids[n.file]), false); err != nil {
		return err
	}
	defer n.data.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.acknowledge()
	}()
	err = n.look()
	_, bye := n.link.WriteAt([]byte("99 bye\n"), 0)
	<-ended
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(err, bye, n.failed)
}

func (n *nineClient) look() error {
	for i := range 1 + n.rnd.IntN(4) {
		if i > 0 {
			at, err := n.log.Pick(n.at, 100)
			if err != nil {
				return err
			}
			n.at = max(n.at, at)
		}
		if _, err := n.link.WriteAt(fmt.Appendf(nil, "%d watch %s @%s base @%s\n", 2*i+1, n.oids[n.file], n.at, n.base), 0); err != nil {
			return err
		}
		select {
		case got := <-n.replies:
			if got != fmt.Sprintf("%d ok", 2*i+1) {
				return fmt.Errorf("watch: %q", got)
			}
		case <-time.After(wait.Patience):
			return errors.New("a watch is not answered")
		}
		for range 10 {
			if err := n.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// acknowledge does what the server asks until the link ends.
func (n *nineClient) acknowledge() {
	buf, rest := make([]byte, 4096), ""
	for {
		k, err := n.link.ReadMessage(buf)
		if err == io.EOF || k == 0 && err == nil {
			return
		}
		lines := strings.SplitAfter(rest+string(buf[:k]), "\n")
		for _, line := range lines[:len(lines)-1] {
			if err == nil {
				err = n.line(strings.TrimSpace(line))
			}
		}
		rest = lines[len(lines)-1]
		if err != nil {
			n.mu.Lock()
			n.failed = err
			n.mu.Unlock()
			return
		}
	}
}

func (n *nineClient) line(line string) error {
	var stream, blk int64
	var oid, rev string
	switch k, _ := fmt.Sscanf(line, "%d pin %s #%d @%s", &stream, &oid, &blk, &rev); {
	case line == "":
		return nil
	case k == 4:
		tid, err := zodb.ParseTid(rev)
		if err != nil {
			return err
		}
		n.mu.Lock()
		if n.pinned[client.Blk(blk)] = tid; tid == n.base {
			delete(n.pinned, client.Blk(blk))
		}
		n.mu.Unlock()
		n.pins.Add(1)
		_, err = n.link.WriteAt(fmt.Appendf(nil, "%d ack\n", stream), 0)
		return err
	case stream%2 == 1:
		n.replies <- line
		return nil
	}
	return fmt.Errorf("the server says %q", line)
}

// check reads a block as the guest's kernel does, and then from where it is pinned to.
func (n *nineClient) check() error {
	blocks := n.log.Blocks(n.file, n.base)
	if blocks == 0 {
		return nil
	}
	blk := client.Blk(n.rnd.Int64N(int64(blocks)))
	buf := make([]byte, blksize)
	if _, err := n.data.ReadAt(buf, int64(blk)*blksize); err != nil {
		return err
	}
	n.mu.Lock()
	rev, pinned := n.pinned[blk]
	n.mu.Unlock()
	if pinned {
		f, err := n.c.Open(fmt.Sprintf("@%s/bigfile/%s", rev, n.oids[n.file]), false)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.ReadAt(buf, int64(blk)*blksize); err != nil {
			return err
		}
	}
	first, data := n.log.Word(writerlog.FileBlk{File: n.file, Blk: blk}, n.at)
	for i := range len(buf) / 8 {
		want := uint64(0)
		if data {
			want = first + uint64(i)
		}
		if got := binary.LittleEndian.Uint64(buf[8*i:]); got != want {
			return fmt.Errorf("WRONG BYTES: block %d: word %d is %x, want %x; pinned to %s: %v", blk, i, got, want, rev, pinned)
		}
	}
	n.checks.Add(1)
	return nil
}

func (n *nineClient) text(name string) (string, error) {
	f, err := n.c.Open(name, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 100)
	k, err := f.ReadAt(buf, 0)
	if err == io.EOF {
		err = nil
	}
	return strings.TrimSpace(string(buf[:k])), err
}
