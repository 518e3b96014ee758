package filestorage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/fsformat"
	"wcfs/zcore/zodb/fswriter"
	"wcfs/zcore/zodb/storagetest"
)

// sample is a small database with changes, deletions and undos, and what it must answer.
type sample struct {
	path  string
	data  []byte
	ends  []int64 // of each transaction
	tids  []zodb.Tid
	truth map[zodb.Oid]map[zodb.Tid][]byte // record by object and moment, nil: absent
}

func newSample(t testing.TB, txns int) *sample {
	t.Helper()
	s := &sample{path: filepath.Join(t.TempDir(), "Data.fs"), truth: map[zodb.Oid]map[zodb.Tid][]byte{}}
	w, err := fswriter.Create(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	now := zodb.TidFromTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	state := map[zodb.Oid][]byte{}
	var before map[zodb.Oid][]byte // what the last transaction changed, as it was
	for i := range txns {
		now += zodb.Tid(rnd.Uint32())
		if i%5 == 4 {
			err = w.Undo(now, w.Last())
			for oid, data := range before {
				before[oid], state[oid] = state[oid], data
			}
		} else {
			objs := map[zodb.Oid][]byte{}
			before = map[zodb.Oid][]byte{}
			for range 1 + rnd.IntN(3) {
				oid := zodb.Oid(1 + rnd.IntN(6))
				objs[oid] = storagetest.Record(fmt.Appendf(nil, "%d of %d", i, oid))
				if rnd.IntN(6) == 0 {
					objs[oid] = nil
				}
			}
			for oid, data := range objs {
				before[oid], state[oid] = state[oid], data
			}
			err = w.Commit(now, objs)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.tids, s.ends = append(s.tids, now), append(s.ends, w.Size())
		for oid := zodb.Oid(1); oid <= 6; oid++ {
			if s.truth[oid] == nil {
				s.truth[oid] = map[zodb.Tid][]byte{}
			}
			s.truth[oid][now] = state[oid]
		}
	}
	if err := w.WriteIndex(); err != nil {
		t.Fatal(err)
	}
	if s.data, err = os.ReadFile(s.path); err != nil {
		t.Fatal(err)
	}
	return s
}

// check opens the file as it is now and asks for n moments of each object, all if n is 0. It returns
// the head; an error only if an answer is neither right nor an error.
func (s *sample) check(t testing.TB, noIndex bool, n int, rnd *rand.Rand) (zodb.Tid, error) {
	ctx := context.Background()
	f, err := openData(ctx, s.path, Options{NoIndex: noIndex, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, s.clear(err)
	}
	defer f.release()
	for oid, truth := range s.truth {
		moments := s.tids
		if n != 0 {
			i := rnd.IntN(len(s.tids) - n)
			moments = s.tids[i : i+n]
		}
		for _, at := range moments {
			if at > f.last {
				continue
			}
			v := view{f, oid, f.index.Get(oid), f.end}
			_, data, _, err := v.find(ctx, at)
			var got []byte
			if err == nil {
				got, err = v.read(data)
			}
			if err != nil {
				if err := s.clear(err); err != nil {
					return 0, err
				}
				continue
			}
			if !bytes.Equal(got, truth[at]) {
				return 0, fmt.Errorf("object %s@%s is %q, want %q", oid, at, got, truth[at])
			}
		}
	}
	return f.last, s.checkBatch(ctx, f, rnd)
}

// checkBatch loads all objects at once, as of one moment, and compares each with what it is alone.
func (s *sample) checkBatch(ctx context.Context, f *dataFile, rnd *rand.Rand) error {
	at := f.last
	if rnd != nil {
		at = min(at, s.tids[rnd.IntN(len(s.tids))])
	}
	oids := []zodb.Oid{1, 2, 3, 4, 5, 6, 7, 3}
	seen := 0
	err := newBatch(f, oids, at).load(ctx, make([]byte, batchMax), func(i int, rec zodb.Record, err error) error {
		seen |= 1 << i
		alone, aloneErr := view{f, oids[i], f.index.Get(oids[i]), f.end}.load(ctx, at)
		if fmt.Sprint(err) != fmt.Sprint(aloneErr) || err == nil &&
			(!bytes.Equal(rec.Data, alone.Data) || rec.Serial != alone.Serial || rec.Until != alone.Until) {
			return fmt.Errorf("object %s@%s is %q (%v) in a batch, and %q (%v) alone", oids[i], at, rec.Data, err, alone.Data, aloneErr)
		}
		return nil
	})
	if err == nil && seen != 1<<len(oids)-1 {
		err = fmt.Errorf("of a batch only %b were given", seen)
	}
	return err
}

// clear checks that an error says what is wrong and where.
func (s *sample) clear(err error) error {
	var de *zodb.DataError
	if zodb.IsAbsent(err) || errors.As(err, &de) && de.Pos >= 0 {
		return nil
	}
	var magic [fsformat.MagicLen]byte
	f, ferr := os.Open(s.path)
	if ferr == nil {
		f.ReadAt(magic[:], 0)
		f.Close()
	}
	if string(magic[:]) != fsformat.MagicPy3 {
		return nil // not a FileStorage: has no position
	}
	return fmt.Errorf("error without a position: %w", err)
}

// The last transaction cut at every byte: what was before it is all there, and only that.
func TestTruncated(t *testing.T) {
	s := newSample(t, 12)
	for n := 1; n <= len(s.ends); n++ { // each transaction is the last one in its turn
		start, end := int64(fsformat.MagicLen), s.ends[n-1]
		var before zodb.Tid
		if n > 1 {
			start, before = s.ends[n-2], s.tids[n-2]
		}
		if end-start > 4096 {
			t.Fatalf("a transaction of %d bytes", end-start)
		}
		for size := start; size <= end; size++ {
			if n < len(s.ends) && size%7 != 0 && size != end { // every byte for the last one is enough
				continue
			}
			if err := os.WriteFile(s.path, s.data[:size], 0o666); err != nil {
				t.Fatal(err)
			}
			head, err := s.check(t, size%2 == 0, 0, nil)
			if want := map[bool]zodb.Tid{true: s.tids[n-1], false: before}[size == end]; err != nil || head != want {
				t.Fatalf("cut to %d bytes: head %s, want %s, %v", size, head, want, err)
			}
		}
	}
}

// Bits of headers, pointers and lengths gone wrong: an error or the right data, and no more memory
// than the file is large.
func TestFlips(t *testing.T) {
	s := newSample(t, 30)
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("FLIPS_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("FLIPS_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	file, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	headers := s.headerBytes(t)
	refused, lost := 0, 0
	for i := range 7000 {
		pos := headers[rnd.IntN(len(headers))]
		b := s.data[pos] ^ 1<<rnd.IntN(8)
		if _, err := file.WriteAt([]byte{b}, pos); err != nil {
			t.Fatal(err)
		}
		m0 := allocated()
		head, err := s.check(t, i%2 == 0, 3, rnd)
		if err != nil {
			t.Fatalf("byte %d changed from %#x to %#x: %v", pos, s.data[pos], b, err)
		}
		if used := allocated() - m0; used > 64<<20 {
			t.Fatalf("byte %d changed from %#x to %#x: %d bytes allocated", pos, s.data[pos], b, used)
		}
		if head == 0 {
			refused++
		} else if head != s.tids[len(s.tids)-1] {
			lost++
		}
		if _, err := file.WriteAt(s.data[pos:pos+1], pos); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("of 7000: %d times the file was refused, %d times it seemed to end early", refused, lost)
	if head, err := s.check(t, true, 0, rnd); err != nil || head != s.tids[len(s.tids)-1] {
		t.Fatalf("restored: head %s, %v", head, err)
	}
}

// allocated returns how much memory was allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// headerBytes returns the positions of all bytes that are not data of a record or text of a header.
func (s *sample) headerBytes(t testing.TB) []int64 {
	var all []int64
	add := func(pos, n int64) {
		for i := range n {
			all = append(all, pos+i)
		}
	}
	add(0, fsformat.MagicLen)
	for pos := int64(fsformat.MagicLen); pos < int64(len(s.data)); {
		h, err := fsformat.DecodeTxn(s.data[pos:])
		if err != nil {
			t.Fatal(err)
		}
		add(pos, fsformat.TxnHdrLen)
		tend := pos + h.Len
		for p := pos + h.HdrLen(); p < tend; {
			d, err := fsformat.DecodeData(s.data[p:], p)
			if err != nil {
				t.Fatal(err)
			}
			add(p, d.RecLen()-d.Len)
			p += d.RecLen()
		}
		add(tend, fsformat.TailLen)
		pos = tend + fsformat.TailLen
	}
	return all
}

// Pointers that lead forward, to themselves or in a circle end in an error, not in a walk for ever.
func TestPointerLoops(t *testing.T) {
	s := newSample(t, 30)
	for _, noIndex := range []bool{true, false} {
		file, err := os.OpenFile(s.path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		// Every previous-record pointer, and every backpointer, is set to its own record and to the last.
		for pos := int64(fsformat.MagicLen); pos < int64(len(s.data)); {
			h, _ := fsformat.DecodeTxn(s.data[pos:])
			for p := pos + h.HdrLen(); p < pos+h.Len; {
				d, _ := fsformat.DecodeData(s.data[p:], p)
				fields := []int64{p + 16}
				if d.Len == 0 {
					fields = append(fields, p+fsformat.DataHdrLen)
				}
				for _, at := range fields {
					for _, to := range []int64{p, s.ends[len(s.ends)-2] + 36} {
						b := []byte{0, 0, 0, 0, byte(to >> 24), byte(to >> 16), byte(to >> 8), byte(to)}
						if _, err := file.WriteAt(b, at); err != nil {
							t.Fatal(err)
						}
						if _, err := s.check(t, noIndex, 0, nil); err != nil {
							t.Fatalf("pointer at %d set to %d: %v", at, to, err)
						}
					}
					if _, err := file.WriteAt(s.data[at:at+8], at); err != nil {
						t.Fatal(err)
					}
				}
				p += d.RecLen()
			}
			pos += h.Len + fsformat.TailLen
		}
	}
}

// FuzzFile opens anything as a data file, and as an index, and reads all that it seems to hold.
func FuzzFile(f *testing.F) {
	s := newSample(f, 8)
	index, err := os.ReadFile(s.path + ".index")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.data, index)
	f.Add(s.data[:s.ends[3]], index)
	f.Add(s.data[:s.ends[3]+30], []byte{})
	f.Add([]byte(fsformat.MagicPy2), []byte("\x80\x02K\x04.\x80\x02N."))
	voted := bytes.Clone(s.data)
	voted[s.ends[6]+16] = byte(fsformat.Voted)
	f.Add(voted, index)
	f.Add(s.data, append([]byte("I400\n."), index[13:]...))
	f.Fuzz(func(t *testing.T, data, index []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "Data.fs")
		if err := errors.Join(os.WriteFile(path, data, 0o666), os.WriteFile(path+".index", index, 0o666)); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		file, err := openData(ctx, path, Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return
		}
		defer file.release()
		if pos, err := file.locate(ctx, 1, file.end); err == nil && (pos < fsformat.MagicLen || pos > file.end) {
			t.Fatalf("located at %d of %d", pos, file.end)
		}
		for _, g := range file.index.Groups() {
			for _, e := range file.index.Group(g, nil) {
				for _, at := range []zodb.Tid{0, file.last / 2, file.last - 1, file.last} {
					v := view{file, e.Oid, e.Pos, file.end}
					rev, data, until, err := v.find(ctx, at)
					if err != nil {
						continue
					}
					if rev.Tid > at || until <= at {
						t.Fatalf("%s@%s: revision [%s, %s)", e.Oid, at, rev.Tid, until)
					}
					v.read(data)
				}
			}
		}
	})
}
