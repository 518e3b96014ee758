package arrays

import (
	"context"
	"strconv"
	"strings"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Attributes that a class keeps its items in: they are shown as items of the object itself.
var (
	inDict = []string{"data", "_container"} // PersistentMapping, PersistentDict, PersistentList, as of now and of old
	inTree = []string{"_tree", "_htree"}    // folders of Zope (BTreeFolder2) and ERP5 (HBTreeFolder2)
)

// child is one named value in an object.
type child struct {
	key Key
	val *record.Any
}

// children lists the values that an object holds by name, those that lead nowhere left out: the items of a mapping or a
// folder, then attributes, or what else refers to objects. The order is that of the record.
func (c *Catalog) children(ctx context.Context, at zodb.Tid, obj record.AnyObject) ([]child, error) {
	l := newLister()
	if _, objects, ok := btreeClass(obj.Class); ok {
		if !objects {
			return nil, nil
		}
		err := c.eachBucket(ctx, at, obj, l.bucket)
		return l.list, err
	}
	l.learn(obj.State)
	attrs := attributes(obj.State)
	if attrs == nil {
		l.addParts(obj.State)
		l.rest(obj.State)
		return l.list, nil
	}
	hidden := map[string]bool{}
	for _, dict := range attrs {
		for _, name := range inDict {
			if v := dict.Get(name); v != nil && (v.Kind == record.Dict || v.Kind == record.List) {
				hidden[name] = true
				l.addParts(v)
			}
		}
		for _, name := range inTree {
			tree, ok, err := c.itemTree(ctx, at, dict.Get(name))
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			hidden[name] = true
			l.named[dict.Get(name).Int] = true
			if err := c.eachBucket(ctx, at, tree.AnyObject, l.bucket); err != nil {
				return nil, err
			}
		}
	}
	for _, dict := range attrs {
		for k, v := range dict.Pairs() {
			if s, ok := k.Str(); ok && !hidden[string(s)] {
				if err := l.item(k, v); err != nil {
					return nil, err
				}
			}
		}
	}
	l.rest(obj.State)
	return l.list, nil
}

// itemTree loads the BTree that an attribute refers to; ok is false if it is another thing.
func (c *Catalog) itemTree(ctx context.Context, at zodb.Tid, v *record.Any) (tree object, ok bool, err error) {
	if v == nil || v.Kind != record.Ref {
		return object{}, false, nil
	}
	if class, known := v.Class(); known {
		if bucket, objects, ok := btreeClass(class); !ok || bucket || !objects {
			return object{}, false, nil
		}
	}
	tree, err = c.load(ctx, zodb.Oid(v.Int), at)
	if err != nil {
		return object{}, false, err
	}
	bucket, objects, ok := btreeClass(tree.Class)
	return tree, ok && !bucket && objects, nil
}

// lister collects children.
type lister struct {
	list  []child
	taken map[Key]bool
	named map[int64]bool       // oids that have a name
	lead  map[*record.Any]bool // values of the states it learned that lead somewhere
	seen  map[*record.Any]bool // values whose references are in named
}

func newLister() *lister {
	return &lister{taken: map[Key]bool{}, named: map[int64]bool{}, lead: map[*record.Any]bool{}, seen: map[*record.Any]bool{}}
}

// learn finds out which values of a state lead somewhere, all in one go: a state may have the same value in many places.
func (l *lister) learn(state *record.Any) {
	within := map[*record.Any][]*record.Any{} // what a value is a part of
	var todo []*record.Any
	for v := range state.All() {
		if v.Kind == record.Ref && leadsRef(v) {
			todo = append(todo, v)
			l.lead[v] = true
		}
		for part := range v.Parts() {
			if part.Kind == record.Ref || part.Compound() {
				within[part] = append(within[part], v)
			}
		}
	}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, outer := range within[v] {
			if !l.lead[outer] {
				l.lead[outer] = true
				todo = append(todo, outer)
			}
		}
	}
}

func (l *lister) bucket(state *record.Any, n treeNode) error {
	l.learn(state)
	for i, k := range n.keys {
		if err := l.item(k, n.vals[i]); err != nil {
			return err
		}
	}
	return nil
}

// maxListed bounds the names in one directory.
const maxListed = 1 << 21

