package tree

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"strings"

	"wcfs/zcore"
	"wcfs/zcore/arrays"
	"wcfs/zcore/zodb"
)

// The nodes below head/arrays and @<tid>/arrays: a directory for whatever leads to arrays, and for an array or a bigfile a
// symbolic link to bigfile/<oid> and a file of JSON. They hold nothing but their path: what it leads to is looked up
// each time, below head as of the head at that moment. Their numbers are made of the path too, so that two nodes of one
// path are the same to everybody, and a listing can tell them without making nodes.

// arrayNode is what they have in common.
type arrayNode struct {
	node
	snap *snapshot // nil below head; else a reference is held, except by @<tid>/arrays itself
	root bool      // it is arrays/ itself

	keys []arrays.Key
	rest []string // names that begin a longer key
}

// at is the revision that is shown now.
func (n *arrayNode) at() zodb.Tid {
	if n.snap != nil {
		return n.snap.key.rev
	}
	return n.fs.core.Head()
}

// rev is Attr.Rev.
func (n *arrayNode) rev() zodb.Tid {
	if n.snap != nil {
		return n.snap.key.rev
	}
	return 0
}

func (n *arrayNode) Release() {
	if n.snap != nil {
		n.snap.put()
	}
}

// names are those of the path below arrays/.
func (n *arrayNode) names() []string {
	var names []string
	for _, k := range n.keys {
		names = append(names, k.Names()...)
	}
	return append(names, n.rest...)
}

// kinds of numbers
const (
	arrayDirNo  = 'd'
	arrayLinkNo = 'l'
	arrayJSONNo = 'j'
)

// arrayIno makes the number of a node. It cannot be one that newIno gives out, nor a small one.
func (fs *FS) arrayIno(rev zodb.Tid, kind byte, names []string) uint64 {
	var h maphash.Hash
	h.SetSeed(fs.arraySeed)
	fmt.Fprintf(&h, "%s %c %s", rev, kind, strings.Join(names, "/"))
	ino := h.Sum64() & (1<<63 - 1)
	if high := ino >> inoBits; high == fs.inoBase>>inoBits || high == 0 {
		ino ^= 1 << 62
	}
	return ino
}

// sub makes what is in common of a node in directory d.
func (d *arrayDir) sub(kind byte, name string, keys []arrays.Key, rest []string) arrayNode {
	n := arrayNode{snap: d.snap, keys: keys, rest: rest}
	n.node = node{d.fs, d.fs.arrayIno(d.rev(), kind, append(d.names(), name))}
	if d.snap != nil {
		d.snap.get()
	}
	return n
}

// arrayDir is a directory at or below arrays/.
type arrayDir struct{ arrayNode }

func (*arrayDir) Kind() Kind { return Dir }

func (*arrayDir) Open(context.Context, Caller, bool) (Handle, error) { return nil, ErrIsDir }

func (d *arrayDir) Attr(context.Context) (Attr, error) {
	at := d.at()
	return Attr{Ino: d.ino, Dir: true, Perm: 0o555, Blksize: 4096, Nlink: 2, Mtime: at.StatTime(), Rev: d.rev(),
		Fleeting: d.snap == nil && !d.root}, d.fs.failed()
}

func (d *arrayDir) Lookup(ctx context.Context, name string) (Node, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	kind := arrayLinkNo
	last := name
	if base, ok := strings.CutSuffix(name, ".json"); ok {
		kind, last = arrayJSONNo, base
	}
	full := path.Join(append(append([]string(nil), d.rest...), last)...)
	keys, rest, err := arrays.ParsePath(full)
	if err != nil || len(rest) > 0 && kind == arrayJSONNo {
		return nil, fmt.Errorf("lookup %q: %w", name, ErrNotExist)
	}
	keys = append(d.keys[:len(d.keys):len(d.keys)], keys...)
	if len(rest) > 0 {
		sub := &arrayDir{d.sub(arrayDirNo, name, keys, rest)}
		if list, err := sub.ReadDir(ctx); err != nil || len(list) == 0 {
			sub.Release()
			return nil, errors.Join(err, fmt.Errorf("lookup %q: %w", name, ErrNotExist))
		}
		return sub, nil
	}
	item, err := d.fs.catalog.Resolve(ctx, d.at(), keys)
	if err != nil {
		return nil, arrayError(ctx, name, err)
	}
	switch {
	case item.Kind == arrays.Container && kind == arrayJSONNo:
		return nil, fmt.Errorf("lookup %q: %w", name, ErrNotExist)
	case item.Kind == arrays.Container:
		return &arrayDir{d.sub(arrayDirNo, name, keys, nil)}, nil
	case kind == arrayJSONNo:
		return &arrayJSON{d.sub(arrayJSONNo, name, keys, nil)}, nil
	}
	return &arrayLink{d.sub(arrayLinkNo, name, keys, nil), len(d.names())}, nil
}

