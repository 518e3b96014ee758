package client_test

import (
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/served"
	"wcfs/zcore/client"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
)

// Readers of one Go view while it goes on: what each reads is wholly of one revision, of one that the view
// had meanwhile.
func TestGoReadersAndResync(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	for _, connect := range []func(string) (*client.Conn, error){client.Connect, client.ConnectBase} {
		c, err := connect(w.mnt)
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Open(t.Context(), w.f, client.Head, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for buf := make([]byte, 3*8192); !stop.Load(); {
					before := v.At()
					if n, err := v.ReadAt(buf, 0); n != len(buf) {
						t.Errorf("%d bytes, %v", n, err)
						return
					}
					if !isOf(w, buf, before, v.At()) {
						t.Errorf("a read between @%s and @%s is of none of them", before, v.At())
						return
					}
				}
			})
		}
		for range 50 {
			at := w.commit(func(tx *zgen.Tx) {
				for blk := range zdata.Blk(3) {
					fill(tx, w.db, w.f, blk, time.Now().Format("05.000000"))
				}
			})
			if err := v.Resync(t.Context(), at); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		wg.Wait()
		v.Close()
		v.Close()
		if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, client.ErrClosed) {
			t.Errorf("read of a closed view: %v", err)
		}
		if err := v.Resync(t.Context(), client.Head); !errors.Is(err, client.ErrClosed) {
			t.Errorf("resync of a closed view: %v", err)
		}
	}
}

func isOf(w *world, buf []byte, from, to zodb.Tid) bool {
	got := crc32.ChecksumIEEE(buf)
	for _, at := range w.db.Tids() {
		if at < from || at > to {
			continue
		}
		var want []byte
		for blk := range zdata.Blk(3) {
			want = append(want, w.db.Data(w.f, blk, at)...)
		}
		if crc32.ChecksumIEEE(want) == got {
			return true
		}
	}
	return false
}

// A revision that does not come is waited for as long as the context allows, and leaves the view as it was.
func TestGoFuture(t *testing.T) {
	w := newWorld(t, 8192, threeBlocks)
	c, err := client.Connect(w.mnt)
	if err != nil {
		t.Fatal(err)
	}
	at := w.db.Head()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Open(ctx, w.f, at+1<<40, client.Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open: %v", err)
	}
	v, err := c.Open(t.Context(), w.f, at, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Resync(ctx, at+1<<40); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("resync: %v", err)
	}
	if err := v.Resync(t.Context(), at-1); !errors.Is(err, client.ErrGoingBack) {
		t.Errorf("going back: %v", err)
	}
	if n, err := v.ReadAt(make([]byte, 10), 0); n != 10 || err != nil || v.At() != at || v.Err() != nil {
		t.Errorf("%d bytes, %v, @%s, %v", n, err, v.At(), v.Err())
	}
	w.srv.Kill()
	select {
	case <-v.Lost():
	case <-time.After(served.Patience):
		t.Fatal("the view is not lost")
	}
	if _, err := v.ReadAt(make([]byte, 10), 0); !errors.Is(err, client.ErrLost) || !errors.Is(v.Err(), client.ErrLost) {
		t.Errorf("read without a server: %v", err)
	}
}
