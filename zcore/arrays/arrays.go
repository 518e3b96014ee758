// Package arrays finds the arrays of a database by name: the ZBigArray and ZBigFile objects, and the paths of keys and
// attributes that lead to them from the root object.
//
// It owns the names (names.go), what is a step of a path (children.go, btrees.go), and the decoding of ZBigArrays and
// of numpy dtypes (array.go, dtype.go). It does not own data, revisions, or files; package tree shows the names as
// files.
//
// Objects of all classes are looked at, and no Python code is named that would be run: records come from
// record.DecodeAny. What is a step:
//
//   - the items of a PersistentMapping, PersistentDict or PersistentList, and of whatever keeps them as those do, in the
//     attribute data or _container; keys that are no strings are written as names.go says;
//   - the items of a BTree whose values are objects (OO, IO, LO, QO, UO); those of a folder that keeps them in a BTree
//     in the attribute _tree (BTreeFolder2 of Zope) or _htree (HBTreeFolder2 of ERP5) are items of the folder itself;
//   - the attributes of any other object, as folders of Zope keep their items; an item hides an attribute of its name;
//   - the parts of a list, tuple, dict, or plain object within an object's state;
//   - for an object that is referred to from elsewhere in a state, as from a set, its oid.
//
// Weak references and references to other databases are not followed. A path does not come to an object twice, so that
// every walk over paths ends. An array may have several paths.
//
// Invariants: a path is resolved as of one revision, by the objects on it. Memory is bounded: by record.DecodeAny for a
// record, and by maxListed for a listing; what is cached, by cacheBytes.
//
// Lock order: Catalog.mu is a leaf; nothing is called under it.
package arrays

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Kinds of errors besides those of the loader.
var (
	// ErrNoName says that nothing has a name.
	ErrNoName = zodb.Answer(errors.New("no such name"))

	errTooMany = zodb.Answer(fmt.Errorf("an object has more than %d names", maxListed))
)

// Loader loads records; zodb.Storage is one.
type Loader interface {
	LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error)
}

// RootOid is the root object's.
const RootOid zodb.Oid = 0

// maxKeys bounds the length of a path.
const maxKeys = 100

// Kind says what an Item is.
type Kind int

// Kinds of items.
const (
	Container Kind = iota // something that may lead to arrays
	IsArray               // a ZBigArray
	IsBigFile             // a ZBigFile
)

// Item is what a name leads to.
type Item struct {
	Key   Key // the last step
	Kind  Kind
	Oid   zodb.Oid // the object, or for a part of an object's state the object it is in
	Part  bool     // it is such a part
	Since zodb.Tid // the transaction that wrote the object; only Resolve tells
	Array *Array   // of an array; only Resolve tells
}

// File returns the bigfile of an array or bigfile.
func (i Item) File() zodb.Oid {
	if i.Array != nil {
		return i.Array.File
	}
	return i.Oid
}

// Catalog resolves names. Methods may be called from many goroutines.
type Catalog struct {
	loader Loader

	mu    sync.Mutex
	cache map[zodb.Oid]object // guard: mu
	bytes int                 // guard: mu; of records in cache
}

// New makes a catalogue of what loader loads.
func New(loader Loader) *Catalog {
	return &Catalog{loader: loader, cache: map[zodb.Oid]object{}}
}

// object is a decoded record.
type object struct {
	record.AnyObject
	serial  zodb.Tid
	checked zodb.Tid // it is current from serial to this
	size    int
}

// cacheBytes bounds the records that are kept decoded. Decoded they take up to some twenty times that.
const cacheBytes = 4 << 20

// load returns an object as of at.
func (c *Catalog) load(ctx context.Context, oid zodb.Oid, at zodb.Tid) (object, error) {
	c.mu.Lock()
	o, ok := c.cache[oid]
	c.mu.Unlock()
	if ok && o.serial <= at && at <= o.checked {
		return o, nil
	}
	rec, err := c.loader.LoadAt(ctx, oid, at)
	if err != nil {
		return object{}, err
	}
	checked := at
	if rec.Until != zodb.TidMax && rec.Until > rec.Serial {
		checked = max(checked, rec.Until-1)
	}
	if !ok || o.serial != rec.Serial {
		o = object{serial: rec.Serial, size: len(rec.Data)}
		if o.AnyObject, err = record.DecodeAny(oid, rec); err != nil {
			return object{}, err
		}
	}
	o.checked = max(checked, o.checked)
	c.keep(oid, o)
	return o, nil
}

// keep remembers an object, in the place of others if need be.
func (c *Catalog) keep(oid zodb.Oid, o object) {
	if o.size > cacheBytes/4 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.cache[oid]; ok {
		c.bytes -= old.size
	}
	c.cache[oid] = o
	c.bytes += o.size
	for other, old := range c.cache { // in no order
		if c.bytes <= cacheBytes && len(c.cache) <= cacheBytes>>8 {
			break
		}
		if other != oid {
			c.bytes -= old.size
			delete(c.cache, other)
		}
	}
}

