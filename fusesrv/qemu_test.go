package fusesrv

import (
	"context"
	"errors"
	"testing"

	"wcfs/zcore"
	"wcfs/zcore/tree"
)

// stuck is a handle whose reads wait.
type stuck struct{ in chan struct{} }

func (s *stuck) Read(ctx context.Context, size int, off int64) (tree.Data, error) {
	s.in <- struct{}{}
	<-ctx.Done()
	return zcore.Data{}, tree.ErrInterrupted
}
func (s *stuck) Write(context.Context, []byte, int64) (int, error) { return 0, nil }
func (s *stuck) Close()                                            {}

func TestReadsOfQEMUAreBounded(t *testing.T) {
	for _, c := range []struct {
		kind  tree.Kind
		limit int
	}{{tree.Padded, qemuMessages}, {tree.BaseFile, qemuPins}} {
		reads := &qemuReads{}
		s := &stuck{make(chan struct{})}
		h := &qemuHandle{s, reads, qemuKey{7, c.kind}}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		for range c.limit {
			go func() { h.Read(ctx, 16, 0); done <- struct{}{} }()
			<-s.in
		}
		d, err := h.Read(ctx, 16, 0) // would wait for ever
		switch {
		case c.kind == tree.Padded && (err != nil || string(d.Pieces[0].Mem) != "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"):
			t.Errorf("one watch read too many: %+v, %v", d, err)
		case c.kind == tree.BaseFile && !errors.Is(err, tree.ErrIO):
			t.Errorf("one base read too many: %v", err)
		}
		cancel()
		for range c.limit {
			<-done
		}
		if len(reads.count) != 0 {
			t.Errorf("still counted: %v", reads.count)
		}
	}
}
