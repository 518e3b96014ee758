package compat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/btree"
	"wcfs/zcore/zodb/filestorage"
)

// fileState is a bigfile as of one transaction, as matrix.py lists it.
type fileState struct {
	Blksize int64
	Size    int64
	Blks    map[zdata.Blk]string // sha256 of the whole block, in hex
}

// revision is all files as of one transaction; nil: the file does not exist.
type revision struct {
	Tid   string
	Files map[string]*fileState
}

// TestMatrix compares every revision of every bigfile with what Python read at that tid: both ZODB
// versions, every kind of block, holes, growth, shrink, deletion, undo, before and after packs,
// compressed and not; opened by the index and by a scan.
func TestMatrix(t *testing.T) {
	for _, env := range []string{py.Py5, py.Py6} {
		dir := t.TempDir()
		if out, err := py.Command(t, env, "matrix.py", dir).Output(); err != nil {
			t.Fatalf("%s: %v\n%s", env, err, out)
		}
		lists, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		if err != nil || len(lists) < 4 {
			t.Fatalf("%s: lists %v, %v", env, lists, err)
		}
		for _, list := range lists {
			rel, _ := filepath.Rel(dir, list)
			t.Run(env+"/"+rel, func(t *testing.T) { compare(t, list) })
		}
	}
}

func compare(t *testing.T, list string) {
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	var revs []revision
	if err := json.Unmarshal(b, &revs); err != nil || len(revs) == 0 {
		t.Fatalf("%d revisions, %v", len(revs), err)
	}
	path := list[:len(list)-len(".json")] + ".fs"
	for _, noIndex := range []bool{false, true} {
		stor := openFS(t, path, filestorage.Options{NoIndex: noIndex})
		head, err := stor.Head(context.Background())
		if err != nil || head.String() != revs[len(revs)-1].Tid {
			t.Fatalf("head %s, %v; want %s", head, err, revs[len(revs)-1].Tid)
		}
		r := &reader{stor: stor, sums: map[[2]uint64]string{}}
		for _, rev := range revs {
			at, err := zodb.ParseTid(rev.Tid)
			if err != nil {
				t.Fatal(err)
			}
			for file, want := range rev.Files {
				oid, err := zodb.ParseOid(file)
				if err != nil {
					t.Fatal(err)
				}
				got, err := r.read(oid, at)
				if want == nil {
					if !zodb.IsAbsent(err) {
						t.Fatalf("file %s@%s: %v, want it absent", oid, at, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("file %s@%s: %v", oid, at, err)
				}
				if got.Blksize != want.Blksize || got.Size != want.Size || !maps.Equal(got.Blks, want.Blks) {
					t.Fatalf("file %s@%s: %d blocks, blksize %d, size %d; want %d, %d, %d", oid, at,
						len(got.Blks), got.Blksize, got.Size, len(want.Blks), want.Blksize, want.Size)
				}
			}
		}
	}
}

// reader reads whole files. Blocks are loaded once a revision of their object; that a ZBlk gets a new
// one whenever its data changes is checked by the rest: a stale sum would differ from Python's.
type reader struct {
	stor *filestorage.Storage
	sums map[[2]uint64]string // by oid and serial of the ZBlk
}

func (r *reader) read(oid zodb.Oid, at zodb.Tid) (*fileState, error) {
	ctx := context.Background()
	rec, err := r.stor.LoadAt(ctx, oid, at)
	if err != nil {
		return nil, err
	}
	f, err := zdata.DecodeBigFile(oid, rec)
	if err != nil {
		return nil, err
	}
	st := &fileState{Blksize: f.Blksize, Blks: map[zdata.Blk]string{}}
	src := btree.Direct{Storage: r.stor}
	last, ok, _, err := btree.MaxKey(ctx, src, f.Blktab, at)
	if err != nil {
		return nil, err
	}
	if ok {
		st.Size = (int64(last) + 1) * f.Blksize
	}
	err = btree.Range(ctx, src, f.Blktab, at, btree.KeyMin, btree.KeyMax, func(key btree.Key, zblk zodb.Oid, _ []btree.Step) error {
		sum, err := r.sum(ctx, src, zblk, at, f.Blksize)
		st.Blks[zdata.Blk(key)] = sum
		return err
	})
	return st, err
}

func (r *reader) sum(ctx context.Context, src btree.Source, zblk zodb.Oid, at zodb.Tid, blksize int64) (string, error) {
	serial, _, err := r.stor.SerialAt(ctx, zblk, at)
	if err != nil {
		return "", err
	}
	key := [2]uint64{uint64(zblk), uint64(serial)}
	if r.sums[key] == "" {
		data, got, err := zdata.LoadBlk(ctx, r.stor, src, zblk, at, blksize)
		if err != nil || got != serial {
			return "", fmt.Errorf("block %s@%s: serial %s, want %s: %w", zblk, at, got, serial, err)
		}
		block := make([]byte, blksize)
		copy(block, data)
		h := sha256.Sum256(block)
		r.sums[key] = hex.EncodeToString(h[:])
	}
	return r.sums[key], nil
}

// TestPy2 reads the databases that Python 2 wrote; testdata/README.md describes them.
func TestPy2(t *testing.T) {
	for _, name := range []string{"py2_pickle1.fs", "py2_pickle3.fs"} {
		stor := openFS(t, filepath.Join(py.Root(), "t/compat/testdata", name), filestorage.Options{})
		ctx := context.Background()
		head, err := stor.Head(ctx)
		if err != nil || head.String() != "0285cbac3851eb99" {
			t.Fatalf("%s: head %s, %v", name, head, err)
		}
		rec, err := stor.LoadAt(ctx, 1, head)
		if err != nil {
			t.Fatal(err)
		}
		f, err := zdata.DecodeBigFile(1, rec)
		if err != nil || f.Blksize != 2097152 {
			t.Fatalf("%s: %+v, %v", name, f, err)
		}
		file := make([]byte, 4*f.Blksize)
		src := btree.Direct{Storage: stor}
		var blks []btree.Key
		err = btree.Range(ctx, src, f.Blktab, head, btree.KeyMin, btree.KeyMax, func(key btree.Key, zblk zodb.Oid, _ []btree.Step) error {
			data, _, err := zdata.LoadBlk(ctx, stor, src, zblk, head, f.Blksize)
			copy(file[int64(key)*f.Blksize:], data)
			blks = append(blks, key)
			return err
		})
		if err != nil || !slices.Equal(blks, []btree.Key{1, 3}) {
			t.Fatalf("%s: blocks %v, %v", name, blks, err)
		}
		for blk, want := range map[int64]string{
			0: "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee",
			1: "ef707ce8ef33f13b4fa2761e9f8f1af5fad5f5ac55b0f13536dcec122e34612c",
			2: "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee",
			3: "af8030ee7eb050d7679286cb0ba3731f57ac6692ad1652efc11aeb205cde103e",
		} {
			if sum := sha256.Sum256(file[blk*f.Blksize : (blk+1)*f.Blksize]); hex.EncodeToString(sum[:]) != want {
				t.Errorf("%s: block %d hashes to %x", name, blk, sum)
			}
		}
		if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != "f5e88fa297e175efe54852026392a5f0ff5b6b5151ef63bb4cf85245a09b1eef" {
			t.Errorf("%s: hashes to %x", name, sum)
		}
	}
}
