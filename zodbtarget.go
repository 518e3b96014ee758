package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"wcfs/zcore"
	"wcfs/zcore/tree"
	"wcfs/zcore/zdata"
	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/record"
)

// zodbTarget is the tree over a database of its own, without a mount.
type zodbTarget struct {
	stor zodb.Storage
	core *zcore.Core
	fs   *tree.FS
}

func openZodbTarget(p *program, zurl, tags string, opts *storageOptions) (target, error) {
	stor, err := openStorage(p.ctx, zurl, opts)
	if err != nil {
		return nil, err
	}
	core, err := zcore.New(p.ctx, stor, zcore.Options{Log: p.log})
	if err != nil {
		stor.Close()
		return nil, err
	}
	return &zodbTarget{stor, core, tree.New(core, tree.Options{Arrays: true, Tag: tagsOf(tags)})}, nil
}

func (z *zodbTarget) close() { z.stor.Close() }

// walk finds a node; the caller releases it.
func (z *zodbTarget) walk(ctx context.Context, path string) (tree.Node, error) {
	node := z.fs.Root()
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next, err := node.Lookup(ctx, name)
		node.Release()
		if err != nil {
			return nil, err
		}
		node = next
	}
	return node, nil
}

func (z *zodbTarget) stat(ctx context.Context, path string) (tree.Attr, error) {
	node, err := z.walk(ctx, path)
	if err != nil {
		return tree.Attr{}, err
	}
	defer node.Release()
	return node.Attr(ctx)
}

func (z *zodbTarget) readlink(ctx context.Context, path string) (string, error) {
	node, err := z.walk(ctx, path)
	if err != nil {
		return "", err
	}
	defer node.Release()
	l, ok := node.(tree.Linker)
	if !ok {
		return "", tree.ErrInvalid
	}
	return l.Readlink(ctx)
}

// list differs from a mount in that it finds every bigfile of the database, looked up or not.
func (z *zodbTarget) list(ctx context.Context, path string) ([]tree.Entry, error) {
	node, err := z.walk(ctx, path)
	if err != nil {
		return nil, err
	}
	defer node.Release()
	if at, ok := z.bigfilesAt(path); ok {
		return z.listBigfiles(ctx, at)
	}
	return node.ReadDir(ctx)
}

// bigfilesAt tells as of which tid path lists bigfiles, if it does.
func (z *zodbTarget) bigfilesAt(path string) (zodb.Tid, bool) {
	dir, last, _ := strings.Cut(path, "/")
	if last != "bigfile" {
		return 0, false
	}
	if dir == "head" {
		return z.core.Head(), true
	}
	at, err := zodb.ParseTid(strings.TrimPrefix(dir, "@"))
	return at, err == nil
}

func (z *zodbTarget) listBigfiles(ctx context.Context, at zodb.Tid) ([]tree.Entry, error) {
	lister, ok := z.stor.(zodb.Lister)
	if !ok {
		return nil, errors.New("this kind of storage cannot list its objects; name the bigfile by its oid")
	}
	list := lister.Oids
	if n, ok := z.stor.(zodb.NamingLister); ok { // the database sends the data of no others
		list = func(ctx context.Context, at zodb.Tid, fn func(zodb.Oid) error) error {
			return n.OidsNaming(ctx, at, "ZBigFile", fn)
		}
	}
	var entries []tree.Entry
	var refused refusals
	err := list(ctx, at, func(oid zodb.Oid) error {
		is, err := isBigFile(ctx, z.stor, oid, at)
		if is {
			entries = append(entries, tree.Entry{Name: oid.String()})
		}
		if err != nil && zodb.KindOf(err) == zodb.KindAnswer { // it is about this object
			refused.add(oid, err)
			return nil
		}
		return err
	})
	slices.SortFunc(entries, func(a, b tree.Entry) int { return strings.Compare(a.Name, b.Name) })
	if err == nil && refused.n > 0 {
		err = &refused
	}
	return entries, err
}

