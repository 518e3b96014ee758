package relstorage

import (
	"context"

	"wcfs/zcore/zodb"
)

// oidsPage is how many objects Oids asks for at a time.
const oidsPage = 10000

// Oids implements zodb.Lister.
func (s *Storage) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	return s.OidsNaming(ctx, at, "", fn)
}

// OidsNaming is Oids for objects that may be of a class: the others are left out by the database, without
// their data being sent.
func (s *Storage) OidsNaming(ctx context.Context, at zodb.Tid, class string, fn func(zodb.Oid) error) error {
	at = min(at, zodb.TidMax)
	for from := int64(-1); ; {
		var page []zodb.Oid
		var last int64
		err := s.retry(ctx, func(ctx context.Context) error {
			return s.withSession(ctx, func(ses session) (err error) {
				page, last, err = ses.oids(ctx, at, class, from, oidsPage)
				return err
			})
		})
		if err != nil {
			return err
		}
		for _, oid := range page {
			if err := fn(oid); err != nil {
				return err
			}
		}
		if last <= from {
			return nil
		}
		from = last
	}
}
