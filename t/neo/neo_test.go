package neo_test

import (
	"bytes"
	"strings"
	"testing"

	"wcfs/t/neo"
	rel "wcfs/t/relstorage"
	"wcfs/t/zeo"
	"wcfs/zcore/zodb"
)

// peers are the clusters that there are: both protocols and TLS, and 1.12.0 unmodified where it runs.
func peers(t *testing.T) []neo.Config {
	list := []neo.Config{{Protocol: 6}, {Protocol: 5}, {Protocol: 5, Certs: zeo.NewCerts(t)}}
	if neo.Has2(t) {
		list = append(list, neo.Config{Protocol: 6, Python2: true})
	}
	return list
}

// TestPeer: what the writer commits, deletes, undoes and packs is there again, whatever node dies.
func TestPeer(t *testing.T) {
	for _, cfg := range peers(t) {
		cfg.Masters, cfg.Storages, cfg.Partitions, cfg.Replicas = 2, 2, 3, 1
		t.Run(cfg.String(), func(t *testing.T) {
			t.Parallel()
			peer(t, cfg)
		})
	}
}

func peer(t *testing.T, cfg neo.Config) {
	c := neo.Start(t, cfg)
	w := c.Writer()
	text := func(s string) []byte { return bytes.Repeat([]byte(s), 100) }
	want := func(oid zodb.Oid, at zodb.Tid, s string) {
		t.Helper()
		l := w.Load(oid, at+1)
		if l == nil || !bytes.Equal(l.Data, text(s)) {
			t.Fatalf("object %s at %s: %v, want %q", oid, at, l, s)
		}
	}
	t1 := w.Commit(map[zodb.Oid][]byte{1: text("a"), 2: text("b")})
	t2 := w.Commit(map[zodb.Oid][]byte{1: text("c"), 5: {}})
	t3, err := w.Make(neo.Txn{Objects: map[zodb.Oid][]byte{2: nil}, Checked: []zodb.Oid{1}})
	if err != nil {
		t.Fatal(err)
	}
	if l := w.Load(2, t3+1); l == nil || l.Data != nil || l.Tid != t3 {
		t.Errorf("a deleted object loads as %v", l)
	}
	if head := w.Head(); head != t3 {
		t.Errorf("the head is %s, want %s", head, t3)
	}
	t4 := w.Undo(t2)
	want(1, t4, "a")
	want(1, t3, "c")
	if l := w.Load(5, t4+1); l == nil || l.Data != nil {
		t.Errorf("an object whose creation was undone loads as %v", l)
	}

	c.Storages[0].Kill()
	t5 := w.Commit(map[zodb.Oid][]byte{3: text("d")})
	want(3, t5, "d")
	c.Storages[0].Start()
	c.WaitReplicated()
	c.Storages[1].Kill()
	want(3, t5, "d")
	want(1, t1, "a")
	c.Storages[1].Start()
	c.WaitReplicated()
	c.Primary().Kill()
	t6 := w.Commit(map[zodb.Oid][]byte{3: text("e")})
	want(3, t6, "e")
	w.Pack(t5)
	want(3, t5, "d")
	if l := w.Load(1, t2); l != nil {
		t.Errorf("what was packed away loads as %v", l)
	}
}

// TestTweak: a storage is added, partitions move to it, another is dropped.
func TestTweak(t *testing.T) {
	c := neo.Start(t, neo.Config{Protocol: 5, Storages: 2, Partitions: 4})
	w := c.Writer()
	objs := map[zodb.Oid][]byte{}
	for oid := range zodb.Oid(40) {
		objs[oid] = []byte{byte(oid)}
	}
	tid := w.Commit(objs)
	c.AddStorage()
	c.WaitPending()
	c.Ctl("add", "all")
	c.Tweak(c.Storages[0])
	zeo.Eventually(t, "others have what S1 has", func() bool {
		for _, row := range c.Cells() {
			if row[2] != neo.UpToDate && row[3] != neo.UpToDate {
				return false
			}
		}
		return true
	})
	c.Storages[0].Kill()
	c.Ctl("drop", "S1")
	for oid, data := range objs {
		if l := w.Load(oid, tid+1); l == nil || !bytes.Equal(l.Data, data) {
			t.Errorf("object %s: %v", oid, l)
		}
	}
}

// TestBigFile: Python's ZODB and ZBigFile write to NEO, over each protocol.
func TestBigFile(t *testing.T) {
	for _, protocol := range []int{6, 5} {
		c := neo.Start(t, neo.Config{Protocol: protocol, Storages: 2, Partitions: 3})
		oid, err := rel.BigFileOutput(t.Context(), "make", c.Bigfile(), "1")
		if err != nil {
			t.Fatal(err)
		}
		f, err := zodb.ParseOid(strings.TrimSpace(oid))
		if err != nil {
			t.Fatal(err)
		}
		out, err := rel.BigFileOutput(t.Context(), "set", c.Bigfile(), "0", "text")
		if err != nil {
			t.Fatal(err)
		}
		tid, err := zodb.ParseTid(strings.TrimSpace(out))
		if err != nil {
			t.Fatal(err)
		}
		w := c.Writer()
		if l := w.Load(f, tid+1); l == nil || !bytes.Contains(l.Data, []byte("ZBigFile")) {
			t.Errorf("the file is %v", l)
		}
		if head := w.Head(); head != tid {
			t.Errorf("the head is %s, want %s", head, tid)
		}
	}
}