// maxRefusals is how many refused objects are told one by one.
const maxRefusals = 20

// refusals are objects that could not be looked at, and so may be bigfiles.
type refusals struct {
	n       int
	reasons []string            // in the order they came up
	oids    map[string][]string // by reason
}

func (r *refusals) add(oid zodb.Oid, err error) {
	if r.n++; r.n > maxRefusals {
		return
	}
	var bad *zodb.DataError
	if errors.Is(err, record.ErrEncrypted) {
		err = record.ErrEncrypted
	} else if errors.As(err, &bad) {
		err = bad
	}
	if r.oids == nil {
		r.oids = map[string][]string{}
	}
	reason := err.Error()
	if r.oids[reason] == nil {
		r.reasons = append(r.reasons, reason)
	}
	r.oids[reason] = append(r.oids[reason], oid.String())
}

func (r *refusals) Error() string {
	var parts []string
	for _, reason := range r.reasons {
		parts = append(parts, strings.Join(r.oids[reason], ", ")+": "+reason)
	}
	if r.n > maxRefusals {
		parts = append(parts, fmt.Sprintf("and %d more", r.n-maxRefusals))
	}
	return fmt.Sprintf("objects that cannot be read, and are not listed if they are bigfiles: %d: %s", r.n, strings.Join(parts, "; "))
}

func (z *zodbTarget) open(ctx context.Context, path string) (readAtCloser, error) {
	node, err := z.walk(ctx, path)
	if err != nil {
		return nil, err
	}
	defer node.Release()
	h, err := node.Open(ctx, tree.Caller{Domain: z.core.Host()}, false)
	if err != nil {
		return nil, err
	}
	return &handleReader{ctx, h}, nil
}

// handleReader reads an open file of a tree in process.
type handleReader struct {
	ctx context.Context
	h   tree.Handle
}

func (r *handleReader) ReadAt(p []byte, off int64) (int, error) {
	data, err := r.h.Read(r.ctx, len(p), off)
	if err != nil {
		return 0, err
	}
	if data.Done != nil {
		defer data.Done()
	}
	n := 0
	for _, piece := range data.Pieces {
		if piece.File == nil {
			n += copy(p[n:], piece.Mem)
			continue
		}
		m, err := piece.File.ReadAt(p[n:n+piece.Len], piece.Off)
		if n += m; err != nil {
			return n, fmt.Errorf("read of the database file: %w", err)
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *handleReader) Close() error {
	r.h.Close()
	return nil
}

// headerSize is enough of a record for its class to be seen.
const headerSize = 200

// isBigFile tells whether an object is a ZBigFile, reading little of the others where it can.
func isBigFile(ctx context.Context, stor zodb.Storage, oid zodb.Oid, at zodb.Tid) (bool, error) {
	if ext, ok := stor.(zodb.Extender); ok {
		if named, known := headNames(ctx, ext, oid, at, "ZBigFile"); known && !named {
			return false, nil
		}
	}
	rec, err := stor.LoadAt(ctx, oid, at)
	if err != nil {
		if zodb.IsAbsent(err) {
			return false, nil
		}
		return false, err
	}
	_, err = zdata.DecodeBigFile(oid, rec)
	if errors.Is(err, zdata.ErrNotBigFile) {
		return false, nil
	}
	return err == nil, err
}

// headNames tells whether a record names a class near its beginning; known is false when the record is
// not there to be looked at.
func headNames(ctx context.Context, ext zodb.Extender, oid zodb.Oid, at zodb.Tid, class string) (named, known bool) {
	e, release, err := ext.ExtentAt(ctx, oid, at)
	if err != nil {
		return false, false
	}
	defer release()
	head := make([]byte, min(e.Len, headerSize))
	if _, err := e.File.ReadAt(head, e.Off); err != nil || bytes.HasPrefix(head, []byte(".e")) { // encrypted: the load says so
		return false, false
	}
	return strings.Contains(string(head), class), true
}
