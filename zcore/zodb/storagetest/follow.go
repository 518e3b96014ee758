package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

// follow collects what Follow reports in the background.
type follow struct {
	commits chan zodb.Commit
	done    chan struct{} // closed when Follow returned
	err     error         // what it returned; valid after done
	cancel  context.CancelFunc
}

func (e *env) follow(stor zodb.Storage, after zodb.Tid) *follow {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follow{commits: make(chan zodb.Commit, 16), done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(f.done)
		f.err = stor.Follow(ctx, after, func(c zodb.Commit) error {
			select {
			case f.commits <- c:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	e.Cleanup(func() { cancel(); <-f.done })
	return f
}

// next returns the next commit, or fails.
func (f *follow) next() (zodb.Commit, error) {
	select {
	case c := <-f.commits:
		return c, nil
	default:
	}
	select {
	case c := <-f.commits:
		return c, nil
	case <-f.done:
		return zodb.Commit{}, fmt.Errorf("follow ended: %w", f.err)
	case <-time.After(Patience):
		return zodb.Commit{}, errors.New("no commit reported in time")
	}
}

// expect reads the commits of the model in (after, upto] and checks that they come one by one.
// A gap is accepted only when gapOK.
func (e *env) expect(stor zodb.Storage, f *follow, after, upto zodb.Tid, gapOK bool) error {
	for after < upto {
		c, err := f.next()
		if err != nil {
			return err
		}
		if c.Gap != 0 {
			if !gapOK || c.Oids != nil || c.Gap < after || c.Tid <= c.Gap {
				return fmt.Errorf("follow: unexpected gap %+v after %s", c, after)
			}
			after = c.Tid
			continue
		}
		want := e.waitModel(after)
		slices.Sort(c.Oids)
		if c.Tid != want.Tid || !slices.Equal(c.Oids, want.Oids) {
			return fmt.Errorf("follow: after %s got %s %v; want %s %v", after, c.Tid, c.Oids, want.Tid, want.Oids)
		}
		after = c.Tid
		head, err := stor.Head(context.Background())
		if err != nil || head < c.Tid {
			return fmt.Errorf("follow reported %s, head is %s, %v", c.Tid, head, err)
		}
		if len(c.Oids) > 0 {
			if err := e.check(stor, c.Oids[0], c.Tid); err != nil {
				return fmt.Errorf("follow reported %s: %w", c.Tid, err)
			}
		}
	}
	return nil
}

// waitModel returns the first transaction of the model after tid. The storage may report a
// transaction before the backend's commit call has returned and told the model.
func (e *env) waitModel(tid zodb.Tid) zodb.Commit {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if l := e.model.after(tid); len(l) > 0 {
			return l[0]
		}
	}
	return zodb.Commit{}
}

// testHead: a commit becomes visible in bounded time, without and with Follow.
func testHead(e *env) {
	first := e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	stor := e.open()
	e.waitHead(stor, first)
	f := e.follow(stor, first)
	var worst time.Duration
	for range 20 {
		t0 := time.Now()
		last := e.model.last()
		tid := e.step(oidRange(0x1000, 4))
		if err := e.expect(stor, f, last, tid, false); err != nil {
			e.Fatal(err)
		}
		worst = max(worst, time.Since(t0))
	}
	e.Logf("slowest of 20 commits was reported %v after it began", worst)
}

// testFollowOrder: thousands of commits in a row, none skipped, none doubled, all in order.
func testFollowOrder(e *env) {
	e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	stor := e.open()
	head, err := stor.Head(e.ctx())
	if err != nil {
		e.Fatal(err)
	}
	n := 2000
	if b, ok := e.back.(Many); ok {
		n = b.Many()
	}
	f := e.follow(stor, head)
	last := make(chan zodb.Tid, 1)
	res := make(chan error, 1)
	go func() {
		// Read what the commits below produce while they are made, as a server does.
		after := head
		for {
			select {
			case upto := <-last:
				res <- e.expect(stor, f, after, upto, false)
				return
			case c := <-f.commits:
				want := e.waitModel(after)
				slices.Sort(c.Oids)
				if c.Gap != 0 || c.Tid != want.Tid || !slices.Equal(c.Oids, want.Oids) {
					res <- fmt.Errorf("follow: after %s got %+v; want %+v", after, c, want)
					return
				}
				after = c.Tid
			case <-f.done:
				res <- fmt.Errorf("follow ended: %w", f.err)
				return
			}
		}
	}()
	oids := oidRange(0x1000, 50)
	for range n {
		objs := map[zodb.Oid][]byte{}
		for range 1 + e.rnd.IntN(4) {
			objs[oids[e.rnd.IntN(len(oids))]] = randomRecord(e.rnd, e.rnd.IntN(60))
		}
		e.commit(objs)
	}
	last <- e.model.last()
	if err := <-res; err != nil {
		e.Fatal(err)
	}
}

// testFollowFrom: following may begin in the past, in which case what came since is reported first
// (or, where the database has forgotten, a gap that covers it), and at the head.
func testFollowFrom(e *env) {
	oids := oidRange(0x1000, 4)
	for range 30 {
		e.step(oids)
	}
	for _, i := range []int{0, 1, 15, 29, 30} {
		var after zodb.Tid
		txns := e.model.after(0)
		if i > 0 {
			after = txns[i-1].Tid
		} else {
			after = txns[0].Tid - 1
		}
		stor := e.open()
		e.waitHead(stor, e.model.last())
		f := e.follow(stor, after)
		if err := e.expect(stor, f, after, e.model.last(), true); err != nil {
			e.Fatalf("from transaction %d: %v", i, err)
		}
		last := e.model.last()
		tid := e.step(oids)
		if err := e.expect(stor, f, last, tid, false); err != nil {
			e.Fatalf("from transaction %d: %v", i, err)
		}
		f.cancel()
		<-f.done
		stor.Close()
	}
}

// testFollowStops: when the callback fails, when the context ends, when the storage is closed.
func testFollowStops(e *env) {
	e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	stop := errors.New("stop")
	stor := e.open()
	head, err := stor.Head(e.ctx())
	if err != nil {
		e.Fatal(err)
	}
	e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	calls := 0
	if err := stor.Follow(e.ctx(), head, func(zodb.Commit) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		e.Fatalf("failing callback: Follow returned %v after %d calls", err, calls)
	}

	stor = e.open()
	f := e.follow(stor, e.model.last())
	f.cancel()
	e.wait("Follow after cancel", f.done)
	if !errors.Is(f.err, context.Canceled) {
		e.Fatalf("cancelled Follow returned %v", f.err)
	}

	stor = e.open()
	f = e.follow(stor, e.model.last())
	if err := stor.Close(); err != nil {
		e.Fatalf("close: %v", err)
	}
	e.wait("Follow after Close", f.done)
	if f.err == nil {
		e.Fatal("Follow of a closed storage returned no error")
	}
}

// wait waits for ch to be closed.
func (e *env) wait(what string, ch <-chan struct{}) {
	e.Helper()
	select {
	case <-ch:
	case <-time.After(Patience):
		e.Fatalf("%s did not end", what)
	}
}
