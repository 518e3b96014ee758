package arrays

import (
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// Classes of the objects that the catalogue is about.
var (
	classArray   = record.Class{Module: "wendelin.bigarray.array_zodb", Name: "ZBigArray"}
	classBigFile = record.Class{Module: record.ModBigFile, Name: "ZBigFile"}
)

// Array is the state of a ZBigArray: how the bytes of its bigfile are to be read.
type Array struct {
	DType DType
	Shape []int64
	Order string // "C" or "F"
	File  zodb.Oid
}

// maxDims is how many dimensions numpy 2 has at most.
const maxDims = 64

// decodeArray reads {_dtype, _shape, _order, zfile}; what is in slots comes in a second dict.
func decodeArray(obj record.AnyObject) (a Array, err error) {
	attrs := attributes(obj.State)
	get := func(name string) *record.Any {
		for _, d := range attrs {
			if v := d.Get(name); v != nil {
				return v
			}
		}
		return nil
	}
	if a.DType, err = decodeDType(get("_dtype"), maxDepth); err != nil {
		return a, fmt.Errorf("its _dtype: %w", err)
	}
	shape := get("_shape")
	if shape == nil {
		return a, errors.New("it has no _shape")
	}
	if a.Shape, err = decodeShape(shape); err != nil {
		return a, err
	}
	a.Order = "C" // in old records
	if o := get("_order"); o != nil {
		s, _ := o.Str()
		if a.Order = string(s); a.Order != "C" && a.Order != "F" {
			return a, fmt.Errorf("its _order is %.20q, not C or F", a.Order)
		}
	}
	file := get("zfile")
	if file == nil || file.Kind != record.Ref {
		return a, errors.New("its zfile is no reference")
	}
	a.File = zodb.Oid(file.Int)
	return a, nil
}

func decodeShape(v *record.Any) ([]int64, error) {
	items := v.Elems()
	if v.Kind != record.Tuple && v.Kind != record.List || len(items) > maxDims {
		return nil, errors.New("its shape is no tuple")
	}
	shape := make([]int64, 0, len(items))
	for _, n := range items {
		n = unscalar(n)
		if n.Kind != record.Int || n.Int < 0 {
			return nil, errors.New("its shape has an item that is no length")
		}
		shape = append(shape, n.Int)
	}
	return shape, nil
}

// unscalar takes the number out of numpy.core.multiarray.scalar(dtype, bytes), which a shape computed by numpy has.
func unscalar(v *record.Any) *record.Any {
	if v.Kind != record.Call || len(v.Items[1].Elems()) != 2 {
		return v
	}
	if c, ok := v.Items[0].Class(); !ok || c.Name != "scalar" {
		return v
	}
	args := v.Items[1].Elems()
	d, err := decodeDType(args[0], 1)
	raw, ok := args[1].Str()
	code, _ := d.Descr.(string)
	if err != nil || !ok || len(code) < 2 || code[1] != 'i' && code[1] != 'u' || int64(len(raw)) != d.Itemsize || len(raw) > 8 {
		return v
	}
	var u uint64
	for i := range raw {
		c := raw[len(raw)-1-i]
		if code[0] == '>' {
			c = raw[i]
		}
		u = u<<8 | uint64(c)
	}
	return &record.Any{Kind: record.Int, Int: int64(u)}
}

// attributes returns the dicts that a state keeps attributes in.
func attributes(state *record.Any) []*record.Any {
	switch {
	case state == nil:
		return nil
	case state.Kind == record.Dict:
		return []*record.Any{state}
	case state.Kind == record.Tuple && len(state.Items) == 2 && state.Items[1].Kind == record.Dict &&
		(state.Items[0].Kind == record.Dict || state.Items[0].Kind == record.None):
		return state.Items // the first may be None, which has no pairs
	}
	return nil
}
