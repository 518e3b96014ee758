package zcore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// pieceBytes returns what a piece has.
func pieceBytes(p Piece) []byte {
	if p.File == nil {
		return p.Mem
	}
	b := make([]byte, p.Len)
	if _, err := p.File.ReadAt(b, p.Off); err != nil {
		panic(err) // an extent that was released too early
	}
	return b
}

// extents is a database whose records can be had from a file. Now and then the file is replaced, as by a
// pack: the old one is closed and overwritten when its last extent is released.
type extents struct {
	database
	dir     string
	refusal int // in a hundred: how often a record is said to lie nowhere as it is

	mu   sync.Mutex
	rng  *rand.Rand  // mu
	cur  *extentFile // mu
	out  int         // mu; extents not released
	gave int         // mu
}

type extentFile struct {
	f    *os.File
	size int64
	refs int
}

func newExtents(t *testing.T, stor database, refusal int) *extents {
	return &extents{database: stor, dir: t.TempDir(), refusal: refusal, rng: rand.New(rand.NewPCG(1, 2))}
}

func (e *extents) ExtentAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Extent, func(), error) {
	rec, err := e.LoadAt(ctx, oid, at)
	if err != nil {
		return zodb.Extent{}, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rng.IntN(100) < e.refusal {
		return zodb.Extent{}, nil, zodb.ErrNoExtent
	}
	if e.cur == nil || e.rng.IntN(50) == 0 {
		e.put(e.cur)
		f, err := os.CreateTemp(e.dir, "db")
		if err != nil {
			return zodb.Extent{}, nil, err
		}
		e.cur = &extentFile{f: f, refs: 1}
	}
	f := e.cur
	x := zodb.Extent{File: f.f, Off: f.size, Len: int64(len(rec.Data)), Serial: rec.Serial}
	if _, err := f.f.WriteAt(rec.Data, x.Off); err != nil {
		return zodb.Extent{}, nil, err
	}
	f.size += x.Len
	f.refs++
	e.out++
	e.gave++
	return x, sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.out--
		e.put(f)
	}), nil
}

// put gives back a reference. mu must be held.
func (e *extents) put(f *extentFile) {
	if f == nil {
		return
	}
	if f.refs--; f.refs == 0 {
		f.f.Close()
		os.Remove(filepath.Join(e.dir, filepath.Base(f.f.Name())))
	}
}

// check waits until all extents are released: what runs in the background may take a moment.
func (e *extents) check() error {
	for deadline := time.Now().Add(wait.Patience); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		out, gave := e.out, e.gave
		e.mu.Unlock()
		switch {
		case out == 0 && gave > 0:
			return nil
		case out == 0:
			return fmt.Errorf("no extent was used")
		case time.Now().After(deadline):
			return fmt.Errorf("%d of %d extents were not released", out, gave)
		}
	}
}
