package zcore

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"wcfs/zcore/zodb"
)

// TestIsolationWithLoadErrors is TestIsolation over a database whose loads fail now and then. A fault whose READ fails
// sends it once more, while it keeps its client from re-mapping: that READ must not wait for the client.
func TestIsolationWithLoadErrors(t *testing.T) {
	base, n := uint64(time.Now().UnixNano()), soaked(*simsFlag/3)
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	repeated := 0
	for i := range n {
		s := newSim(t, base+uint64(i))
		s.failing = true
		fail := rand.New(rand.NewPCG(s.seed, 77))
		s.stor.SetLoadHook(func(context.Context, zodb.Oid, zodb.Tid) error {
			s.step(StepReceived)
			s.rmu.Lock()
			defer s.rmu.Unlock()
			if fail.IntN(25) == 0 {
				return errAway
			}
			return nil
		})
		if err := s.run(); err != nil {
			t.Fatalf("go test -run TestIsolationWithLoadErrors -seed %d: %v", s.seed, err)
		}
		s.k.mu.Lock()
		repeated += s.k.repeated
		s.k.mu.Unlock()
	}
	t.Logf("%d faults sent their READ again", repeated)
	if *seedFlag == 0 && repeated == 0 {
		t.Error("the simulation shows nothing")
	}
}

// forgiven reports whether an error is one that clients of a failing database must live with.
func (s *sim) forgiven(err error) bool {
	return s.failing && errors.Is(err, ErrIO) && !errors.Is(err, errDomainFailed)
}

// faultOf is a page fault of a client: it may be sent again while the client can map nothing.
func (c *simClient) faultOf(ctx context.Context, off int64, npages int) (string, error) {
	data, err := c.s.k.fault(ctx, c.f, off, npages)
	if !c.s.forgiven(err) {
		return data, err
	}
	c.mmap.RLock()
	defer c.mmap.RUnlock()
	if c.isPinned(Blk(off / c.f.h.Blksize)) { // the fault finds another mapping
		return "", err
	}
	c.s.k.mu.Lock()
	c.s.k.repeated++
	c.s.k.mu.Unlock()
	began := time.Now()
	data, err = c.s.k.fault(ctx, c.f, off, 1)
	if took := time.Since(began); took > simPinTimeout/2 {
		return "", errors.New("a repeated READ waits: " + took.String())
	}
	return data, err
}

func (c *simClient) isPinned(blk Blk) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, pinned := c.pins[blk]
	return pinned
}

// fatal reports whether a line is the server's last word to a client.
func fatal(line string) bool { return strings.HasPrefix(line, "0 ") }
