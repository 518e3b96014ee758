// Package record decodes and encodes object records of ZODB.
//
// A record is two pickles, one after the other and with one memo: which class the object has, and its
// state. The package owns the way from bytes to a Value and back, and the expansion of compressed
// records. It does not own what a state means: packages btree and zdata know their classes.
//
// Nothing that is read is trusted. The pickle machine (machine.go, call.go) knows only what the classes that
// this project reads can hold, in the pickle protocols 0 to 3 (ZODB has never had others): None, integers, byte and
// text strings, tuples, lists, class names, persistent references, and the few calls by which Python writes bytes and
// bytearrays. Everything else is an error
// that matches ErrForeign. No Python code is named that would be run, no string is copied, no length
// is believed before the bytes are there, nothing recurses, and what a record may make the machine
// allocate is bounded by the record's own size plus a constant: see maxValues.
//
// Why a machine of our own rather than the decoder of og-rek, with which the encoder here is made:
// og-rek allocates 10 MB and takes milliseconds to decode a block of 2 MiB, where nothing needs to be
// copied, and a record of 23 KB can make it allocate more than 64 MiB (a list fetched from the memo is
// copied by every APPENDS); robust_test.go has both as a benchmark and a test.
// Tests hold the machine against og-rek and against Python.
//
// Everything is immutable after decoding; Values point into the record's data and keep it alive.
package record

import (
	"bytes"
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
)

// ErrForeign says that a pickle, well-formed as far as it was read, holds something that no object
// known to this project can hold.
var ErrForeign = errors.New("not among what the known classes can hold")

// Class names a Python class.
type Class struct{ Module, Name string }

func (c Class) String() string { return c.Module + "." + c.Name }

// Kind is the type of a Value.
type Kind uint8

// The kinds of values a record can hold.
const (
	None    Kind = iota
	Int          // int or long of at most 64 bits
	Bytes        // bytes of Python 3, str of Python 2, zodbpickle.binary
	Text         // str of Python 3, unicode of Python 2: as UTF-8
	Tuple        // Items
	List         // Items
	Global       // class or function by name
	Ref          // persistent reference to an object of this database
	WeakRef      // weak or cross-database reference: must not be followed
)

func (k Kind) String() string {
	names := [...]string{"None", "an integer", "a byte string", "a text string", "a tuple", "a list", "a class",
		"a reference", "a weak or cross-database reference"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Value is one decoded Python value. It is shared and never written to.
type Value struct {
	Kind  Kind
	Int   int64   // Int: the number; Ref: the oid
	Data  []byte  // Bytes, Text: the string; Global: module, '\n', name; Ref: as Global, if the class is told
	Items []Value // Tuple, List
}

// Oid returns the object a reference leads to; ok is false when v is no reference that may be followed.
func (v Value) Oid() (oid zodb.Oid, ok bool) { return zodb.Oid(v.Int), v.Kind == Ref }

// Class returns the class that a Global names; ok is false when v is none.
func (v Value) Class() (c Class, ok bool) {
	module, name, ok := bytes.Cut(v.Data, []byte{'\n'})
	if v.Kind != Global || !ok {
		return Class{}, false
	}
	return Class{string(module), string(name)}, true
}

func (v Value) isGlobal(module, name string) bool {
	m, n, ok := bytes.Cut(v.Data, []byte{'\n'})
	return ok && v.Kind == Global && string(m) == module && string(n) == name
}

// str returns the bytes of a string of either kind.
func (v Value) str() ([]byte, bool) { return v.Data, v.Kind == Bytes || v.Kind == Text }

// Object is one decoded record.
type Object struct {
	Class Class
	State Value
}

// Decode decodes a record. oid is for errors, which are *zodb.DataError.
func Decode(oid zodb.Oid, rec zodb.Record) (Object, error) {
	m := machine{data: rec.Data}
	class, err := m.class()
	if err != nil {
		return Object{}, m.dataError(oid, rec.Serial, "class", err)
	}
	state, err := m.load() // what follows its end is not looked at, as Python does not
	if err != nil {
		return Object{}, m.dataError(oid, rec.Serial, "state", err)
	}
	return Object{class, state}, nil
}

// ClassOf decodes only the first pickle of a record. Errors are as those of Decode.
func ClassOf(oid zodb.Oid, rec zodb.Record) (Class, error) {
	m := machine{data: rec.Data}
	class, err := m.class()
	if err != nil {
		return Class{}, m.dataError(oid, rec.Serial, "class", err)
	}
	return class, nil
}

func (m *machine) dataError(oid zodb.Oid, serial zodb.Tid, what string, err error) error {
	return &zodb.DataError{Oid: oid, Serial: serial, Pos: int64(m.op), Msg: "pickle of its " + what, Err: err}
}

// class loads the first pickle. Forms: the class; (class, args); and in both, (module, name) in place
// of the class in the second. Source: ZODB.serialize.ObjectReader.getClassName.
func (m *machine) class() (Class, error) {
	v, err := m.load()
	if err != nil {
		return Class{}, err
	}
	if v.Kind == Tuple {
		if len(v.Items) != 2 {
			return Class{}, fmt.Errorf("a tuple of %d is no class", len(v.Items))
		}
		v = v.Items[0]
	}
	if v.Kind == Tuple && len(v.Items) == 2 {
		module, ok1 := v.Items[0].str()
		name, ok2 := v.Items[1].str()
		if ok1 && ok2 && len(module)+len(name) <= maxName {
			return Class{string(module), string(name)}, nil
		}
	}
	if c, ok := v.Class(); ok {
		return c, nil
	}
	return Class{}, fmt.Errorf("%s is no class", v.Kind)
}
