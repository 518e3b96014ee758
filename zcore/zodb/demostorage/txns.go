package demostorage

import (
	"context"
	"fmt"

	"wcfs/zcore/zodb"
)

// parts returns the two storages as what can tell of transactions.
func (s *Storage) parts() (changes, base zodb.Chronicler, err error) {
	changes, ok1 := s.changes.(zodb.Chronicler)
	base, ok2 := s.base.(zodb.Chronicler)
	if !ok1 || !ok2 {
		return nil, nil, zodb.Answer(fmt.Errorf("%s: one of its parts cannot list transactions", s.url))
	}
	return changes, base, nil
}

// LastTid implements zodb.Chronicler.
func (s *Storage) LastTid(ctx context.Context, at zodb.Tid) (zodb.Tid, error) {
	changes, base, err := s.parts()
	if err != nil {
		return 0, err
	}
	tid, err := changes.LastTid(ctx, at)
	if err != nil || tid != 0 {
		return tid, err
	}
	return base.LastTid(ctx, min(at, s.baseHead))
}

// Txns implements zodb.Chronicler: all of the changes are later than the base.
func (s *Storage) Txns(ctx context.Context, at zodb.Tid, fn func(zodb.Txn) (bool, error)) error {
	changes, base, err := s.parts()
	if err != nil {
		return err
	}
	more := true
	err = changes.Txns(ctx, at, func(x zodb.Txn) (bool, error) {
		var err error
		more, err = fn(x)
		return more, err
	})
	if err != nil || !more {
		return err
	}
	return base.Txns(ctx, min(at, s.baseHead), fn)
}
