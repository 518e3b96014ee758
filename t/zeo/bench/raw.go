package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	zeotest "wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// What the server can give at all: the same questions, asked by somebody who throws the answers away.

// frames reads the length-prefixed messages of r and gives each to fn.
func frames(r io.Reader, fn func(frame []byte) error) error {
	br := bufio.NewReaderSize(r, 1<<20)
	for {
		head, err := br.Peek(4)
		if err != nil {
			return err
		}
		frame := make([]byte, 4+binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(br, frame); err != nil {
			return err
		}
		if err := fn(frame); err != nil {
			return err
		}
	}
}

// record has our client load oids, one after the other, and returns all that it sent.
func record(ctx context.Context, srv *zeotest.Server, oids []zodb.Oid, at zodb.Tid) (sent [][]byte, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", srv.Addr)
		if err != nil {
			return
		}
		defer server.Close()
		wg.Go(func() {
			io.Copy(client, server)
			client.Close()
		})
		frames(client, func(frame []byte) error {
			sent = append(sent, frame)
			_, err := server.Write(frame)
			return err
		})
	})
	s, err := openURL(ctx, zeotest.URL("tcp", l.Addr().String(), "storage=1"))
	if err != nil {
		return nil, err
	}
	for _, oid := range oids {
		if _, err = s.LoadAt(ctx, oid, at); err != nil {
			break
		}
	}
	s.Close()
	wg.Wait()
	if err == nil && len(sent) < len(oids)+2 {
		err = fmt.Errorf("%d messages recorded for %d loads", len(sent), len(oids))
	}
	return sent, err
}

// replay sends what was recorded, n loads at the end of it with as many at once as ours, and tells how
// long the server took to answer those.
func replay(srv *zeotest.Server, sent [][]byte, n int) (time.Duration, error) {
	nc, err := net.Dial("tcp", srv.Addr)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	var start time.Time
	next, answers := 0, 0
	send := func() (err error) {
		if next < len(sent) {
			_, err = nc.Write(sent[next])
		}
		next++
		return err
	}
	br := bufio.NewReaderSize(nc, 1<<20)
	for {
		// The server greets first, and answers everything that comes after our greeting.
		head, err := br.Peek(4)
		if err != nil {
			return 0, err
		}
		if _, err := br.Discard(4 + int(binary.BigEndian.Uint32(head))); err != nil {
			return 0, err
		}
		if answers++; answers == len(sent) {
			return time.Since(start), nil
		}
		err = send()
		if next == 1 { // the greeting is not answered
			err = errors.Join(err, send())
		}
		if next == len(sent)-n+1 {
			start = time.Now()
			for range readers - 1 {
				err = errors.Join(err, send())
			}
		}
		if err != nil {
			return 0, err
		}
	}
}
