package zeo

import (
	"context"
	"errors"
	"fmt"

	"wcfs/zcore/zodb"
)

// Oids implements zodb.Lister. The protocol enumerates only the current revisions, one answer after
// the other and with their data, so the whole database comes over the wire.
func (s *Storage) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	if head, err := s.Head(ctx); err != nil || head == 0 {
		return err
	}
	var next any
	for {
		oid, serial, more, err := s.recordNext(ctx, next)
		if errors.Is(err, errNoMore) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: list: %w", s.url, err)
		}
		there := serial != 0 && serial <= at
		if !there {
			_, err := s.LoadAt(ctx, oid, at)
			if err != nil && zodb.KindOf(err) != zodb.KindAnswer {
				return err
			}
			there = !zodb.IsAbsent(err)
		}
		if there {
			if err := fn(oid); err != nil {
				return err
			}
		}
		if more == nil {
			return nil
		}
		next = more
	}
}

var errNoMore = errors.New("there are no more objects")

// recordNext asks for the object at or after next (nil for the first): its current serial, 0 if it
// is deleted, and the oid to ask for after it, nil when there is none.
func (s *Storage) recordNext(ctx context.Context, next any) (oid zodb.Oid, serial zodb.Tid, more any, err error) {
	v, err := s.call(ctx, "record_iternext", next)
	var e *serverError
	if isPOSKeyError(err) && errors.As(err, &e) && e.oid != nil {
		// The server fails at an object that is deleted, and names it.
		id, _ := asID(e.oid)
		return zodb.Oid(id), 0, idBytes(zodb.Oid(id + 1)), nil
	}
	if next != nil && errors.As(err, &e) && e.class == "builtins.ValueError" {
		return 0, 0, nil, errNoMore // asked for what comes after the last one
	}
	if err != nil {
		return 0, 0, nil, err
	}
	t, _ := v.([]any)
	if len(t) != 4 {
		return 0, 0, nil, badReply("record_iternext", v)
	}
	id, ok := asID(t[0])
	serial, ok2 := asTid(t[1])
	if !ok || !ok2 {
		return 0, 0, nil, badReply("record_iternext", t[0])
	}
	if t[3] != nil {
		if after, ok := asID(t[3]); !ok || after <= id {
			return 0, 0, nil, badReply("record_iternext", t[3])
		}
	}
	return zodb.Oid(id), serial, t[3], nil
}
