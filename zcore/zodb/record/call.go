package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// call runs what turns values into another one: BINPERSID, and REDUCE or NEWOBJ of a few names.
func (m *machine) call(c byte) error {
	arg, err := m.pop()
	if err != nil {
		return err
	}
	var v Value
	if c == opBinpersid {
		v, err = reference(arg)
	} else {
		var fn Value
		if fn, err = m.pop(); err == nil {
			v, err = m.makeBytes(fn, arg)
		}
	}
	if err != nil {
		return err
	}
	return m.push(v)
}

// makeBytes evaluates the calls by which Python writes bytes where the protocol has no opcode for them:
//
//	bytes(); zodbpickle.binary(str); bytearray(), bytearray(bytes)
//	_codecs.encode(text, 'latin1'); bytearray(text, 'latin-1')
//	copy_reg._reconstructor(zodbpickle.binary, str, s), of classes derived from str
func (m *machine) makeBytes(fn, arg Value) (Value, error) {
	args := arg.Items
	if arg.Kind != Tuple {
		return Value{}, fmt.Errorf("calls with %s for arguments", arg.Kind)
	}
	switch {
	case len(args) == 0 && (isBytesClass(fn) || isByteArray(fn)):
		return Value{Kind: Bytes}, nil
	case len(args) == 1 && args[0].Kind == Bytes && (isBytesClass(fn) || isByteArray(fn)):
		return args[0], nil
	case len(args) == 2 && (fn.isGlobal("_codecs", "encode") || isByteArray(fn)):
		enc, ok := args[1].str()
		if ok && (string(enc) == "latin1" || string(enc) == "latin-1") && args[0].Kind == Text {
			return m.latin1(args[0].Data)
		}
	case len(args) == 3 && (fn.isGlobal("copy_reg", "_reconstructor") || fn.isGlobal("copyreg", "_reconstructor")):
		if isBytesClass(args[0]) && isBytesClass(args[1]) && args[2].Kind == Bytes {
			return args[2], nil
		}
	}
	name := "a value that is no class"
	if cls, ok := fn.Class(); ok {
		name = cls.String()
	}
	return Value{}, fmt.Errorf("calls %.80q: %w", name, ErrForeign)
}

func isBytesClass(v Value) bool {
	return v.isGlobal("zodbpickle", "binary") || v.isGlobal("__builtin__", "bytes") ||
		v.isGlobal("__builtin__", "str") || v.isGlobal("builtins", "bytes")
}

func isByteArray(v Value) bool {
	return v.isGlobal("builtins", "bytearray") || v.isGlobal("__builtin__", "bytearray")
}

// latin1 turns UTF-8 text whose characters are all below 256 into as many bytes. One text fetched from
// the memo again and again would make many times the record: no more is made than the record has bytes.
func (m *machine) latin1(text []byte) (Value, error) {
	n := utf8.RuneCount(text)
	if m.recode += n; m.recode > len(m.data) {
		return Value{}, errors.New("encodes more text than it has")
	}
	out := make([]byte, 0, n)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r > 0xff || r == utf8.RuneError {
			return Value{}, errors.New("has a byte string with a character above 255")
		}
		out = append(out, byte(r))
		i += size
	}
	return Value{Kind: Bytes, Data: out}, nil
}

// reference makes a Value of a persistent id. Forms: oid; (oid, class); and for what must not be
// followed, lists: [oid] and ['w', (oid,)] are weak, ['n', (db, oid)] and ['m', (db, oid, class)] lead
// to another database. Source: ZODB.serialize, "Persistent reference formats".
func reference(id Value) (Value, error) {
	ref := Value{Kind: Ref}
	switch id.Kind {
	case List:
		if len(id.Items) < 1 || len(id.Items) > 2 {
			return Value{}, fmt.Errorf("a list of %d is no reference", len(id.Items))
		}
		return Value{Kind: WeakRef}, nil
	case Tuple:
		if len(id.Items) != 2 {
			return Value{}, fmt.Errorf("a tuple of %d is no reference", len(id.Items))
		}
		if c := id.Items[1]; c.Kind == Global {
			ref.Data = c.Data
		}
		id = id.Items[0]
	}
	oid, ok := id.str()
	if !ok || len(oid) != 8 {
		return Value{}, fmt.Errorf("%s of %d bytes is no object id", id.Kind, len(oid))
	}
	ref.Int = int64(binary.BigEndian.Uint64(oid))
	return ref, nil
}
