package zcore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// treeCase is one thing that may happen to a blktab whose blocks 0 to 9 have all been read; 7 and 8 are holes.
type treeCase struct {
	name    string
	small   bool // one bucket only: all but 0, 1 and 9 are holes
	prepare func(w *world, tx *zgen.Tx)
	commits []func(w *world, tx *zgen.Tx)
	changed []Blk // by all of commits
}

type step = func(w *world, tx *zgen.Tx)

func reshape(s zgen.Shape, n Blk) step {
	return func(w *world, tx *zgen.Tx) { tx.Reshape(w.f, n, s) }
}

func put(n Blk, s string) step {
	return func(w *world, tx *zgen.Tx) { tx.Write(w.f, n, []byte(s), zgen.Blk0) }
}

// moveTo has block to show what block from shows.
func moveTo(from, to Blk, keep bool) step {
	return func(w *world, tx *zgen.Tx) {
		z := w.db.Zblk(w.f, from, w.db.Head())
		if !keep {
			tx.Punch(w.f, from)
		}
		tx.Map(w.f, to, z)
	}
}

var treeCases = []treeCase{
	{name: "split", commits: []step{reshape(zgen.Split, 3)}},
	{name: "merge", commits: []step{reshape(zgen.Merge, 0)}},
	{name: "rotation", commits: []step{reshape(zgen.Rotate, 0)}},
	{name: "bucket renewed", commits: []step{reshape(zgen.Renew, 3)}},
	{name: "level added", commits: []step{reshape(zgen.Raise, 0)}},
	{name: "rebuilt", commits: []step{reshape(zgen.Rebuild, 0)}},
	{name: "split and changed", changed: []Blk{3, 4}, commits: []step{func(w *world, tx *zgen.Tx) {
		tx.Reshape(w.f, 3, zgen.Split)
		put(4, "new")(w, tx)
		tx.Punch(w.f, 3)
	}}},
	{name: "inline root to children", small: true, prepare: reshape(zgen.Inline, 0), commits: []step{reshape(zgen.Outline, 0), reshape(zgen.Split, 0)}},
	{name: "children to inline root", small: true, prepare: reshape(zgen.Outline, 0), commits: []step{reshape(zgen.Inline, 0)}},
	{name: "inline root to children and changed", small: true, prepare: reshape(zgen.Inline, 0), changed: []Blk{1, 8}, commits: []step{func(w *world, tx *zgen.Tx) {
		tx.Reshape(w.f, 0, zgen.Outline)
		tx.Punch(w.f, 1)
		put(8, "i")(w, tx)
	}}},
	{name: "emptied tree", changed: []Blk{0, 1, 2, 3, 4, 5, 6, 9}, commits: []step{func(w *world, tx *zgen.Tx) { tx.Truncate(w.f, 0) }}},
	{name: "emptied and filled again", changed: []Blk{0, 1, 2, 3, 4, 5, 6, 8, 9}, commits: []step{
		func(w *world, tx *zgen.Tx) { tx.Truncate(w.f, 0) }, put(8, "i"), put(0, "a"),
	}},
	{name: "one ZBlk under two keys", changed: []Blk{1, 8}, prepare: moveTo(1, 8, true), commits: []step{put(1, "both")}},
	{name: "second key for a ZBlk", changed: []Blk{7}, commits: []step{moveTo(2, 7, true)}},
	{name: "ZBlk moved to another key", changed: []Blk{2, 7}, commits: []step{moveTo(2, 7, false)}},
	{name: "ZBlk moved and changed", changed: []Blk{2, 7}, commits: []step{moveTo(2, 7, false), put(7, "moved")}},
	{name: "undo", changed: []Blk{4}, commits: []step{
		func(w *world, tx *zgen.Tx) { tx.Write(w.f, 4, []byte("other"), zgen.Blk1) },
		func(w *world, tx *zgen.Tx) { tx.Map(w.f, 4, w.db.Zblk(w.f, 4, w.core.T0())) },
	}},
	{name: "ZBlk0 to ZBlk1", changed: []Blk{5}, commits: []step{func(w *world, tx *zgen.Tx) { tx.Write(w.f, 5, []byte("as Blk1"), zgen.Blk1) }}},
	{name: "one chunk of a ZBlk1", changed: []Blk{6},
		prepare: func(w *world, tx *zgen.Tx) {
			tx.Write(w.f, 6, []byte(strings.Repeat("x", testBlksize)), zgen.Blk1)
		},
		commits: []step{func(w *world, tx *zgen.Tx) { tx.Patch(w.f, 6, 3000, []byte("patched")) }}},
	{name: "ZBlk written without a change", changed: []Blk{0}, commits: []step{func(w *world, tx *zgen.Tx) { tx.Touch(w.f, 0) }}},
	{name: "what nobody looks at", commits: []step{func(w *world, tx *zgen.Tx) { tx.Object(0, "x"); tx.TouchFile(w.f) }}},
}

