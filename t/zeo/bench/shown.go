package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"wcfs/t/bench/kit"
	zeotest "wcfs/t/zeo"
)

// shown measures from the beginning of tpc_finish of one client until head/at of a mount shows the commit, and
// until a Python client gets its invalidate.
func shown(ctx context.Context, kb *kit.Bench, b zeotest.TB, cfg zeotest.Config) (kit.Row, error) {
	srv := zeotest.Start(b, cfg)
	writer := srv.Client()
	writer.CommitTimed(zeotest.Object{Oid: 1, Data: zeotest.Content(1, 0, 1000)})
	m, err := kb.Mount(ctx, ".wcfs/zurl", kb.WCFS, "serve", srv.URL(), "--mount")
	if err != nil {
		return kit.Row{}, err
	}
	defer m.Close()
	py := srv.Client()
	py.Listen()
	defer py.Close()
	var p kit.Pair
	for i := range commits {
		moved := make(chan moment, 1)
		ready := make(chan struct{})
		go func() { moved <- move(ctx, filepath.Join(m.Dir, "head/at"), ready) }()
		<-ready
		tid, at := writer.CommitTimed(zeotest.Object{Oid: 1, Data: zeotest.Content(1, i, 1000)})
		at2 := <-moved
		if at2.err != nil {
			return kit.Row{}, at2.err
		}
		if at2.text != tid.String() {
			return kit.Row{}, fmt.Errorf("head/at has come to %s, not to %s", at2.text, tid)
		}
		p.Ours, p.Other = append(p.Ours, at2.t.Sub(at)), append(p.Other, py.Heard(tid).Sub(at))
	}
	return p.Cost("commit to head/at, ZEO", 1, fmt.Sprintf("other: a Python ZEO client being told; %d commits", commits)), nil
}

// moment is when a file has changed, and to what.
type moment struct {
	t    time.Time
	text string
	err  error
}

// move waits until a file changes; ready is closed when it has been read first.
func move(ctx context.Context, path string, ready chan<- struct{}) moment {
	var first, now string
	err := kit.Poll(path, func(text string) (bool, error) {
		if now = text; first == "" {
			first = text
			close(ready)
		}
		return now != first, context.Cause(ctx)
	})
	if err != nil && first == "" {
		close(ready)
	}
	return moment{time.Now(), now, err}
}
