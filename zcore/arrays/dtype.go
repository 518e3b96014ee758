package arrays

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"wcfs/zcore/zodb/record"
)

// DType is a numpy.dtype.
type DType struct {
	// Descr is the type as numpy.lib.format writes it into a .npy file: a string such as "<f8", or a list of fields
	// [name, type] or [name, type, shape], where a name may be [title, name] and padding is a field without a name.
	// A dtype that is an array in itself is [type, shape]. Fields that overlap, or are not in the order of their
	// offsets, cannot be written so: they are a {"names", "formats", "offsets", "titles", "itemsize"}, which
	// numpy.dtype takes too.
	Descr    any
	Itemsize int64 // bytes of an element
}

func (d DType) String() string {
	if s, ok := d.Descr.(string); ok {
		return s
	}
	text, err := json.Marshal(d.Descr)
	if err != nil {
		return fmt.Sprint(d.Descr)
	}
	return string(text)
}

// maxDepth bounds types within types, and maxItem the bytes of an element.
const (
	maxDepth = 32
	maxItem  = 1 << 31
)

var errDType = errors.New("the pickle is no numpy.dtype")

// field is one field of a structured type.
type field struct {
	name, title string
	dtype       DType
	off         int64
}

// decodeDType reads what numpy.dtype.__reduce__ gives: numpy.dtype(code, align, copy), and for its state
// (version, byteorder, subdtype, names, fields, elsize, alignment[, flags[, metadata]]).
func decodeDType(v *record.Any, depth int) (DType, error) {
	if depth == 0 {
		return DType{}, fmt.Errorf("%w: it is nested too deeply", errDType)
	}
	if v == nil || v.Kind != record.Call || len(v.Items) != 2 {
		return DType{}, errDType
	}
	class, ok := v.Items[0].Class()
	args := v.Items[1].Elems()
	if !ok || class.Name != "dtype" || class.Module != "numpy" && !strings.HasPrefix(class.Module, "numpy.") || len(args) == 0 {
		return DType{}, fmt.Errorf("%w but a %.80q", errDType, class.String())
	}
	code, ok := args[0].Str()
	st := v.State()
	if !ok || len(code) == 0 || len(code) > 32 || st == nil || st.Kind != record.Tuple || len(st.Items) < 7 {
		return DType{}, errDType
	}
	switch {
	case st.Items[2].Kind == record.Tuple:
		return subArray(st.Items[2], depth)
	case st.Items[3].Kind != record.None:
		return structured(st, depth)
	}
	return simple(string(code), st)
}

// simple is a type without parts.
func simple(code string, st *record.Any) (DType, error) {
	n, err := strconv.ParseInt(code[1:], 10, 64)
	if err != nil || n < 0 {
		return DType{}, fmt.Errorf("%w: its code is %.40q", errDType, code)
	}
	order, _ := st.Items[1].Str()
	d := DType{Itemsize: n}
	switch code[0] {
	case 'b', 'i', 'u', 'f', 'c':
	case 'S', 'V', 'a':
		d.Itemsize = max(n, st.Items[5].Int)
		order = []byte{'|'}
		code = code[:1] + strconv.FormatInt(d.Itemsize, 10)
	case 'U':
		d.Itemsize = max(4*n, st.Items[5].Int)
		code = "U" + strconv.FormatInt(d.Itemsize/4, 10)
	case 'M', 'm':
		unit, err := timeUnit(st)
		if err != nil {
			return DType{}, err
		}
		code += unit
	case 'O':
		return DType{}, errors.New("its elements are Python objects, which are not in the file")
	default:
		return DType{}, fmt.Errorf("%w: its code is %.40q", errDType, code)
	}
	if d.Itemsize > maxItem {
		return DType{}, fmt.Errorf("%w: an element of %d bytes", errDType, d.Itemsize)
	}
	c := byte('|')
	if len(order) == 1 {
		c = order[0]
	}
	if c == '=' {
		c = '<'
	}
	if c != '<' && c != '>' && c != '|' {
		return DType{}, fmt.Errorf("%w: its byte order is %q", errDType, c)
	}
	d.Descr = string(c) + code
	return d, nil
}

// timeUnit reads the unit of datetime64 and timedelta64 from (metadata, (unit, num, den, event)).
func timeUnit(st *record.Any) (string, error) {
	if len(st.Items) < 9 {
		return "", nil // without a unit
	}
	meta := st.Items[8].Elems()
	if len(meta) != 2 || len(meta[1].Elems()) < 2 {
		return "", fmt.Errorf("%w: it has no unit of time", errDType)
	}
	unit, ok := meta[1].Elems()[0].Str()
	num := meta[1].Elems()[1]
	switch {
	case !ok || len(unit) > 8 || num.Kind != record.Int:
		return "", fmt.Errorf("%w: it has no unit of time", errDType)
	case string(unit) == "generic":
		return "", nil
	case num.Int != 1:
		return fmt.Sprintf("[%d%s]", num.Int, unit), nil
	}
	return "[" + string(unit) + "]", nil
}

