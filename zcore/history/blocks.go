package history

import (
	"context"
	"encoding/binary"
	"hash/maphash"

	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
)

// Block is the content of one ZBlk revision, without trailing zeros. Immutable.
type Block struct {
	Data   []byte
	Serial zodb.Tid // of the ZBlk
	Hash   uint64   // Tail.Hash of Data
}

// callKey names a revision of a ZBlk before its serial is known: no commit in (stamp, at] touched it.
type callKey struct {
	oid   zodb.Oid
	stamp zodb.Tid
	at    zodb.Tid // set where at < tail or in a gap, so that the stamp says nothing
}

// call is a load under way that several readers wait for.
type call struct {
	done   chan struct{}
	cancel context.CancelFunc
	wait   int // Tail.mu; readers waiting; the load is cancelled when the last one leaves
	blk    *Block
	err    error
}

// Block returns the content of a ZBlk as of at, which must not be newer than what is published.
// Readers share a load only when the ZBlk has the same serial at each one's own revision; a load is
// not cancelled because the reader that began it was.
func (t *Tail) Block(ctx context.Context, zblk zodb.Oid, at zodb.Tid, blksize int64) (*Block, error) {
	t.mu.Lock()
	if v, ok := t.blocks.get(zblk, at); ok {
		t.mu.Unlock()
		return checkSize(zblk, v.val, blksize)
	}
	key := callKey{oid: zblk, stamp: t.stamp(zblk, at)}
	if at < t.tail || t.unknown(at) {
		key.at = at
	}
	c := t.calls[key]
	if c == nil {
		c = t.startLocked(ctx, key, at, blksize)
	}
	c.wait++
	t.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
	}
	t.mu.Lock()
	c.wait--
	if c.wait == 0 {
		c.cancel()
		t.endCall(key, c)
	}
	t.mu.Unlock()
	select {
	case <-c.done:
		if c.err != nil {
			return nil, c.err
		}
		return checkSize(zblk, c.blk, blksize)
	default:
		return nil, ctx.Err()
	}
}

// Recent returns the content of a ZBlk as of at if it is in memory, else nil.
func (t *Tail) Recent(zblk zodb.Oid, at zodb.Tid) *Block {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.blocks.get(zblk, at); ok {
		return v.val
	}
	return nil
}

// startLocked begins a load. mu must be held.
func (t *Tail) startLocked(ctx context.Context, key callKey, at zodb.Tid, blksize int64) *call {
	// A load at or after tail is valid up to the first commit that touches the ZBlk; of one before it
	// only that it holds at at is known.
	from, until := max(at, t.tail), zodb.TidMax
	if at < t.tail {
		until = at + 1
	}
	hold := t.holdLocked(from)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &call{done: make(chan struct{}), cancel: cancel}
	t.calls[key] = c
	go func() {
		defer close(c.done)
		defer hold.Release()
		c.blk, c.err = t.loadBlock(ctx, key.oid, at, blksize)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.endCall(key, c) // while it is held: after that the key may stand for a newer revision
		if c.err == nil {
			t.blocks.put(key.oid, c.blk.Serial, min(until, t.firstTouch(key.oid, from)), c.blk, len(c.blk.Data)+200)
		}
	}()
	return c
}

func (t *Tail) loadBlock(ctx context.Context, zblk zodb.Oid, at zodb.Tid, blksize int64) (*Block, error) {
	end := t.meter.begin(loadBlock)
	data, serial, err := zdata.LoadBlk(ctx, t.stor, t, zblk, at, blksize)
	t.answered(err)
	end(err)
	if err != nil {
		return nil, err
	}
	data = trimZeros(data)
	return &Block{Data: data, Serial: serial, Hash: t.Hash(data)}, nil
}

// endCall sees that nobody joins a load any more. mu must be held.
func (t *Tail) endCall(key callKey, c *call) {
	if t.calls[key] == c {
		delete(t.calls, key)
	}
}

func checkSize(zblk zodb.Oid, b *Block, blksize int64) (*Block, error) {
	if int64(len(b.Data)) > blksize {
		return nil, &zodb.DataError{Oid: zblk, Serial: b.Serial, Pos: -1, Msg: "block is larger than the file's block size"}
	}
	return b, nil
}

// trimZeros cuts trailing zeros.
func trimZeros(p []byte) []byte {
	for len(p) >= 8 && binary.LittleEndian.Uint64(p[len(p)-8:]) == 0 {
		p = p[:len(p)-8]
	}
	for len(p) > 0 && p[len(p)-1] == 0 {
		p = p[:len(p)-1]
	}
	return p
}

// Hash hashes block content less its trailing zeros, so that padded and cut forms of it agree.
func (t *Tail) Hash(p []byte) uint64 { return maphash.Bytes(t.seed, trimZeros(p)) }
