package arrays_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wcfs/t/py"
	"wcfs/zcore/arrays"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/filestorage"
)

// described is what Python says of an array.
type described struct {
	Descr             any
	Itemsize          int64
	Shape             []int64
	Order             string
	Oid, Array, Since string
}

// pythonDB is a database that write_arrays.py wrote.
type pythonDB struct {
	stor   zodb.Storage
	cat    *arrays.Catalog
	head   zodb.Tid
	Arrays map[string]described
	File   string
	Set    string
	Absent []string
}

func writeArrays(t *testing.T) *pythonDB {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Data.fs")
	out, err := py.Command(t, py.Py5, "write_arrays.py", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	db := new(pythonDB)
	if err := json.Unmarshal(out, db); err != nil {
		t.Fatal(err)
	}
	if db.stor, err = filestorage.Open(t.Context(), "file://"+file, filestorage.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.stor.Close() })
	if db.head, err = db.stor.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.cat = arrays.New(db.stor)
	return db
}

func (db *pythonDB) resolve(t *testing.T, path string) (arrays.Item, error) {
	t.Helper()
	keys, rest, err := arrays.ParsePath(path)
	if err != nil || len(rest) > 0 {
		return arrays.Item{}, errors.Join(err, arrays.ErrNoName)
	}
	return db.cat.Resolve(t.Context(), db.head, keys)
}

// TestPython: what Python wrote, each array by each of its paths, with the type that numpy says it has.
func TestPython(t *testing.T) {
	db := writeArrays(t)
	for path, want := range db.Arrays {
		item, err := db.resolve(t, path)
		if err != nil || item.Array == nil {
			t.Errorf("%q: %+v (%v)", path, item, err)
			continue
		}
		a := item.Array
		got := described{jsonOf(t, a.DType.Descr), a.DType.Itemsize, a.Shape, a.Order, a.File.String(), item.Oid.String(), item.Since.String()}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", path, got, want)
		}
	}
	if item, err := db.resolve(t, "file"); err != nil || item.Kind != arrays.IsBigFile || item.File().String() != db.File {
		t.Errorf("file: %+v (%v), want %s", item, err, db.File)
	}
	if item, err := db.resolve(t, "set/%o"+db.Set); err != nil || item.Kind != arrays.IsArray || item.Oid.String() != db.Set {
		t.Errorf("member of a set: %+v (%v), want %s", item, err, db.Set)
	}
	for _, path := range db.Absent {
		if item, err := db.resolve(t, path); err == nil || zodb.KindOf(err) != zodb.KindAnswer && !strings.Contains(err.Error(), "escape") {
			t.Errorf("%q: %+v (%v)", path, item, err)
		}
	}
	if _, err := db.cat.Resolve(t.Context(), 1, nil); !zodb.IsAbsent(err) {
		t.Errorf("before there was a root: %v", err)
	}
}

func jsonOf(t *testing.T, v any) (out any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestListings: a walk over all directories finds exactly what is there, ends, and names each thing as it is resolved.
func TestListings(t *testing.T) {
	db := writeArrays(t)
	found := map[string]bool{}
	var walk func(keys []arrays.Key)
	walk = func(keys []arrays.Key) {
		list, err := db.cat.List(t.Context(), db.head, keys)
		if err != nil {
			t.Fatalf("%s: %v", arrays.FormatPath(keys), err)
		}
		for _, item := range list {
			sub := append(slices.Clone(keys), item.Key)
			again, err := db.cat.Resolve(t.Context(), db.head, sub)
			if err != nil || again.Kind != item.Kind || again.Oid != item.Oid || again.Part != item.Part {
				t.Fatalf("%q is listed as %+v, and is %+v (%v)", arrays.FormatPath(sub), item, again, err)
			}
			path := arrays.FormatPath(sub)
			if parsed, rest, err := arrays.ParsePath(path); err != nil || rest != nil || !slices.Equal(parsed, sub) {
				t.Fatalf("%q is read as %q %q (%v)", path, parsed, rest, err)
			}
			if found[path] {
				t.Fatalf("%q is listed twice", path)
			}
			if found[path] = true; item.Kind == arrays.Container {
				walk(sub)
			}
		}
	}
	walk(nil)
	for path := range db.Arrays {
		if !found[path] {
			t.Errorf("%q is not listed", path)
		}
	}
	for _, path := range db.Absent {
		if found[path] {
			t.Errorf("%q is listed", path)
		}
	}
	if !found["cycle/back/erp5/data_array_module/3/array"] || found["cycle/back/erp5/data_array_module/_tree/3/array"] {
		t.Error("another way through a cycle is not listed, or a folder is listed twice")
	}
}

// loads counts.
type loads struct {
	zodb.Storage
	n int
}

func (l *loads) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	l.n++
	return l.Storage.LoadAt(ctx, oid, at)
}

// TestReadsLittle: a path costs the objects on it, and a listing those of one directory.
func TestReadsLittle(t *testing.T) {
	db := writeArrays(t)
	for path, most := range map[string]int{"signals": 2, "oo/k050": 5, "Application/erp5/data_array_module/3/array": 7} {
		l := &loads{Storage: db.stor}
		keys, _, _ := arrays.ParsePath(path)
		if _, err := arrays.New(l).Resolve(t.Context(), db.head, keys); err != nil || l.n > most {
			t.Errorf("%s: %d loads, want %d (%v)", path, l.n, most, err)
		}
	}
	l := &loads{Storage: db.stor}
	if list, err := arrays.New(l).List(t.Context(), db.head, nil); err != nil || len(list) < 15 || l.n > 1 {
		t.Errorf("the root: %d names by %d loads (%v)", len(list), l.n, err)
	}
}