func subArray(sub *record.Any, depth int) (DType, error) {
	if len(sub.Items) != 2 {
		return DType{}, errDType
	}
	base, err := decodeDType(sub.Items[0], depth-1)
	if err != nil {
		return DType{}, err
	}
	shape := []int64{sub.Items[1].Int}
	if sub.Items[1].Kind != record.Int {
		if shape, err = decodeShape(sub.Items[1]); err != nil {
			return DType{}, err
		}
	}
	size := base.Itemsize
	for _, n := range shape {
		if n > 0 && size > maxItem/n {
			return DType{}, fmt.Errorf("%w: an element of more than %d bytes", errDType, maxItem)
		}
		size *= n
	}
	return DType{Descr: []any{base.Descr, shape}, Itemsize: size}, nil
}

func structured(st *record.Any, depth int) (DType, error) {
	names, fields := st.Items[3].Elems(), st.Items[4]
	d := DType{Itemsize: st.Items[5].Int}
	if d.Itemsize < 0 || d.Itemsize > maxItem || len(names) > 1<<12 || st.Items[5].Kind != record.Int {
		return DType{}, fmt.Errorf("%w: a structure of %d bytes and %d fields", errDType, d.Itemsize, len(names))
	}
	byName := map[string]*record.Any{}
	for k, v := range fields.Pairs() {
		if s, ok := k.Str(); ok {
			byName[string(s)] = v
		}
	}
	var list []field
	for _, name := range names {
		s, ok := name.Str()
		f, err := decodeField(string(s), byName[string(s)], depth)
		if err != nil || !ok {
			return DType{}, fmt.Errorf("field %.80q: %w", s, errors.Join(err, notIf(ok, errDType)))
		}
		if f.off < 0 || f.off > d.Itemsize-f.dtype.Itemsize {
			return DType{}, fmt.Errorf("%w: field %.80q lies outside", errDType, s)
		}
		list = append(list, f)
	}
	d.Descr = fieldList(list, d.Itemsize)
	return d, nil
}

func notIf(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}

// decodeField reads (dtype, offset[, title]).
func decodeField(name string, v *record.Any, depth int) (field, error) {
	if v == nil || len(v.Elems()) < 2 || v.Elems()[1].Kind != record.Int {
		return field{}, errDType
	}
	parts := v.Elems()
	f := field{name: name, off: parts[1].Int}
	if len(parts) > 2 {
		title, _ := parts[2].Str()
		f.title = string(title)
	}
	var err error
	f.dtype, err = decodeDType(parts[0], depth-1)
	return f, err
}

// fieldList writes fields in order, with the padding between them, as numpy.dtype.descr does.
func fieldList(fields []field, size int64) any {
	descr := []any{}
	end := int64(0)
	pad := func(to int64) {
		if to > end {
			descr = append(descr, []any{"", "|V" + strconv.FormatInt(to-end, 10)})
		}
	}
	for _, f := range fields {
		if f.off < end {
			return fieldDict(fields, size)
		}
		pad(f.off)
		var name any = f.name
		if f.title != "" {
			name = []any{f.title, f.name}
		}
		if sub, ok := f.dtype.Descr.([]any); ok && isSubArray(sub) {
			descr = append(descr, []any{name, sub[0], sub[1]})
		} else {
			descr = append(descr, []any{name, f.dtype.Descr})
		}
		end = f.off + f.dtype.Itemsize
	}
	pad(size)
	return descr
}

// isSubArray tells [type, shape] from a list of fields.
func isSubArray(descr []any) bool {
	if len(descr) != 2 {
		return false
	}
	_, ok := descr[1].([]int64)
	return ok
}

// fieldDict writes fields in any places.
func fieldDict(fields []field, size int64) any {
	names, formats, offsets, titles := []string{}, []any{}, []int64{}, []any{}
	for _, f := range fields {
		names, formats, offsets = append(names, f.name), append(formats, f.dtype.Descr), append(offsets, f.off)
		var title any
		if f.title != "" {
			title = f.title
		}
		titles = append(titles, title)
	}
	return map[string]any{"names": names, "formats": formats, "offsets": offsets, "titles": titles, "itemsize": size}
}
