// Package demostorage lays one database over another: what is not in the changes is in the base.
//
// It owns the merge of two storages, which it opens through a function that it is given, and closes.
// It does not write: a Python DemoStorage makes the changes.
//
// As with the Python class of that name (ZODB.DemoStorage, whose answers these equal), the base is taken not to
// change: it is looked at as of the head that it had when this storage was opened, and only the changes are
// followed. Data of an object in the changes hides the base's. If the changes have nothing as of a tid, or a
// deletion (an undone first change), the base answers.
package demostorage

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"wcfs/zcore/zodb"
)

// Opener opens a storage by its URL.
type Opener func(ctx context.Context, url string) (zodb.Storage, error)

// Storage is two storages as one. All fields are set once.
type Storage struct {
	url           string
	base, changes zodb.Storage
	baseHead      zodb.Tid // the base is looked at as of here
	changesHead   zodb.Tid // the head of the changes when they were opened
}

var (
	_ zodb.Storage  = (*Storage)(nil)
	_ zodb.Extender = (*Storage)(nil)
	_ zodb.Lister   = (*Storage)(nil)

	_ zodb.Connector = (*Storage)(nil)
)

// Open opens demo:(base)/(changes), both parts being URLs that open takes.
func Open(ctx context.Context, url string, open Opener) (*Storage, error) {
	baseURL, changesURL, err := Split(url)
	if err != nil {
		return nil, err
	}
	s := &Storage{url: url}
	if s.base, err = open(ctx, baseURL); err != nil {
		return nil, fmt.Errorf("demo base: %w", err)
	}
	if s.changes, err = open(ctx, changesURL); err != nil {
		s.base.Close()
		return nil, fmt.Errorf("demo changes: %w", err)
	}
	if s.baseHead, err = s.base.Head(ctx); err == nil {
		s.changesHead, err = s.changes.Head(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Split takes the URL demo:(base)/(changes) apart. Parentheses within the parts must be paired.
func Split(url string) (base, changes string, err error) {
	bad := zodb.URLErrorf("demo URL must be demo:(base URL)/(changes URL)")
	rest, ok := strings.CutPrefix(url, "demo:")
	if !ok {
		return "", "", bad
	}
	if base, rest, ok = enclosed(rest); !ok {
		return "", "", bad
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok {
		return "", "", bad
	}
	if changes, rest, ok = enclosed(rest); !ok || rest != "" || base == "" || changes == "" {
		return "", "", bad
	}
	return base, changes, nil
}

// enclosed takes "(inner)rest" apart.
func enclosed(s string) (inner, rest string, ok bool) {
	if !strings.HasPrefix(s, "(") {
		return "", "", false
	}
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			return s[1:i], s[i+1:], true
		}
	}
	return "", "", false
}

// URL implements zodb.Storage.
func (s *Storage) URL() string { return s.url }

// Close implements zodb.Storage.
func (s *Storage) Close() error { return errors.Join(s.changes.Close(), s.base.Close()) }

// Connectivity implements zodb.Connector: a part that is away counts, else the one that came back last.
func (s *Storage) Connectivity() (c zodb.Connectivity, ok bool) {
	var lost int64
	for _, part := range []zodb.Storage{s.changes, s.base} {
		conn, is := part.(zodb.Connector)
		if !is {
			continue
		}
		p, has := conn.Connectivity()
		lost += p.Lost
		switch {
		case !has:
		case !ok, c.Connected && !p.Connected, c.Connected == p.Connected && p.Connected == p.Since.After(c.Since):
			c, ok = p, true
		}
	}
	c.Lost = lost
	return c, ok
}

// Head implements zodb.Storage.
func (s *Storage) Head(ctx context.Context) (zodb.Tid, error) {
	head, err := s.changes.Head(ctx)
	return max(head, s.baseHead), err
}

// LoadAt implements zodb.Storage.
func (s *Storage) LoadAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Record, error) {
	rec, err := s.changes.LoadAt(ctx, oid, at)
	if err == nil || !zodb.IsAbsent(err) {
		return rec, err
	}
	rec, baseErr := s.base.LoadAt(ctx, oid, min(at, s.baseHead))
	if zodb.IsAbsent(baseErr) {
		return rec, s.absent(oid, at, err, baseErr)
	}
	if baseErr != nil {
		return rec, baseErr
	}
	if rec.Until > s.baseHead {
		rec.Until = zodb.TidMax
	}
	if !errors.Is(err, zodb.ErrNoObject) {
		first, err := s.firstChange(ctx, oid, at)
		if err != nil {
			return zodb.Record{}, err
		}
		rec.Until = min(rec.Until, first)
	}
	return rec, nil
}

// ExtentAt implements zodb.Extender, where both sides are files: to ask another kind of changes first
// would cost more than the way to the base's file saves.
func (s *Storage) ExtentAt(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Extent, func(), error) {
	changes, ok := s.changes.(zodb.Extender)
	base, ok2 := s.base.(zodb.Extender)
	if !ok || !ok2 {
		return zodb.Extent{}, nil, &zodb.LoadError{URL: s.url, Oid: oid, At: at, Err: zodb.ErrNoExtent}
	}
	x, release, err := changes.ExtentAt(ctx, oid, at)
	if err == nil || !zodb.IsAbsent(err) {
		return x, release, err
	}
	x, release, baseErr := base.ExtentAt(ctx, oid, min(at, s.baseHead))
	if zodb.IsAbsent(baseErr) {
		baseErr = s.absent(oid, at, err, baseErr)
	}
	return x, release, baseErr
}

// absent picks what to say of an object that neither side has: who knows of it knows more.
func (s *Storage) absent(oid zodb.Oid, at zodb.Tid, changes, base error) error {
	kind := zodb.ErrNoObject
	for _, k := range []error{zodb.ErrNoData, zodb.ErrDeleted} {
		if errors.Is(changes, k) || errors.Is(base, k) {
			kind = k
		}
	}
	return &zodb.LoadError{URL: s.url, Oid: oid, At: at, Err: kind}
}

// firstChange returns the first revision after at that the changes have of oid, TidMax for none. No
// storage tells that, so the newest is looked at, then the one before it, and so on.
func (s *Storage) firstChange(ctx context.Context, oid zodb.Oid, at zodb.Tid) (zodb.Tid, error) {
	first := zodb.TidMax
	for before := zodb.TidMax; before > at; {
		rec, err := s.changes.LoadAt(ctx, oid, before)
		if zodb.IsAbsent(err) {
			break
		}
		if err != nil {
			return 0, err
		}
		if rec.Serial <= at {
			break
		}
		first, before = rec.Serial, rec.Serial-1
	}
	return first, nil
}

// Oids implements zodb.Lister, if both sides do.
func (s *Storage) Oids(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
	base, ok := s.base.(zodb.Lister)
	changes, ok2 := s.changes.(zodb.Lister)
	if !ok || !ok2 {
		return fmt.Errorf("%s: list: %w", s.url, errors.ErrUnsupported)
	}
	// Changes are few: they are kept, and merged into what comes of the base.
	var mine []zodb.Oid
	err := changes.Oids(ctx, at, func(oid zodb.Oid) error {
		mine = append(mine, oid)
		return nil
	})
	if err != nil {
		return err
	}
	err = base.Oids(ctx, min(at, s.baseHead), func(oid zodb.Oid) error {
		for len(mine) > 0 && mine[0] <= oid {
			next := mine[0]
			mine = mine[1:]
			if next == oid {
				break
			}
			if err := fn(next); err != nil {
				return err
			}
		}
		return fn(oid)
	})
	for _, oid := range mine {
		if err != nil {
			break
		}
		err = fn(oid)
	}
	return err
}
