// Package writerlog reads what t/isolation's writer.py has logged: what each block held as of each commit.
package writerlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// FileBlk is a block of the file with that number.
type FileBlk struct {
	File int
	Blk  client.Blk
}

// revision is a commit that wrote a block: n is its number, which the block's words are made from; 0: a
// hole.
type revision struct {
	tid zodb.Tid
	n   uint64
}

// Log knows what the writer's log says.
type Log struct {
	mu   sync.Mutex
	log  *bufio.Reader          // mu
	part string                 // mu; an incomplete line
	tids []zodb.Tid             // mu; ascending
	revs map[FileBlk][]revision // mu; ascending
}

// Open begins to read a log.
func Open(path string) (*Log, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Log{log: bufio.NewReader(f), revs: map[FileBlk][]revision{}}, nil
}

// follow takes the lines that are complete. mu must be held.
func (o *Log) follow() error {
	for {
		text, err := o.log.ReadString('\n')
		o.part += text
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		words := strings.Fields(o.part)
		o.part = ""
		var tid zodb.Tid
		if _, err := fmt.Sscanf(words[0], "%x", &tid); err != nil {
			return fmt.Errorf("log: %q: %w", words[0], err)
		}
		o.tids = append(o.tids, tid)
		for _, w := range words[1:] {
			var at FileBlk
			var n uint64
			if _, err := fmt.Sscanf(w, "%d:%d:%d", &at.File, &at.Blk, &n); err != nil {
				return fmt.Errorf("log: %q: %w", w, err)
			}
			o.revs[at] = append(o.revs[at], revision{tid, n})
		}
	}
}

// Pick returns one of the last tids that is not below least; 0 if there is none.
func (o *Log) Pick(least zodb.Tid, last int) (zodb.Tid, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.follow(); err != nil {
		return 0, err
	}
	from, _ := slices.BinarySearch(o.tids, least)
	tids := o.tids[max(from, len(o.tids)-last):]
	if len(tids) == 0 {
		return 0, nil
	}
	return tids[rand.IntN(len(tids))], nil
}

// Word is what the words of a block begin with as of at: each is one more than the one before it.
// false: a hole.
func (o *Log) Word(b FileBlk, at zodb.Tid) (uint64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	revs := o.revs[b]
	for i := len(revs) - 1; i >= 0; i-- {
		if n := revs[i].n; revs[i].tid <= at {
			return ((n*16+uint64(b.File))*1024 + uint64(b.Blk)) * 65536, n > 0
		}
	}
	return 0, false
}

// Blocks is how many blocks a file has as of at.
func (o *Log) Blocks(file int, at zodb.Tid) client.Blk {
	o.mu.Lock()
	defer o.mu.Unlock()
	var n client.Blk
	for b, revs := range o.revs {
		if b.File == file && revs[0].tid <= at {
			n = max(n, b.Blk+1)
		}
	}
	return n
}