// place is where a path has got to.
type place struct {
	obj   object
	oid   zodb.Oid
	part  *record.Any       // within the state of obj; nil: all of obj
	trail map[zodb.Oid]bool // objects passed, obj too
}

// Resolve finds what keys lead to from the root, as of at. Nothing: ErrNoName.
func (c *Catalog) Resolve(ctx context.Context, at zodb.Tid, keys []Key) (Item, error) {
	p, err := c.walk(ctx, at, keys)
	if err != nil {
		return Item{}, err
	}
	item := Item{Oid: p.oid, Part: p.part != nil, Since: p.obj.serial}
	if len(keys) > 0 {
		item.Key = keys[len(keys)-1]
	}
	switch {
	case p.part != nil:
	case p.obj.Class == classBigFile:
		item.Kind = IsBigFile
	case p.obj.Class == classArray:
		item.Kind = IsArray
		a, err := decodeArray(p.obj.AnyObject)
		if err != nil {
			return Item{}, &zodb.DataError{Oid: p.oid, Serial: p.obj.serial, Pos: -1, Msg: "this ZBigArray cannot be understood", Err: err}
		}
		item.Array = &a
	}
	return item, nil
}

func (c *Catalog) walk(ctx context.Context, at zodb.Tid, keys []Key) (place, error) {
	if len(keys) > maxKeys {
		return place{}, fmt.Errorf("a path of %d steps: %w", len(keys), ErrNoName)
	}
	root, err := c.load(ctx, RootOid, at)
	if err != nil {
		return place{}, err
	}
	p := place{obj: root, oid: RootOid, trail: map[zodb.Oid]bool{RootOid: true}}
	for i, key := range keys {
		if p.part == nil && isLeaf(p.obj.Class) {
			return place{}, fmt.Errorf("%s is an array: %w", FormatPath(keys[:i]), ErrNoName)
		}
		var v *record.Any
		if p.part != nil {
			v = part(p.part, key)
		} else if v, err = c.child(ctx, at, p.obj.AnyObject, key); err != nil {
			return place{}, err
		}
		if v == nil || !leads(v) {
			return place{}, fmt.Errorf("%s: %w", FormatPath(keys[:i+1]), ErrNoName)
		}
		if p, err = c.follow(ctx, at, p, v); err != nil {
			return place{}, fmt.Errorf("%s: %w", FormatPath(keys[:i+1]), err)
		}
	}
	return p, nil
}

// follow goes to a value.
func (c *Catalog) follow(ctx context.Context, at zodb.Tid, p place, v *record.Any) (place, error) {
	if v.Kind != record.Ref {
		p.part = v
		return p, nil
	}
	oid := zodb.Oid(v.Int)
	if p.trail[oid] {
		return place{}, fmt.Errorf("it leads back to where the path has been: %w", ErrNoName)
	}
	obj, err := c.load(ctx, oid, at)
	if err != nil {
		return place{}, err
	}
	p.trail[oid] = true
	return place{obj: obj, oid: oid, trail: p.trail}, nil
}

func isLeaf(c record.Class) bool {
	return c == classArray || c.Module == record.ModBigFile
}

// List lists what a path leads to directly, in no order. Only references whose class the database does not tell beside
// them are loaded.
func (c *Catalog) List(ctx context.Context, at zodb.Tid, keys []Key) ([]Item, error) {
	p, err := c.walk(ctx, at, keys)
	if err != nil {
		return nil, err
	}
	var list []child
	if p.part != nil {
		l := newLister()
		l.learn(p.part)
		l.addParts(p.part)
		list = l.list
	} else if !isLeaf(p.obj.Class) {
		if list, err = c.children(ctx, at, p.obj.AnyObject); err != nil {
			return nil, err
		}
	}
	items := make([]Item, 0, len(list))
	for _, ch := range list {
		item, ok, err := c.item(ctx, at, p, ch)
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// item tells what a child is; ok is false for one that is not shown.
func (c *Catalog) item(ctx context.Context, at zodb.Tid, p place, ch child) (item Item, ok bool, err error) {
	if ch.val.Kind != record.Ref {
		return Item{Key: ch.key, Oid: p.oid, Part: true}, true, nil
	}
	oid := zodb.Oid(ch.val.Int)
	if p.trail[oid] {
		return Item{}, false, nil
	}
	class, known := ch.val.Class()
	if !known {
		obj, err := c.load(ctx, oid, at)
		if zodb.KindOf(err) == zodb.KindAnswer && err != nil {
			return Item{}, false, nil // Resolve says what is wrong with it
		}
		if err != nil {
			return Item{}, false, err
		}
		class = obj.Class
	}
	item = Item{Key: ch.key, Oid: oid}
	switch {
	case class == classArray:
		item.Kind = IsArray
	case class == classBigFile:
		item.Kind = IsBigFile
	case isLeaf(class):
		return Item{}, false, nil
	}
	return item, true, nil
}
