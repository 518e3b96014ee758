package zdata

import (
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

func decodeBigFile(oid zodb.Oid, rec zodb.Record) (BigFile, error) {
	class, err := record.ClassOf(oid, rec)
	if errors.Is(err, record.ErrForeign) {
		// Objects of other applications: their class pickles may hold what ours never do.
		return BigFile{}, fmt.Errorf("object %s@%s: %w", oid, rec.Serial, ErrNotBigFile)
	}
	if err != nil {
		return BigFile{}, err
	}
	if class != (record.Class{Module: record.ModBigFile, Name: "ZBigFile"}) {
		return BigFile{}, fmt.Errorf("object %s@%s: %w: it is a %.80q", oid, rec.Serial, ErrNotBigFile, class.String())
	}
	obj, err := record.Decode(oid, rec)
	if err != nil {
		return BigFile{}, err
	}
	st := obj.State
	if st.Kind != record.Tuple || len(st.Items) != 2 {
		return BigFile{}, bad(oid, rec.Serial, "the state of a ZBigFile is %s of %d", st.Kind, len(st.Items))
	}
	size, ref := st.Items[0], st.Items[1]
	if size.Kind != record.Int || size.Int <= 0 || size.Int > MaxBlksize {
		what := size.Kind.String()
		if size.Kind == record.Int {
			what = fmt.Sprint(size.Int)
		}
		return BigFile{}, bad(oid, rec.Serial, "its blksize is %s, not 1 to %d bytes", what, MaxBlksize)
	}
	blktab, ok := ref.Oid()
	if !ok {
		return BigFile{}, bad(oid, rec.Serial, "its blktab is %s, not a reference", ref.Kind)
	}
	return BigFile{Oid: oid, Serial: rec.Serial, Blksize: size.Int, Blktab: blktab}, nil
}

func bad(oid zodb.Oid, serial zodb.Tid, format string, args ...any) error {
	return &zodb.DataError{Oid: oid, Serial: serial, Pos: -1, Msg: fmt.Sprintf(format, args...)}
}
