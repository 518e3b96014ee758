package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"wcfs/zcore/zodb"
)

// testLoad: every object at every moment is what the model says, through every interface.
func testLoad(e *env) {
	oids := oidRange(0x1000, 8)
	oids = append(oids, 0xffff, 0x10000, 0x123456789a)
	stor := e.open() // opened before the first commit: sees them by following
	for range 60 {
		e.step(oids)
	}
	e.waitHead(stor, e.model.last())
	late := e.open() // opened after the last
	for _, s := range []zodb.Storage{stor, late} {
		for _, at := range append(e.model.moments(), e.model.last()) {
			for _, oid := range e.model.oids() {
				if err := e.check(s, oid, at); err != nil {
					e.Error(err)
				}
			}
		}
		e.checkOids(s)
	}
}

// testMissing: what never was is an error that says so, whatever the tid.
func testMissing(e *env) {
	tid := e.commit(map[zodb.Oid][]byte{0x1000: Record(nil)})
	stor := e.open()
	for _, at := range []zodb.Tid{0, 1, tid - 1, tid} {
		for _, oid := range []zodb.Oid{0xfff, 0x1001, 1 << 40, 1<<63 - 1} {
			if err := e.check(stor, oid, at); err != nil {
				e.Error(err)
			}
		}
	}
	if err := e.check(stor, 0x1000, 0); err != nil {
		e.Error(err)
	}
}

// testBig: records far larger than any buffer.
func testBig(e *env) {
	for i := range 3 {
		objs := map[zodb.Oid][]byte{0x1000: randomRecord(e.rnd, 2<<20+i)}
		if i == 1 {
			objs[0x1001] = Record(make([]byte, 5<<20))
		}
		e.commit(objs)
	}
	stor := e.open()
	e.waitHead(stor, e.model.last())
	for _, at := range e.model.moments() {
		for _, oid := range e.model.oids() {
			if err := e.check(stor, oid, at); err != nil {
				e.Error(err)
			}
		}
	}
}

// check compares every way to ask for (oid, at) with the model.
func (e *env) check(stor zodb.Storage, oid zodb.Oid, at zodb.Tid) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	head, err := stor.Head(ctx)
	if err != nil {
		return fmt.Errorf("head: %w", err)
	}
	rec, err := stor.LoadAt(ctx, oid, at)
	want, ok := e.model.at(oid, at)
	if _, forgets := e.back.(ForgetsDeletions); forgets && ok && want.data == nil && want.tid <= zodb.Tid(e.packed.Load()) {
		return nil
	}
	if err := e.checkAnswer("LoadAt", oid, at, err, want, ok); err != nil {
		return err
	}
	if err == nil {
		if rec.Serial != want.tid || !bytes.Equal(rec.Data, want.data) {
			return fmt.Errorf("LoadAt %s@%s: serial %s, %d bytes; want serial %s, %d bytes (data equal: %v)",
				oid, at, rec.Serial, len(rec.Data), want.tid, len(want.data), bytes.Equal(rec.Data, want.data))
		}
		if err := e.checkUntil("LoadAt", oid, at, rec.Until, head); err != nil {
			return err
		}
	}
	if s, ok2 := stor.(zodb.SerialLoader); ok2 {
		serial, until, err := s.SerialAt(ctx, oid, at)
		if err := e.checkAnswer("SerialAt", oid, at, err, want, ok); err != nil {
			return err
		}
		if err == nil && serial != want.tid {
			return fmt.Errorf("SerialAt %s@%s: %s; want %s", oid, at, serial, want.tid)
		}
		if err == nil {
			if err := e.checkUntil("SerialAt", oid, at, until, head); err != nil {
				return err
			}
		}
	}
	if s, ok2 := stor.(zodb.Extender); ok2 {
		return e.checkExtent(ctx, s, oid, at, want, ok)
	}
	return nil
}

