// Gochecker does what checker.c does, through the Go client: one goroutine a file, all views in one process,
// garbage collections all the time. Blocks are read by ReadAt, which is what the client's doc recommends.
//
// usage: gochecker MNT LOG SECONDS SEED LAST OID ..., with one or more OIDs
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"wcfs/t/isolation/writerlog"
	"wcfs/zcore/client"
	"wcfs/zcore/zodb"
)

// checker looks at one file.
type checker struct {
	conn   *client.Conn
	oracle *writerlog.Log
	file   int
	oid    zodb.Oid
	last   int      // views are as of one of so many last commits
	start  zodb.Tid // the server's head when this began
	view   *client.View
	buf    []byte
}

// counts are of all files.
var counts struct{ checks, bytes, pinned, resyncs, opens atomic.Int64 }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gochecker:", err)
		os.Exit(1)
	}
	fmt.Printf("checks %d bytes %d pinned %d resyncs %d opens %d\n", counts.checks.Load(), counts.bytes.Load(),
		counts.pinned.Load(), counts.resyncs.Load(), counts.opens.Load())
}

func run(args []string) error {
	if len(args) < 6 {
		return errors.New("usage: gochecker MNT LOG SECONDS SEED LAST OID")
	}
	seconds, err1 := strconv.Atoi(args[2])
	last, err2 := strconv.Atoi(args[4])
	conn, err3 := client.Connect(args[0])
	oracle, err4 := writerlog.Open(args[1])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	start, err := conn.Head()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			runtime.GC()
			time.Sleep(100 * time.Millisecond)
		}
	}()
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var g errgroup.Group
	for i, text := range args[5:] {
		var oid zodb.Oid
		if _, err := fmt.Sscanf(text, "%x", &oid); err != nil {
			return err
		}
		c := &checker{conn: conn, oracle: oracle, file: i, oid: oid, last: last, start: start}
		g.Go(func() error { return c.until(ctx, end) })
	}
	return g.Wait()
}

// until looks until end, or longer on a machine so busy that it would be no test.
func (c *checker) until(ctx context.Context, end time.Time) error {
	for late := end.Add(40 * time.Second); time.Now().Before(end) || counts.checks.Load() < 16 && time.Now().Before(late); {
		if err := c.step(ctx); err != nil {
			return fmt.Errorf("file %d: %w", c.file, err)
		}
	}
	if c.view != nil {
		return c.view.Close()
	}
	return nil
}

func (c *checker) step(ctx context.Context) error {
	if c.view == nil {
		return c.open(ctx)
	}
	switch n := rand.IntN(20); {
	case n == 0:
		v := c.view
		c.view = nil
		return v.Close()
	case n < 5:
		at, err := c.oracle.Pick(c.view.At(), c.last)
		if err != nil || at == 0 {
			return err
		}
		counts.resyncs.Add(1)
		return errors.Join(c.view.Resync(ctx, at), c.checkSize())
	}
	return c.check()
}

func (c *checker) open(ctx context.Context) error {
	at, err := c.oracle.Pick(c.start, c.last)
	if err != nil {
		return err
	}
	if at == 0 {
		time.Sleep(time.Millisecond)
		return nil
	}
	if c.view, err = c.conn.Open(ctx, c.oid, at, client.Options{}); err != nil {
		return err
	}
	counts.opens.Add(1)
	return c.checkSize()
}

func (c *checker) checkSize() error {
	want := int64(c.oracle.Blocks(c.file, c.view.At())) * c.view.Blksize()
	if got := c.view.Size(); got != want {
		return fmt.Errorf("@%s: size %d, want %d", c.view.At(), got, want)
	}
	return nil
}

// check reads a block and compares every word.
func (c *checker) check() error {
	v, blksize := c.view, c.view.Blksize()
	if v.Size() < blksize {
		return nil
	}
	blk := client.Blk(rand.Int64N(v.Size() / blksize))
	c.buf = append(c.buf[:0], make([]byte, blksize)...)
	if _, err := v.ReadAt(c.buf, int64(blk)*blksize); err != nil {
		return err
	}
	rev, pinned := v.Pinned()[blk]
	first, data := c.oracle.Word(writerlog.FileBlk{File: c.file, Blk: blk}, v.At())
	for i := range blksize / 8 {
		var want uint64
		if data {
			want = first + uint64(i)
		}
		if got := binary.NativeEndian.Uint64(c.buf[i*8:]); got != want {
			return fmt.Errorf("WRONG BYTES: block %d @%s: word %d is %x, want %x; pinned to %s: %v", blk, v.At(), i, got, want, rev, pinned)
		}
	}
	counts.checks.Add(1)
	counts.bytes.Add(blksize)
	if pinned {
		counts.pinned.Add(1)
	}
	return nil
}
