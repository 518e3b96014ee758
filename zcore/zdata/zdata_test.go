package zdata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pickle "github.com/kisielk/og-rek"

	"wcfs/t/wait"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zdata/zgen"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/memstorage"
	"wcfs/zcore/zodb/record"
)

var style = record.Py3()

func class(name string) record.Class { return record.Class{Module: record.ModBigFile, Name: name} }

func commit(t testing.TB, objs map[zodb.Oid][]byte) *memstorage.Store {
	t.Helper()
	s := memstorage.New()
	if err := s.Commit(1, objs); err != nil {
		t.Fatal(err)
	}
	return s
}

// load loads a block in both ways, chunk by chunk and in a batch.
func load(stor zodb.Storage, zblk zodb.Oid, blksize int64) ([]byte, error) {
	ctx := context.Background()
	data, serial, err := zdata.LoadBlk(ctx, stor, btree.Direct{Storage: stor}, zblk, 1, blksize)
	data2, serial2, err2 := zdata.LoadBlk(ctx, batches{stor}, btree.Direct{Storage: stor}, zblk, 1, blksize)
	if !bytes.Equal(data, data2) || serial != serial2 || (err == nil) != (err2 == nil) {
		return nil, fmt.Errorf("%d bytes of %s (%v) chunk by chunk, %d of %s (%v) in a batch", len(data), serial, err, len(data2), serial2, err2)
	}
	return data, err
}

// batches loads in batches, from last to first, through one buffer.
type batches struct{ zodb.Storage }

func (s batches) LoadBatch(ctx context.Context, oids []zodb.Oid, at zodb.Tid, fn func(int, zodb.Record, error) error) error {
	var buf []byte
	for i := len(oids) - 1; i >= 0; i-- {
		rec, err := s.LoadAt(ctx, oids[i], at)
		buf = append(buf[:0], rec.Data...)
		rec.Data = buf
		if err := fn(i, rec, err); err != nil {
			return err
		}
		clear(buf)
	}
	return ctx.Err()
}

func TestBigFile(t *testing.T) {
	tab := style.Ref(2, record.LO.TreeClass())
	for name, c := range map[string]struct {
		data []byte
		err  string // "" for none
	}{
		"good":          {style.BigFile(2<<20, 2), ""},
		"largest":       {style.BigFile(zdata.MaxBlksize, 2), ""},
		"oid 0":         {style.BigFile(1, 0), ""},
		"zero blksize":  {style.BigFile(0, 2), "blksize is 0"},
		"negative":      {style.BigFile(-1, 2), "blksize is -1"},
		"too large":     {style.BigFile(zdata.MaxBlksize+1, 2), "blksize is 1073741825"},
		"absurd":        {style.BigFile(1<<62, 2), "blksize is 4611686018427387904"},
		"text":          {style.Encode(class("ZBigFile"), pickle.Tuple{"2", tab}), "blksize is a text string"},
		"no reference":  {style.Encode(class("ZBigFile"), pickle.Tuple{int64(2), int64(3)}), "blktab is an integer"},
		"weak":          {style.Encode(class("ZBigFile"), pickle.Tuple{int64(2), style.WeakRef(2)}), "blktab is a weak"},
		"three":         {style.Encode(class("ZBigFile"), pickle.Tuple{int64(2), tab, tab}), "tuple of 3"},
		"none":          {style.Encode(class("ZBigFile"), pickle.None{}), "None"},
		"cut":           {style.BigFile(2<<20, 2)[:60], "mid-pickle"},
		"nothing":       {nil, "mid-pickle"},
		"a ZBlk0":       {style.Blk0(nil), "not a ZBigFile"},
		"foreign class": {style.EncodeAny(pickle.Tuple{pickle.Class{Module: "m", Name: "C"}, pickle.Tuple{1.5}}, pickle.None{}), "not a ZBigFile"},
		"foreign state": {style.Encode(record.Class{Module: "m", Name: "C"}, 1.5), "not a ZBigFile"},
	} {
		bf, err := zdata.DecodeBigFile(7, zodb.Record{Data: c.data, Serial: 9})
		switch {
		case c.err == "":
			if err != nil || bf.Oid != 7 || bf.Serial != 9 || bf.Blksize <= 0 {
				t.Errorf("%s: %+v %v", name, bf, err)
			}
			continue
		case err == nil || !strings.Contains(err.Error(), c.err):
			t.Errorf("%s: %+v %v", name, bf, err)
			continue
		}
		var de *zodb.DataError
		foreign := errors.Is(err, zdata.ErrNotBigFile)
		if foreign != (c.err == "not a ZBigFile") || !foreign && (!errors.As(err, &de) || de.Oid != 7 || de.Serial != 9) {
			t.Errorf("%s: wrong kind of error: %v", name, err)
		}
	}
}