// checkUntil checks the end of validity of (oid, at), asked for when the head was at least head. The
// model may have a later revision that the storage does not know yet: then there was no end. Or the
// storage may know one that the committing test is about to tell the model: then wait for it.
func (e *env) checkUntil(op string, oid zodb.Oid, at, got, head zodb.Tid) error {
	for end := time.Now().Add(Patience); ; time.Sleep(time.Millisecond) {
		last := e.model.last()
		until := e.model.until(oid, at)
		switch {
		case got == until, got == zodb.TidMax && until > head:
			return nil
		case until == zodb.TidMax && got > last && time.Now().Before(end):
			continue
		}
		return fmt.Errorf("%s %s@%s: until %s; want %s", op, oid, at, got, until)
	}
}

// checkAnswer checks whether there is an error and of which kind.
func (e *env) checkAnswer(op string, oid zodb.Oid, at zodb.Tid, err error, want rev, ok bool) error {
	if ok && want.data != nil {
		if err != nil {
			return fmt.Errorf("%s %s@%s: %w; want revision %s", op, oid, at, err, want.tid)
		}
		return nil
	}
	kind := zodb.ErrDeleted
	if !ok {
		kind = zodb.ErrNoData
		if _, ever := e.model.at(oid, zodb.TidMax); !ever {
			kind = zodb.ErrNoObject
		}
	}
	var le *zodb.LoadError
	switch {
	case err == nil:
		return fmt.Errorf("%s %s@%s: no error; want %w", op, oid, at, kind)
	case zodb.KindOf(err) != zodb.KindAnswer:
		return fmt.Errorf("%s %s@%s: error %w is of kind %s", op, oid, at, err, zodb.KindOf(err))
	case !zodb.IsAbsent(err), !e.loose && !errors.Is(err, kind):
		// An object created after the storage's head does not exist for it yet.
		if kind == zodb.ErrNoData && errors.Is(err, zodb.ErrNoObject) {
			return nil
		}
		return fmt.Errorf("%s %s@%s: error %w; want %w", op, oid, at, err, kind)
	case !errors.As(err, &le) || le.Oid != oid || le.At != at:
		return fmt.Errorf("%s %s@%s: error %w does not carry the object and tid", op, oid, at, err)
	}
	return nil
}

func (e *env) checkExtent(ctx context.Context, s zodb.Extender, oid zodb.Oid, at zodb.Tid, want rev, ok bool) error {
	x, release, err := s.ExtentAt(ctx, oid, at)
	if errors.Is(err, zodb.ErrNoExtent) {
		return nil
	}
	if err := e.checkAnswer("ExtentAt", oid, at, err, want, ok); err != nil || want.data == nil {
		return err
	}
	defer release()
	data := make([]byte, x.Len)
	if _, err := io.ReadFull(io.NewSectionReader(x.File, x.Off, x.Len), data); err != nil {
		return fmt.Errorf("ExtentAt %s@%s: %w", oid, at, err)
	}
	if x.Serial != want.tid || !bytes.Equal(data, want.data) {
		return fmt.Errorf("ExtentAt %s@%s: serial %s, %d bytes; want serial %s, %d bytes", oid, at,
			x.Serial, len(data), want.tid, len(want.data))
	}
	return nil
}

// checkOids: the list of objects at every moment, as far as the driver can list. Objects that the
// backend itself made (a root) are not in the model and ignored.
func (e *env) checkOids(stor zodb.Storage) {
	l, ok := stor.(zodb.Lister)
	if !ok {
		return
	}
	for _, at := range e.model.moments() {
		var got []zodb.Oid
		err := l.Oids(e.ctx(), at, func(oid zodb.Oid) error {
			if oid >= 0x1000 {
				got = append(got, oid)
			}
			return nil
		})
		if err != nil {
			e.Fatalf("Oids@%s: %v", at, err)
		}
		want := slices.DeleteFunc(e.model.oids(), func(oid zodb.Oid) bool {
			r, _ := e.model.at(oid, at)
			return r.data == nil
		})
		if !slices.Equal(got, want) {
			e.Fatalf("Oids@%s: %v; want %v", at, got, want)
		}
	}
	stop := errors.New("stop")
	n := 0
	err := l.Oids(e.ctx(), e.model.last(), func(zodb.Oid) error { n++; return stop })
	if n > 1 || n == 1 && !errors.Is(err, stop) {
		e.Fatalf("Oids went on after an error: %d calls, %v", n, err)
	}
}
