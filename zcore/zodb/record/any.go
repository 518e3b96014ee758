package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"strconv"

	"wcfs/zcore/zodb"
)

// The kinds of values that records of classes unknown here hold besides the others.
const (
	Bool   Kind = iota + 100 // Int is 0 or 1
	Float                    // Data: 8 bytes, big-endian, or the text of protocol 0
	Dict                     // Items: key and value by turns
	Call                     // Items: what is called, and a tuple of arguments; nothing is ever called
	Opaque                   // a value that says nothing: an integer of more than 64 bits, an extension code
)

// maxAny bounds the values of a record that DecodeAny reads. A value takes up to 150 bytes with what refers to it.
const maxAny = 1 << 19

// Any is a decoded value of any class. Unlike a Value it may be shared within a record and may contain itself, so
// that a walk must remember where it was. It is never written to once it is decoded.
type Any struct {
	Kind  Kind
	Int   int64  // Int, Bool: the number; Ref: the oid
	Data  []byte // as that of a Value
	Items []*Any

	more *instance // of a Call: what it is given after it was made
}

// instance is what a pickle gives an object after it was made.
type instance struct {
	state *Any
	elems []*Any // appended, as to a subclass of list
	pairs []*Any // set, as in a subclass of dict: key and value by turns
}

// State returns what an object was built with, nil for none.
func (v *Any) State() *Any {
	if v.more == nil {
		return nil
	}
	return v.more.state
}

// Elems returns the items of a list or tuple, or of an object derived from list.
func (v *Any) Elems() []*Any {
	switch {
	case v.Kind == List || v.Kind == Tuple:
		return v.Items
	case v.more != nil:
		return v.more.elems
	}
	return nil
}

// Pairs goes through the keys and values of a dict, or of an object derived from dict, in their order.
func (v *Any) Pairs() iter.Seq2[*Any, *Any] {
	items := v.Items
	if v.Kind != Dict {
		if items = nil; v.more != nil {
			items = v.more.pairs
		}
	}
	return func(yield func(*Any, *Any) bool) {
		for i := 0; i+1 < len(items); i += 2 {
			if !yield(items[i], items[i+1]) {
				return
			}
		}
	}
}

// Get returns the value that a dict has under a string, or nil. Of equal keys the last counts.
func (v *Any) Get(key string) (found *Any) {
	for k, val := range v.Pairs() {
		if s, ok := k.Str(); ok && string(s) == key {
			found = val
		}
	}
	return found
}

// Str returns the bytes of a string of either kind.
func (v *Any) Str() ([]byte, bool) {
	return v.Data, v.Kind == Bytes || v.Kind == Text
}

// Class returns the class that a Global names, or that a Ref tells its object to have.
func (v *Any) Class() (c Class, ok bool) {
	module, name, ok := bytes.Cut(v.Data, []byte{'\n'})
	if v.Kind != Global && v.Kind != Ref || !ok {
		return Class{}, false
	}
	return Class{string(module), string(name)}, true
}

// Compound reports whether v may have parts.
func (v *Any) Compound() bool { return v.Items != nil || v.more != nil }

// All goes through the values that v is made of, itself included, each once, except those that have no parts and are no
// references.
func (v *Any) All() iter.Seq[*Any] {
	return func(yield func(*Any) bool) {
		seen, todo := map[*Any]bool{}, []*Any{v}
		for len(todo) > 0 {
			v := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if !yield(v) {
				return
			}
			for part := range v.Parts() {
				if (part.Compound() || part.Kind == Ref) && !seen[part] {
					seen[part] = true
					todo = append(todo, part)
				}
			}
		}
	}
}

// Refs goes through the strong references among All.
func (v *Any) Refs() iter.Seq[*Any] {
	return func(yield func(*Any) bool) {
		for v := range v.All() {
			if v.Kind == Ref && !yield(v) {
				return
			}
		}
	}
}

// Parts goes through the values directly in v.
func (v *Any) Parts() iter.Seq[*Any] {
	return func(yield func(*Any) bool) {
		for _, list := range v.parts() {
			for _, part := range list {
				if part != nil && !yield(part) {
					return
				}
			}
		}
	}
}

func (v *Any) parts() [4][]*Any {
	if v.more == nil {
		return [4][]*Any{v.Items}
	}
	return [4][]*Any{v.Items, {v.more.state}, v.more.elems, v.more.pairs}
}

// AnyObject is one decoded record of any class.
type AnyObject struct {
	Class Class
	State *Any
}

// DecodeAny decodes a record of whatever class, without importing or calling anything: a call is kept as one. It has the
// safety of Decode with larger bounds. Errors are *zodb.DataError.
func DecodeAny(oid zodb.Oid, rec zodb.Record) (AnyObject, error) {
	m := anyMachine{machine: machine{data: rec.Data}}
	var obj AnyObject
	v, err := m.load()
	if err == nil {
		obj.Class, err = anyClass(v)
	}
	if err != nil {
		return AnyObject{}, m.dataError(oid, rec.Serial, "class", err)
	}
	if obj.State, err = m.load(); err != nil {
		return AnyObject{}, m.dataError(oid, rec.Serial, "state", err)
	}
	return obj, nil
}

// anyClass is machine.class for a class whose arguments may be anything.
func anyClass(v *Any) (Class, error) {
	if v.Kind == Tuple && len(v.Items) == 2 {
		v = v.Items[0]
	}
	if v.Kind == Tuple && len(v.Items) == 2 {
		module, ok1 := v.Items[0].Str()
		name, ok2 := v.Items[1].Str()
		if ok1 && ok2 && len(module)+len(name) <= maxName {
			return Class{string(module), string(name)}, nil
		}
	}
	if c, ok := v.Class(); ok && v.Kind == Global {
		return c, nil
	}
	return Class{}, fmt.Errorf("%s is no class", v.Kind)
}

// Float returns a floating point number as text.
func (v *Any) Float() string {
	if len(v.Data) != 8 {
		return string(v.Data)
	}
	return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(v.Data)), 'g', -1, 64)
}