func (d *arrayDir) ReadDir(ctx context.Context) ([]Entry, error) {
	if err := d.fs.failed(); err != nil {
		return nil, err
	}
	items, err := d.fs.catalog.List(ctx, d.at(), d.keys)
	if zodb.IsAbsent(err) && len(d.keys) == 0 {
		return nil, nil // before the root object was written
	}
	if err != nil {
		return nil, arrayError(ctx, d.keysText(), err)
	}
	var list []Entry
	above, seen := d.names(), map[string]bool{}
	add := func(kind byte, name string) {
		if !seen[name] {
			seen[name] = true
			ino := d.fs.arrayIno(d.rev(), kind, append(above[:len(above):len(above)], name))
			list = append(list, Entry{Name: name, Ino: ino, Dir: kind == arrayDirNo, Link: kind == arrayLinkNo})
		}
	}
	for _, item := range items {
		names := item.Key.Names()
		if len(names) <= len(d.rest) || strings.Join(names[:len(d.rest)], "/") != strings.Join(d.rest, "/") {
			continue
		}
		name := names[len(d.rest)]
		switch {
		case len(names) > len(d.rest)+1 || item.Kind == arrays.Container:
			add(arrayDirNo, name)
		default:
			add(arrayLinkNo, name)
			add(arrayJSONNo, name+".json")
		}
	}
	return sortEntries(list), nil
}

func (d *arrayDir) keysText() string { return "arrays/" + arrays.FormatPath(d.keys) }

// arrayError makes an error of the tree of one of the catalogue.
func arrayError(ctx context.Context, name string, err error) error {
	switch {
	case errors.Is(err, arrays.ErrNoName), zodb.IsAbsent(err):
		return fmt.Errorf("lookup %q: %w: %w", name, ErrNotExist, err)
	case errors.Is(err, ErrIO), errors.Is(err, ErrNotConn), errors.Is(err, ErrInterrupted), ctx.Err() != nil:
		return interrupted(ctx, err)
	}
	return fmt.Errorf("lookup %q: %w: %w", name, ErrIO, err)
}

// arrayLink is the link of an array or bigfile.
type arrayLink struct {
	arrayNode
	depth int // of the directory it is in, below arrays/
}

var _ Linker = (*arrayLink)(nil)

func (*arrayLink) Kind() Kind { return Link }

func (*arrayLink) Lookup(context.Context, string) (Node, error) { return nil, ErrNotDir }
func (*arrayLink) ReadDir(context.Context) ([]Entry, error)     { return nil, ErrNotDir }

func (*arrayLink) Open(context.Context, Caller, bool) (Handle, error) { return nil, ErrInvalid }

func (l *arrayLink) Attr(ctx context.Context) (Attr, error) {
	target, item, err := l.resolve(ctx)
	if err != nil {
		return Attr{}, err
	}
	return Attr{Ino: l.ino, Link: true, Perm: 0o777, Size: int64(len(target)), Blksize: 4096, Nlink: 1,
		Mtime: item.Since.StatTime(), Rev: l.rev(), Fleeting: l.snap == nil}, nil
}

// Readlink returns a path relative to the link, so that it holds wherever the tree is mounted, or a part of it.
func (l *arrayLink) Readlink(ctx context.Context) (string, error) {
	target, _, err := l.resolve(ctx)
	return target, err
}

