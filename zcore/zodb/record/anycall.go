package record

import (
	"errors"
	"fmt"
)

// call runs what Python would make an object by. Only references, and the calls by which Python writes bytes, become
// values; every other call is kept as it is.
func (m *anyMachine) call(c byte) error {
	switch c {
	case opBuild:
		return m.build()
	case opInst, opObj:
		return m.oldInstance(c)
	case opPersid:
		s, err := m.line(maxName)
		if err != nil {
			return err
		}
		return m.reference(&Any{Kind: Bytes, Data: s})
	}
	arg, err := m.pop()
	if err != nil {
		return err
	}
	if c == opBinpersid {
		return m.reference(arg)
	}
	fn, err := m.pop()
	if err != nil {
		return err
	}
	if b, ok := m.bytesOf(fn, arg); ok {
		return m.push(b)
	}
	return m.push(&Any{Kind: Call, Items: []*Any{fn, arg}})
}

// reference is that of the narrow machine, which knows all forms.
func (m *anyMachine) reference(id *Any) error {
	v, err := reference(shallow(id, 2))
	return m.pushOr(&Any{Kind: v.Kind, Int: v.Int, Data: v.Data}, err)
}

// shallow makes a Value of a value that has no more than depth levels; what lies deeper is left out.
func shallow(v *Any, depth int) Value {
	out := Value{Kind: v.Kind, Int: v.Int, Data: v.Data}
	if depth > 0 && len(v.Items) <= 3 {
		for _, item := range v.Items {
			out.Items = append(out.Items, shallow(item, depth-1))
		}
	}
	return out
}

// bytesOf tells the calls that make bytes.
func (m *anyMachine) bytesOf(fn, arg *Any) (*Any, bool) {
	if fn.Kind != Global || arg.Kind != Tuple || len(arg.Items) > 3 {
		return nil, false
	}
	v, err := m.makeBytes(shallow(fn, 0), shallow(arg, 1))
	if err != nil {
		return nil, false
	}
	return &Any{Kind: v.Kind, Data: v.Data}, true
}

// build runs BUILD.
func (m *anyMachine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	obj, err := m.top()
	if err != nil {
		return err
	}
	if obj.Kind != Call {
		return fmt.Errorf("gives a state to %s", obj.Kind)
	}
	if obj.instance().state != nil {
		return errors.New("gives an object two states")
	}
	obj.instance().state = state
	return nil
}

// oldInstance runs INST and OBJ, by which Python 2 made instances of classic classes.
func (m *anyMachine) oldInstance(c byte) error {
	var class *Any
	if c == opInst {
		if err := m.scalar(opGlobal); err != nil {
			return err
		}
		class, _ = m.pop()
	}
	at, err := m.popMark()
	if err != nil {
		return err
	}
	args := m.vals[at:]
	if c == opObj {
		if len(args) == 0 {
			return errUnderflow
		}
		class, args = args[0], args[1:]
	}
	tuple := &Any{Kind: Tuple, Items: append([]*Any(nil), args...)}
	m.vals = m.vals[:at]
	return m.push(&Any{Kind: Call, Items: []*Any{class, tuple}})
}
