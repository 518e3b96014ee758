// Package open opens a ZODB database by its URL, with the driver of the URL's scheme.
//
// It owns the registry of drivers, which URLs are refused, and how a URL is shown without its password. It does not own
// flags and exit codes, which are the command's, nor what a driver's URL may say.
package open

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/demostorage"
	"wcfs/zcore/zodb/filestorage"
	"wcfs/zcore/zodb/neo"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/zeo"
)

// ErrPassword is the error for a URL with a password in it.
var ErrPassword = errors.New("a database URL is shown to everyone (in the mount table, in .wcfs/zurl, in ps)")

// Options of all drivers; the zero value of each field means the driver's default.
type Options struct {
	Timeout      time.Duration // how long a read waits for a server that does not answer
	Poll         time.Duration // how often a database that does not report its commits is asked
	PasswordFile string        // its first line is the password of the database
	Log          *slog.Logger  // default slog.Default()
}

// opener opens a database of one scheme.
type opener func(ctx context.Context, zurl string, o Options) (zodb.Storage, error)

// schemes is the registry of drivers.
func schemes() map[string]opener {
	sql := func(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
		return relstorage.Open(ctx, zurl, relstorage.Options{Timeout: o.Timeout, Poll: o.Poll, PasswordFile: o.PasswordFile})
	}
	cluster := func(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
		return neo.Open(ctx, zurl, neo.Options{Timeout: o.Timeout, Poll: o.Poll})
	}
	return map[string]opener{
		"file": func(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
			return filestorage.Open(ctx, zurl, filestorage.Options{Log: o.Log})
		},
		"zeo": func(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
			return zeo.Open(ctx, zurl, zeo.Options{Timeout: o.Timeout})
		},
		"demo": func(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
			return demostorage.Open(ctx, zurl, func(ctx context.Context, zurl string) (zodb.Storage, error) {
				return Storage(ctx, zurl, o)
			})
		},
		"postgresql": sql, "postgres": sql, "sqlite": sql,
		"neo": cluster, "neos": cluster,
	}
}

// refused are schemes that Python programs know and this one does not serve, and why.
var refused = map[string]string{
	"memory":  "MappingStorage lives in the memory of one process: nobody else can read it; serve a file or a database server",
	"mapping": "MappingStorage lives in the memory of one process: nobody else can read it; serve a file or a database server",
}

// Storage opens the database zurl. A mistake in the URL itself is a *zodb.URLError, a password in it is ErrPassword.
func Storage(ctx context.Context, zurl string, o Options) (zodb.Storage, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	scheme, _, ok := strings.Cut(zurl, ":")
	if why, is := refused[scheme]; ok && is {
		return nil, zodb.URLErrorf("%s", why)
	}
	known := schemes()
	driver := known[scheme]
	if !ok || driver == nil {
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, zodb.URLErrorf("%s is no database URL: known are %s (a FileStorage is named file:///path/Data.fs)",
			Redact(zurl), strings.Join(names, ", "))
	}
	if HasPassword(zurl) {
		return nil, ErrPassword
	}
	stor, err := driver(ctx, zurl, o)
	if err != nil {
		return nil, err // stor may be a nil pointer of a driver's
	}
	return stor, nil
}

// HasPassword finds an inline password, also inside demo:(...)/(...).
func HasPassword(zurl string) bool {
	for part := range strings.FieldsFuncSeq(zurl, func(r rune) bool { return r == '(' || r == ')' }) {
		u, err := url.Parse(part)
		if err != nil {
			// not readable as a URL: what is between :// and @ would be the password
			_, rest, _ := strings.Cut(part, "://")
			user, _, at := strings.Cut(rest, "@")
			if at && strings.Contains(user, ":") {
				return true
			}
			continue
		}
		if _, has := u.User.Password(); has {
			return true
		}
		for name := range u.Query() {
			if strings.Contains(strings.ToLower(name), "password") || strings.EqualFold(name, "passwd") {
				return true
			}
		}
	}
	return false
}

// Redact is a URL as it may be shown in an error.
func Redact(zurl string) string {
	if HasPassword(zurl) {
		scheme, _, _ := strings.Cut(zurl, ":")
		return scheme + ":..."
	}
	return fmt.Sprintf("%q", zurl)
}