func (l *arrayLink) resolve(ctx context.Context) (string, arrays.Item, error) {
	item, err := l.find(ctx)
	if err != nil {
		return "", item, err
	}
	return strings.Repeat("../", l.depth+1) + "bigfile/" + item.File().String(), item, nil
}

// find resolves the path of an array. A name whose object is no array any more is absent.
func (n *arrayNode) find(ctx context.Context) (arrays.Item, error) {
	if err := n.fs.failed(); err != nil {
		return arrays.Item{}, err
	}
	item, err := n.fs.catalog.Resolve(ctx, n.at(), n.keys)
	if err == nil && item.Kind == arrays.Container {
		err = arrays.ErrNoName
	}
	if err != nil {
		return item, arrayError(ctx, arrays.FormatPath(n.keys), err)
	}
	return item, nil
}

// arrayJSON tells what is needed to use the bytes of a bigfile as an array.
type arrayJSON struct{ arrayNode }

// Kind is that of small files: below head the content follows commits.
func (f *arrayJSON) Kind() Kind {
	if f.snap != nil {
		return Static
	}
	return Volatile
}

func (*arrayJSON) Lookup(context.Context, string) (Node, error) { return nil, ErrNotDir }
func (*arrayJSON) ReadDir(context.Context) ([]Entry, error)     { return nil, ErrNotDir }

func (f *arrayJSON) Attr(ctx context.Context) (Attr, error) {
	text, item, err := f.text(ctx)
	if err != nil {
		return Attr{}, err
	}
	return Attr{Ino: f.ino, Perm: 0o444, Size: int64(len(text)), Blksize: 4096, Nlink: 1,
		Mtime: item.Since.StatTime(), Rev: f.rev(), Fleeting: f.snap == nil}, nil
}

func (f *arrayJSON) Open(ctx context.Context, _ Caller, write bool) (Handle, error) {
	if err := openCheck(f.fs, write); err != nil {
		return nil, err
	}
	text, _, err := f.text(ctx)
	if err != nil {
		return nil, err
	}
	if f.snap != nil {
		f.snap.get()
	}
	return &arrayHandle{textHandle: textHandle{fs: f.fs, text: func() string { return text }}, snap: f.snap}, nil
}

type arrayHandle struct {
	textHandle
	snap *snapshot
}

func (h *arrayHandle) Close() {
	if h.snap != nil {
		h.snap.put()
	}
}

// ArrayInfo is the content of NAME.json.
type ArrayInfo struct {
	Path  string `json:"path"`            // below arrays/
	Kind  string `json:"kind"`            // array or bigfile
	Oid   string `json:"oid"`             // of the bigfile
	Array string `json:"array,omitempty"` // oid of the ZBigArray
	Since string `json:"since"`           // the transaction that wrote the object: its dtype, shape and order are so since then

	DType    any     `json:"dtype,omitempty"` // as in the header of a .npy file
	Itemsize int64   `json:"itemsize,omitempty"`
	Shape    []int64 `json:"shape,omitzero"`
	Order    string  `json:"order,omitempty"` // C or F
}

// Describe makes the content of the JSON file of an array.
func Describe(item arrays.Item, keys []arrays.Key) ArrayInfo {
	info := ArrayInfo{Path: arrays.FormatPath(keys), Kind: "bigfile", Oid: item.File().String(), Since: item.Since.String()}
	if a := item.Array; a != nil {
		info.Kind, info.Array = "array", item.Oid.String()
		info.DType, info.Itemsize, info.Shape, info.Order = a.DType.Descr, a.DType.Itemsize, a.Shape, a.Order
	}
	return info
}

func (f *arrayJSON) text(ctx context.Context) (string, arrays.Item, error) {
	item, err := f.find(ctx)
	if err != nil {
		return "", item, err
	}
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // byte orders stay readable
	if err := enc.Encode(Describe(item, f.keys)); err != nil {
		return "", item, fmt.Errorf("%w: %w", ErrIO, err)
	}
	return text.String(), item, nil
}

var _ arrays.Loader = (*zcore.Core)(nil)