// Whatever happens to the tree: exactly the blocks that changed are pinned, to the right revisions, and
// tracked paths are right afterwards.
func TestTreesThatChange(t *testing.T) {
	for _, c := range treeCases {
		t.Run(c.name, func(t *testing.T) { c.test(t, false) })
		t.Run(c.name+", shared blktab", func(t *testing.T) { c.test(t, true) })
	}
}

func (c *treeCase) test(t *testing.T, shared bool) {
	init := map[Blk]string{}
	for _, blk := range []Blk{0, 1, 2, 3, 4, 5, 6, 9} {
		if !c.small || blk < 2 || blk == 9 {
			init[blk] = fmt.Sprintf("%c", 'a'+rune(blk))
		}
	}
	w := newWorld(t, Options{}, init)
	if c.prepare != nil {
		w.announced(w.tx(func(tx *zgen.Tx) { c.prepare(w, tx) }))
	}
	watched := w.f
	if shared { // another file with the same blktab is watched
		w.announced(w.tx(func(tx *zgen.Tx) { watched = tx.NewFileSharing(w.f) }))
	}
	at := w.db.Head()
	all := []Blk{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	w.readAll(watched, all)
	f, _ := w.core.Lookup(context.Background(), watched)
	for _, change := range c.commits {
		w.announced(w.tx(func(tx *zgen.Tx) { change(w, tx) }))
		w.readAll(watched, all)
		if a, _ := f.Attr(context.Background()); a.Size != w.db.Size(watched, w.db.Head()) {
			t.Fatalf("size is %d, want %d", a.Size, w.db.Size(watched, w.db.Head()))
		}
	}
	pins := func(at zodb.Tid, changed []Blk) {
		t.Helper()
		want := map[Blk]zodb.Tid{}
		for _, blk := range changed {
			want[blk] = max(w.core.T0(), w.db.BlkRevAt(watched, blk, at))
		}
		l := w.link()
		w.wantPins(l.pins(watched, at), want)
		l.send("3 bye")
		l.want("EOF")
	}
	pins(at, c.changed)
	// once more, by all: what is tracked now is right
	at2 := w.db.Head()
	for _, blk := range all {
		w.announced(w.tx(func(tx *zgen.Tx) { put(blk, fmt.Sprint("last", blk))(w, tx) }))
	}
	pins(at2, w.model(watched, all, at2))
	w.readAll(watched, all)
}

// model are the blocks that changed after at.
func (w *world) model(f zodb.Oid, all []Blk, at zodb.Tid) []Blk {
	return slices.DeleteFunc(slices.Clone(all), func(blk Blk) bool { return w.db.BlkRevAt(f, blk, w.db.Head()) <= at })
}

// readAll reads blocks of a file, which must be as of head.
func (w *world) readAll(f zodb.Oid, blks []Blk) {
	w.t.Helper()
	was := w.f
	defer func() { w.f = was }()
	w.f = f
	for _, blk := range blks {
		w.want(blk, strings.TrimRight(string(w.db.Data(f, blk, w.db.Head())), "\x00"))
	}
}

// lateStore answers loads of one object as of one tid late: with what there was when they began.
type lateStore struct {
	*memstorage.Store
	oid     zodb.Oid
	at      zodb.Tid
	loading chan struct{} // closed when such a load has begun
	resume  chan struct{} // closed to have it answered
	once    sync.Once
}

func (s *lateStore) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rec, err := s.Store.LoadAt(ctx, oid, at)
	if oid == s.oid && at == s.at {
		s.once.Do(func() { close(s.loading) })
		<-s.resume
	}
	return rec, err
}

// A node whose load began before a commit and ended after it is not taken for what it is since that.
func TestNodeLoadedBeforeTheCommitIsInsertedAfterIt(t *testing.T) {
	late := &lateStore{loading: make(chan struct{}), resume: make(chan struct{})}
	init := map[Blk]string{0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
	w := newWorldOver(t, Options{}, init, func(s *memstorage.Store) zodb.Storage {
		late.Store = s
		return late
	})
	if _, err := w.core.Lookup(context.Background(), w.f); err != nil {
		t.Fatal(err)
	}
	// Block 0 comes to be in a bucket of its own, whose oid is the newest; then something unrelated.
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Reshape(w.f, 0, zgen.Renew) }))
	late.oid, late.at = w.lastOid(), w.commit(map[Blk]string{4: "e2"})
	old := background(func() string { // as of a revision: it waits for no view
		s, err := w.readAt(late.at, 0)
		return fmt.Sprint(s, err)
	})
	w.must("the load of the bucket", late.loading)
	w.announced(w.tx(func(tx *zgen.Tx) { tx.Punch(w.f, 0) }))
	close(late.resume)
	if s := <-old; s != "a<nil>" {
		t.Fatalf("@%s: %s", late.at, s)
	}
	w.want(0, "")
	w.readAll(w.f, []Blk{0, 1, 2, 3, 4})
}

// lastOid is the newest object of the database.
func (w *world) lastOid() (last zodb.Oid) {
	w.stor.Oids(context.Background(), w.db.Head(), func(oid zodb.Oid) error {
		last = oid
		return nil
	})
	return last
}