func (l *lister) item(k, v *record.Any) error {
	if !l.lead[v] {
		return nil
	}
	key, ok := keyOf(k)
	if !ok {
		return nil // rest names what it refers to
	}
	if l.taken[key] {
		if key = typed(k, key); l.taken[key] {
			return nil
		}
	}
	if len(l.list) >= maxListed {
		return errTooMany
	}
	l.taken[key] = true
	l.list = append(l.list, child{key, v})
	l.name(v)
	return nil
}

// name notes the objects that are reached through a value.
func (l *lister) name(v *record.Any) {
	for todo := []*record.Any{v}; len(todo) > 0; {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if l.seen[v] || !l.lead[v] {
			continue
		}
		l.seen[v] = true
		if v.Kind == record.Ref {
			l.named[v.Int] = true
		}
		for part := range v.Parts() {
			todo = append(todo, part)
		}
	}
}

// addParts adds what a plain container holds: by keys, indices or attributes.
func (l *lister) addParts(v *record.Any) {
	for i, elem := range v.Elems() {
		l.item(&record.Any{Kind: record.Int, Int: int64(i)}, elem)
	}
	for k, val := range v.Pairs() {
		l.item(k, val)
	}
	for _, dict := range attributes(v.State()) {
		for k, val := range dict.Pairs() {
			l.item(k, val)
		}
	}
}

// rest adds, by oid, the objects that are referred to in places without a name: items of sets, keys, arguments.
func (l *lister) rest(state *record.Any) {
	for ref := range state.Refs() {
		if !l.named[ref.Int] && leadsRef(ref) {
			l.named[ref.Int] = true
			l.list = append(l.list, child{Key{'o', zodb.Oid(ref.Int).String()}, ref})
		}
	}
}

// leads reports whether a value refers to an object that may be an array or lead to one.
func leads(v *record.Any) bool {
	for ref := range v.Refs() {
		if leadsRef(ref) {
			return true
		}
	}
	return false
}

func leadsRef(ref *record.Any) bool {
	class, known := ref.Class()
	if !known || class == classBigFile {
		return true
	}
	if _, objects, ok := btreeClass(class); ok && !objects {
		return false
	}
	return class.Module != record.ModBigFile && class.Module != "BTrees.Length" && !strings.HasSuffix(class.Name, "Set")
}

// child finds one value by its key, reading no more than that takes.
func (c *Catalog) child(ctx context.Context, at zodb.Tid, obj record.AnyObject, key Key) (*record.Any, error) {
	if key.Type == 'o' {
		return refTo(obj.State, key), nil
	}
	if _, _, ok := btreeClass(obj.Class); ok {
		return c.getItem(ctx, at, obj, key)
	}
	attrs := attributes(obj.State)
	if attrs == nil {
		return part(obj.State, key), nil
	}
	for _, dict := range attrs {
		for _, name := range inDict {
			if v := dict.Get(name); v != nil && (v.Kind == record.Dict || v.Kind == record.List) {
				if found := part(v, key); found != nil {
					return found, nil
				}
			}
		}
		for _, name := range inTree {
			tree, ok, err := c.itemTree(ctx, at, dict.Get(name))
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			found, err := c.getItem(ctx, at, tree.AnyObject, key)
			if err != nil || found != nil {
				return found, err
			}
		}
	}
	for _, dict := range attrs {
		if found := pick(key, dict.Pairs()); found != nil {
			return found, nil
		}
	}
	return nil, nil
}

// part finds a value in a plain container.
func part(v *record.Any, key Key) *record.Any {
	if found := pick(key, v.Pairs()); found != nil {
		return found
	}
	if i, err := strconv.Atoi(key.Text); err == nil && (key.Type == 0 || key.Type == 'i') && i >= 0 && i < len(v.Elems()) && strconv.Itoa(i) == key.Text {
		return v.Elems()[i]
	}
	for _, dict := range attributes(v.State()) {
		if found := pick(key, dict.Pairs()); found != nil {
			return found
		}
	}
	return nil
}

func refTo(state *record.Any, key Key) *record.Any {
	oid, err := zodb.ParseOid(key.Text)
	if err != nil {
		return nil
	}
	for ref := range state.Refs() {
		if zodb.Oid(ref.Int) == oid {
			return ref
		}
	}
	return nil
}
