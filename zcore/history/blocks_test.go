package history

import (
	"context"
	"testing"
	"time"

	"wcfs/t/wait"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// writeBlk0 writes the first block of a file, or of a new one.
func writeBlk0(t *testing.T, db *zgen.DB, file zodb.Oid, data string) (zodb.Oid, zodb.Tid) {
	t.Helper()
	tx := db.Begin()
	if file == 0 {
		file = tx.NewFile(4096)
	}
	tx.Write(file, 0, []byte(data), zgen.Blk0)
	tid, err := tx.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return file, tid
}

// A load that has ended, but which those who waited for it have not left yet, is not joined: a commit that tells
// its revision from the next may have been forgotten since.
func TestEndedLoadIsNotJoined(t *testing.T) {
	stor := memstorage.New()
	db := zgen.New(stor, zgen.Options{})
	file, at0 := writeBlk0(t, db, 0, "a0")
	now := time.Unix(0, 0)
	tail := New(stor, at0, Options{Retention: time.Minute, BlockBytes: 1, Now: func() time.Time { return now }})
	zblk := db.Zblk(file, 0, at0)
	tail.mu.Lock()
	c := tail.startLocked(t.Context(), callKey{oid: zblk}, at0, 4096)
	c.wait++
	tail.mu.Unlock()
	<-c.done
	_, at1 := writeBlk0(t, db, file, "a1")
	commits := []zodb.Commit{{Tid: at1, Oids: []zodb.Oid{zblk}}}
	tail.Publish(commits)
	now = now.Add(time.Hour)
	tail.Trim()
	b, err := tail.Block(t.Context(), zblk, at1, 4096)
	if err != nil || string(b.Data) != "a1" {
		t.Fatalf("%q, %v", b.Data, err)
	}
}

// What changed in a gap is not known, so a load as of a revision inside it is not shared with one from before.
func TestLoadInAGapIsNotShared(t *testing.T) {
	stor := memstorage.New()
	db := zgen.New(stor, zgen.Options{})
	file, at0 := writeBlk0(t, db, 0, "a0")
	_, at1 := writeBlk0(t, db, file, "a1")
	_, at2 := writeBlk0(t, db, file, "a2")
	zblk := db.Zblk(file, 0, at0)
	tail := New(stor, at0, Options{})
	tail.Publish([]zodb.Commit{{Tid: at2, Gap: at0}})
	began, load := make(chan struct{}), make(chan struct{})
	stor.SetLoadHook(func(_ context.Context, _ zodb.Oid, at zodb.Tid) error {
		if at == at0 {
			close(began)
			<-load
		}
		return nil
	})
	old := make(chan string)
	go func() {
		b, _ := tail.Block(t.Context(), zblk, at0, 4096)
		old <- string(b.Data)
	}()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	for at, want := range map[zodb.Tid]string{at1: "a1", at2: "a2"} {
		if b, err := tail.Block(ctx, zblk, at, 4096); err != nil || string(b.Data) != want {
			t.Errorf("as of @%s: %v, want %q", at, err, want)
		}
	}
	close(load)
	if got := <-old; got != "a0" {
		t.Errorf("before the gap: %q", got)
	}
}