// chunked makes a ZBlk1, oid 1, with chunks at the given offsets; chunk i has oid 10+i.
func chunked(chunks map[int64][]byte) map[zodb.Oid][]byte {
	objs := map[zodb.Oid][]byte{1: style.Blk1(2)}
	var offs []int64
	for off := range chunks {
		offs = append(offs, off)
	}
	slices.Sort(offs)
	var items []record.Item
	for i, off := range offs {
		oid := zodb.Oid(10 + i)
		items = append(items, record.Item{Key: off, Oid: oid, Class: class("ZData")})
		objs[oid] = style.Data(chunks[off])
	}
	objs[2] = style.InlineTree(record.IO, items)
	return objs
}

func TestLoadBlk(t *testing.T) {
	const size = 100
	with := func(objs map[zodb.Oid][]byte, oid zodb.Oid, data []byte) map[zodb.Oid][]byte {
		objs[oid] = data
		return objs
	}
	one := func(data []byte) map[zodb.Oid][]byte { return map[zodb.Oid][]byte{1: data} }
	full := bytes.Repeat([]byte{7}, size)
	for name, c := range map[string]struct {
		objs map[zodb.Oid][]byte
		want string
		oid  zodb.Oid // of the error, 0 for none
		says string
	}{
		"ZBlk0":          {one(style.Blk0([]byte("abc\x00"))), "abc", 0, ""},
		"ZBlk":           {one(style.Blk([]byte("abc"))), "abc", 0, ""},
		"full":           {one(style.Blk0(full)), string(full), 0, ""},
		"all zeros":      {one(style.Blk0(make([]byte, size))), "", 0, ""},
		"no chunks":      {chunked(nil), "", 0, ""},
		"chunks":         {chunked(map[int64][]byte{0: []byte("ab"), 4: []byte("cd"), 90: []byte("0123456789")}), "ab\x00\x00cd" + strings.Repeat("\x00", 84) + "0123456789", 0, ""},
		"touching":       {chunked(map[int64][]byte{0: []byte("ab"), 2: []byte("cd"), 4: nil}), "abcd", 0, ""},
		"too long":       {one(style.Blk0(append(full[:size:size], 1))), "", 1, "room for 100"},
		"not bytes":      {one(style.Encode(class("ZBlk0"), "abc")), "", 1, "not a byte string"},
		"another class":  {one(style.BigFile(1, 2)), "", 1, "where a ZBlk belongs"},
		"other module":   {one(style.Encode(record.Class{Module: "m", Name: "ZBlk0"}, pickle.Bytes("a"))), "", 1, "where a ZBlk belongs"},
		"a chunk":        {one(style.Data(nil)), "", 1, "where a ZBlk belongs"},
		"no chunk table": {one(style.Encode(class("ZBlk1"), pickle.None{})), "", 1, "chunk table is None"},
		"table missing":  {one(style.Blk1(2)), "", 1, "chunk table is missing"},
		"chunk missing":  {with(chunked(map[int64][]byte{0: {1}, 5: {1}}), 10, nil), "", 1, "offset 0 is missing"},
		"overlap":        {chunked(map[int64][]byte{0: []byte("abc"), 2: []byte("d")}), "", 1, "overlaps"},
		"overrun":        {chunked(map[int64][]byte{98: []byte("abc")}), "", 1, "overruns"},
		"negative":       {chunked(map[int64][]byte{-1: []byte("a")}), "", 1, "offset -1"},
		"past the end":   {chunked(map[int64][]byte{size: nil}), "", 1, "offset 100"},
		"no ZData":       {with(chunked(map[int64][]byte{0: {1}, 5: {1}}), 10, style.Blk0(nil)), "", 10, "where a ZData belongs"},
		"its own table":  {with(chunked(nil), 2, style.Blk1(2)), "", 2, "not a node"},
	} {
		data, err := load(commit(t, c.objs), 1, size)
		if c.oid == 0 {
			if err != nil || string(data) != c.want {
				t.Errorf("%s: %q %v", name, data, err)
			}
			continue
		}
		var de *zodb.DataError
		if !errors.As(err, &de) || de.Oid != c.oid || !strings.Contains(err.Error(), c.says) || zodb.IsAbsent(err) || data != nil {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	if _, err := load(commit(t, nil), 1, size); !errors.Is(err, zodb.ErrNoObject) {
		t.Errorf("no such block: %v", err)
	}
}

// TestParallelChunks: chunks are loaded at once, but not too many; a failure or the end of the context
// ends the load.
func TestParallelChunks(t *testing.T) {
	chunks := map[int64][]byte{}
	for i := range int64(300) {
		chunks[i] = []byte{byte(i)}
	}
	stor := commit(t, chunked(chunks))
	var now, most atomic.Int64
	var met atomic.Bool
	meet := make(chan struct{})
	stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, _ zodb.Tid) error {
		if oid < 10 || oid == 10+299 { // the last chunk is loaded ahead of the others
			return nil
		}
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 16 && met.CompareAndSwap(false, true) { // all that may be there at once are; were there no bound, more would come
			close(meet)
		}
		select {
		case <-meet:
			for range 100 {
				runtime.Gosched()
			}
			return nil
		case <-time.After(wait.Patience):
			return errors.New("chunks are loaded one after another")
		}
	})
	data, err := load(stor, 1, 300)
	if err != nil || len(data) != 300 || data[299] != 299%256 || most.Load() > 16 {
		t.Fatalf("%d bytes, %d loads at once, %v", len(data), most.Load(), err)
	}

	boom := errors.New("boom")
	stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, _ zodb.Tid) error {
		if oid == 150 {
			return boom
		}
		return nil
	})
	if data, err := load(stor, 1, 300); !errors.Is(err, boom) || data != nil {
		t.Errorf("a load fails: %d bytes, %v", len(data), err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	stor.SetLoadHook(func(ctx context.Context, oid zodb.Oid, _ zodb.Tid) error {
		if oid == 150 {
			cancel()
			<-ctx.Done()
		}
		return nil
	})
	if data, _, err := zdata.LoadBlk(ctx, stor, btree.Direct{Storage: stor}, 1, 1, 300); !errors.Is(err, context.Canceled) || data != nil {
		t.Errorf("interrupted: %d bytes, %v", len(data), err)
	}

	// A storage that does not look at the context must not make the load one with chunks left out.
	ctx, cancel = context.WithCancel(context.Background())
	stor.SetLoadHook(func(_ context.Context, oid zodb.Oid, _ zodb.Tid) error {
		if oid == 150 {
			cancel()
		}
		return nil
	})
	if data, _, err := zdata.LoadBlk(ctx, deaf{stor}, btree.Direct{Storage: stor}, 1, 1, 300); err == nil && bytes.Count(data, []byte{0}) > 2 || err != nil && data != nil {
		t.Errorf("interrupted: %d bytes, %v", len(data), err)
	}
}

// deaf is a storage that loads whether the context is done or not.
type deaf struct{ zodb.Storage }

func (d deaf) LoadAt(_ context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	return d.Storage.LoadAt(context.Background(), oid, at)
}

// TestFlips damages whole databases: reading every block ends, with data that fits or an error, and
// without allocating more than 64 MiB.
func TestFlips(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(6, 0))
	keep := &keeper{objs: map[zodb.Oid][]byte{}}
	db := zgen.New(keep, zgen.Options{LeafMax: 3, NodeMax: 3, ChunkSize: 8})
	for range 30 {
		if _, err := db.Random(rng, zgen.Mix{}); err != nil {
			t.Fatal(err)
		}
	}
	files, oids := db.Files(db.Head()), slices.Sorted(maps.Keys(keep.objs))
	read, failed := 0, 0
	for range 2500 {
		objs := map[zodb.Oid][]byte{}
		for oid, data := range keep.objs {
			objs[oid] = data
		}
		for range 1 + rng.IntN(8) {
			oid := oids[rng.IntN(len(oids))]
			data := bytes.Clone(objs[oid])
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
			objs[oid] = data
		}
		stor := commit(t, objs)
		src := btree.Direct{Storage: stor}
		before := allocated()
		for _, f := range files {
			rec, err := stor.LoadAt(ctx, f, 1)
			if err != nil {
				t.Fatal(err)
			}
			bf, err := zdata.DecodeBigFile(f, rec)
			if err == nil {
				err = btree.Range(ctx, src, bf.Blktab, 1, 0, btree.KeyMax, func(_ btree.Key, z zodb.Oid, _ []btree.Step) error {
					data, _, err := zdata.LoadBlk(ctx, stor, src, z, 1, bf.Blksize)
					if int64(len(data)) > bf.Blksize {
						t.Errorf("%d bytes in a block of %d", len(data), bf.Blksize)
					}
					read++
					return err
				})
			}
			if err != nil {
				failed++
			}
		}
		if n := allocated() - before; n > 64<<20 {
			t.Fatalf("allocated %d bytes", n)
		}
	}
	if read < 1000 || failed < 50 {
		t.Errorf("%d blocks read, %d files failed: too few to tell", read, failed)
	}
}

// keeper is a Sink that has the last revision of everything.
type keeper struct{ objs map[zodb.Oid][]byte }

func (k *keeper) Commit(_ zodb.Tid, objs map[zodb.Oid][]byte) error {
	for oid, data := range objs {
		k.objs[oid] = data
	}
	return nil
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
