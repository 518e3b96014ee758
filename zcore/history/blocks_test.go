package history

import (
	"testing"
	"time"

	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/memstorage"
)

// A load that has ended, but which those who waited for it have not left yet, is not joined: a commit that tells
// its revision from the next may have been forgotten since.
func TestEndedLoadIsNotJoined(t *testing.T) {
	stor := memstorage.New()
	db := zgen.New(stor, zgen.Options{})
	tx := db.Begin()
	file := tx.NewFile(4096)
	tx.Write(file, 0, []byte("a0"), zgen.Blk0)
	at0, err := tx.Commit()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	tail := New(stor, at0, Options{Retention: time.Minute, BlockBytes: 1, Now: func() time.Time { return now }})
	zblk := db.Zblk(file, 0, at0)
	tail.mu.Lock()
	c := tail.startLocked(t.Context(), callKey{oid: zblk}, at0, 4096)
	c.wait++
	tail.mu.Unlock()
	<-c.done
	tx = db.Begin()
	tx.Write(file, 0, []byte("a1"), zgen.Blk0)
	at1, err := tx.Commit()
	if err != nil {
		t.Fatal(err)
	}
	commits := []zodb.Commit{{Tid: at1, Oids: []zodb.Oid{zblk}}}
	tail.Publish(commits)
	now = now.Add(time.Hour)
	tail.Trim()
	b, err := tail.Block(t.Context(), zblk, at1, 4096)
	if err != nil || string(b.Data) != "a1" {
		t.Fatalf("%q, %v", b.Data, err)
	}
}
