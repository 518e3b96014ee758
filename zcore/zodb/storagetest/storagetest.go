// Package storagetest is the suite that every zodb.Storage passes.
//
// It owns the model: what was committed, and so what any load at any tid must answer. It knows a
// database only through Backend, which commits, and zodb.Storage, which reads; expected results never
// come from the storage under test. A driver's test is
//
//	storagetest.Run(t, func(t testing.TB) storagetest.Backend { return newBackend(t) })
//
// Histories are random from a printed seed; STORAGETEST_SEED=n replays one.
package storagetest

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zodb"
)

// Patience bounds every wait of the suite. It is generous: a slow machine must not fail a test, a
// storage that hangs must.
var Patience = wait.Patience

// Backend is one fresh database, with a way to write to it. Methods fail t themselves; those with a
// testing.TB may be called from one goroutine at a time, not always the one that runs the test.
type Backend interface {
	// Open opens the database for reading. The suite closes what it opens.
	Open(t testing.TB) zodb.Storage

	// Commit commits objs, one raw record each, as one transaction and returns its tid.
	Commit(t testing.TB, objs map[zodb.Oid][]byte) zodb.Tid
}

// Undoer is implemented by backends that can undo a transaction by a new one.
type Undoer interface {
	Undo(t testing.TB, tid zodb.Tid) zodb.Tid
}

// Deleter is implemented by backends that can delete objects by a transaction.
type Deleter interface {
	Delete(t testing.TB, oids ...zodb.Oid) zodb.Tid
}

// PackBackend is a backend that can pack: drop revisions not current as of at. Objects that
// nothing refers to must survive it (pack without garbage collection).
type PackBackend interface {
	Backend
	Pack(t testing.TB, at zodb.Tid)
}

// ForgetsDeletions is implemented by backends whose pack drops deletions and can keep what was deleted, as
// that of Python's FileStorage does where a later undo brought the object back: between deletion and
// undo the object then seems to exist, for Python too.
type ForgetsDeletions interface {
	ForgetsDeletions()
}

// LooseAbsence is implemented by backends whose protocol cannot tell apart an object that never
// existed, did not exist yet or is deleted: any error that zodb.IsAbsent accepts will do then.
type LooseAbsence interface {
	LooseAbsence()
}

// Many is implemented by backends for which thousands of commits would take too long: it says how
// many the ordering test may make.
type Many interface {
	Many() int
}

// Run runs the suite; newBackend is called once a subtest and registers its own clean-up.
func Run(t *testing.T, newBackend func(t testing.TB) Backend) {
	tests := []struct {
		name string
		fn   func(e *env)
	}{
		{"Load", testLoad},
		{"Missing", testMissing},
		{"Big", testBig},
		{"Head", testHead},
		{"FollowOrder", testFollowOrder},
		{"FollowFrom", testFollowFrom},
		{"FollowStops", testFollowStops},
		{"Concurrent", testConcurrent},
		{"Cancel", testCancel},
		{"Close", testClose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.fn(newEnv(t, newBackend(t))) })
	}
}

// RunPack is the part of the suite for backends that pack; it is not in Run.
func RunPack(t *testing.T, newBackend func(t testing.TB) PackBackend) {
	t.Run("Pack", func(t *testing.T) {
		back := newBackend(t)
		testPack(newEnv(t, back), back)
	})
}

func newEnv(t *testing.T, back Backend) *env {
	e := &env{T: t, back: back, rnd: rand.New(rand.NewPCG(seed(t), 1)), model: newModel()}
	_, e.loose = back.(LooseAbsence)
	return e
}

func seed(t testing.TB) uint64 {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("STORAGETEST_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("STORAGETEST_SEED: %v", err)
		}
		s = n
	}
	t.Logf("STORAGETEST_SEED=%d", s)
	return s
}

// env is what one subtest works with.
type env struct {
	*testing.T
	back  Backend
	loose bool
	rnd   *rand.Rand // used by the test's own goroutine only
	model *model

	packed atomic.Uint64 // the tid packed to
}

// open opens the database and closes it when the test ends.
func (e *env) open() zodb.Storage {
	e.Helper()
	stor := e.back.Open(e.T)
	e.Cleanup(func() { stor.Close() })
	return stor
}

func (e *env) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	e.Cleanup(cancel)
	return ctx
}

// commit commits objs and enters them in the model.
func (e *env) commit(objs map[zodb.Oid][]byte) zodb.Tid {
	e.Helper()
	tid := e.back.Commit(e.T, objs)
	e.model.commit(e.T, tid, objs)
	return tid
}

// step makes one random commit: a few objects changed or created, sometimes one deleted or undone.
func (e *env) step(oids []zodb.Oid) zodb.Tid {
	e.Helper()
	switch r := e.rnd.IntN(10); {
	case r == 0:
		if b, ok := e.back.(Deleter); ok {
			if oid, ok := e.model.pickLive(e.rnd); ok {
				tid := b.Delete(e.T, oid)
				e.model.commit(e.T, tid, map[zodb.Oid][]byte{oid: nil})
				return tid
			}
		}
	case r == 1:
		if b, ok := e.back.(Undoer); ok && e.model.last() != 0 {
			last := e.model.last()
			tid := b.Undo(e.T, last)
			e.model.undo(e.T, tid, last)
			return tid
		}
	}
	objs := map[zodb.Oid][]byte{}
	for range 1 + e.rnd.IntN(3) {
		objs[oids[e.rnd.IntN(len(oids))]] = randomRecord(e.rnd, e.rnd.IntN(300))
	}
	return e.commit(objs)
}

// waitHead waits until the storage's head is at least tid.
func (e *env) waitHead(stor zodb.Storage, tid zodb.Tid) {
	e.Helper()
	ctx := e.ctx()
	for {
		head, err := stor.Head(ctx)
		if err != nil {
			e.Fatalf("head: %v", err)
		}
		if head >= tid {
			return
		}
		select {
		case <-ctx.Done():
			e.Fatalf("head is still %s, want %s", head, tid)
		case <-time.After(time.Millisecond):
		}
	}
}

// oidRange returns n oids from first on.
func oidRange(first zodb.Oid, n int) []zodb.Oid {
	oids := make([]zodb.Oid, n)
	for i := range oids {
		oids[i] = first + zodb.Oid(i)
	}
	return oids
}
