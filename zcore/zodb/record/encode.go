package record

import (
	"bytes"
	"encoding/binary"
	"fmt"

	pickle "github.com/kisielk/og-rek"

	"wcfs/zcore/zodb"
)

// Style says which Python a record should look as if it came from. Tests and the demo write records;
// the server never does.
type Style struct {
	Protocol int  // 1, 2 or 3
	Py2      bool // byte strings as str of Python 2, rather than as bytes of Python 3
}

// Py3 is what Python 3 with ZODB 5 and 6 writes.
func Py3() Style { return Style{Protocol: 3} }

// Modules of the classes.
const (
	ModBigFile = "wendelin.bigfile.file_zodb"
	ModLOBTree = "BTrees.LOBTree"
	ModIOBTree = "BTrees.IOBTree"
)

// BTree is a flavour of BTrees: 64-bit or 32-bit keys.
type BTree string

// The two flavours.
const (
	LO BTree = "LO"
	IO BTree = "IO"
)

// TreeClass returns the class of inner nodes and roots, BucketClass that of buckets.
func (b BTree) TreeClass() Class { return Class{"BTrees." + string(b) + "BTree", string(b) + "BTree"} }
func (b BTree) BucketClass() Class {
	return Class{"BTrees." + string(b) + "BTree", string(b) + "Bucket"}
}

func wendelin(name string) Class { return Class{ModBigFile, name} }

// BigFile encodes a ZBigFile.
func (s Style) BigFile(blksize int64, blktab zodb.Oid) []byte {
	return s.Encode(wendelin("ZBigFile"), pickle.Tuple{blksize, s.Ref(blktab, LO.TreeClass())})
}

// Blk0 encodes a ZBlk0: data less its trailing zeros. Blk does so under the class's older name.
func (s Style) Blk0(data []byte) []byte { return s.Encode(wendelin("ZBlk0"), s.Bytes(trim(data))) }

// Blk encodes a ZBlk.
func (s Style) Blk(data []byte) []byte { return s.Encode(wendelin("ZBlk"), s.Bytes(trim(data))) }

// Blk1 encodes a ZBlk1, Data one chunk of it.
func (s Style) Blk1(chunktab zodb.Oid) []byte {
	return s.Encode(wendelin("ZBlk1"), s.Ref(chunktab, IO.TreeClass()))
}

// Data encodes a ZData.
func (s Style) Data(data []byte) []byte { return s.Encode(wendelin("ZData"), s.Bytes(data)) }

func trim(data []byte) []byte { return bytes.TrimRight(data, "\x00") }

// Item is a key and the object it leads to: in a bucket a value, in a tree the child from that key on.
type Item struct {
	Key   int64
	Oid   zodb.Oid
	Class Class // of the object
}

// Bucket encodes a bucket. next is 0 in the last bucket of a tree.
func (s Style) Bucket(b BTree, items []Item, next zodb.Oid) []byte {
	return s.Encode(b.BucketClass(), s.bucket(b, items, next))
}

func (s Style) bucket(b BTree, items []Item, next zodb.Oid) pickle.Tuple {
	kv := make(pickle.Tuple, 0, 2*len(items))
	for _, it := range items {
		kv = append(kv, it.Key, s.Ref(it.Oid, it.Class))
	}
	if next == 0 {
		return pickle.Tuple{kv}
	}
	return pickle.Tuple{kv, s.Ref(next, b.BucketClass())}
}

// InlineTree encodes a root with its only bucket inside; without items, an empty tree.
func (s Style) InlineTree(b BTree, items []Item) []byte {
	if len(items) == 0 {
		return s.Encode(b.TreeClass(), pickle.None{})
	}
	return s.Encode(b.TreeClass(), pickle.Tuple{pickle.Tuple{s.bucket(b, items, 0)}})
}

// Tree encodes an inner node or a root with children; the key of the first child is not written.
// first is the leftmost bucket below it.
func (s Style) Tree(b BTree, children []Item, first zodb.Oid) []byte {
	var kids pickle.Tuple
	for i, c := range children {
		if i > 0 {
			kids = append(kids, c.Key)
		}
		kids = append(kids, s.Ref(c.Oid, c.Class))
	}
	return s.Encode(b.TreeClass(), pickle.Tuple{kids, s.Ref(first, b.BucketClass())})
}

// Bytes returns what Encode writes as a byte string.
func (s Style) Bytes(b []byte) any {
	if s.Py2 {
		return pickle.ByteString(b)
	}
	return pickle.Bytes(b)
}

// Ref returns what Encode writes as a reference to an object of that class.
func (s Style) Ref(oid zodb.Oid, class Class) any {
	id := s.Bytes(binary.BigEndian.AppendUint64(nil, uint64(oid)))
	return pickle.Ref{Pid: pickle.Tuple{id, pickle.Class{Module: class.Module, Name: class.Name}}}
}

// Encode returns the record of an object of that class with that state, given in the types of og-rek.
func (s Style) Encode(class Class, state any) []byte {
	return s.EncodeAny(pickle.Class{Module: class.Module, Name: class.Name}, state)
}

// EncodeAny is Encode for every form of class reference.
func (s Style) EncodeAny(class, state any) []byte {
	var out bytes.Buffer
	enc := pickle.NewEncoderWithConfig(&out, &pickle.EncoderConfig{Protocol: s.Protocol, StrictUnicode: true})
	for _, v := range []any{class, state} {
		if err := enc.Encode(v); err != nil {
			// The encoder refuses only types it does not know, and those are a mistake of the caller.
			panic(fmt.Sprintf("record: encode %T: %v", v, err))
		}
	}
	return out.Bytes()
}

// WeakRef returns what Encode writes as a weak reference.
func (s Style) WeakRef(oid zodb.Oid) any {
	id := s.Bytes(binary.BigEndian.AppendUint64(nil, uint64(oid)))
	return pickle.Ref{Pid: []any{"w", pickle.Tuple{id}}}
}
