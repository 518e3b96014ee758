package main

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

// storageOptions are the options that every subcommand has which opens a database.
type storageOptions struct {
	Timeout      time.Duration `name:"storage-timeout" default:"${storage_timeout}" help:"How long a read waits for a database server that does not answer before it fails."`
	PasswordFile string        `name:"storage-password-file" placeholder:"FILE" help:"File whose first line is the password of the database."`
	Poll         time.Duration `name:"storage-poll" default:"${storage_poll}" help:"How often a SQL database, or a NEO cluster that backs up another, is asked for commits."`
}

// opener opens a database of one scheme.
type opener func(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error)

// schemes is the registry of drivers.
func schemes() map[string]opener {
	sql := func(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
		return relstorage.Open(ctx, zurl, relstorage.Options{Timeout: o.Timeout, Poll: o.Poll, PasswordFile: o.PasswordFile})
	}
	cluster := func(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
		return neo.Open(ctx, zurl, neo.Options{Timeout: o.Timeout, Poll: o.Poll})
	}
	return map[string]opener{
		"file": func(ctx context.Context, zurl string, _ *storageOptions) (zodb.Storage, error) {
			return filestorage.Open(ctx, zurl, filestorage.Options{Log: slog.Default()})
		},
		"zeo": func(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
			return zeo.Open(ctx, zurl, zeo.Options{Timeout: o.Timeout})
		},
		"demo": func(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
			return demostorage.Open(ctx, zurl, func(ctx context.Context, zurl string) (zodb.Storage, error) {
				return openStorage(ctx, zurl, o)
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

// openStorage opens the database zurl. Whatever is wrong with the URL itself is wrong use.
func openStorage(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
	scheme, _, ok := strings.Cut(zurl, ":")
	if why, is := refused[scheme]; ok && is {
		return nil, usagef("%s", why)
	}
	known := schemes()
	open := known[scheme]
	if !ok || open == nil {
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, usagef("%s is no database URL: known are %s (a FileStorage is named file:///path/Data.fs)",
			redact(zurl), strings.Join(names, ", "))
	}
	if hasPassword(zurl) {
		return nil, usagef("a database URL is shown to everyone (in the mount table, in .wcfs/zurl, in ps): take the password out of it and use PGPASSFILE or --storage-password-file")
	}
	stor, err := open(ctx, zurl, o)
	if bad := new(zodb.URLError); errors.As(err, &bad) {
		return nil, usagef("%v", err)
	}
	if err != nil {
		return nil, err // stor may be a nil pointer of a driver's
	}
	return stor, nil
}

// hasPassword finds an inline password, also inside demo:(...)/(...).
func hasPassword(zurl string) bool {
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

// redact is a URL as it may be shown in an error.
func redact(zurl string) string {
	if hasPassword(zurl) {
		scheme, _, _ := strings.Cut(zurl, ":")
		return scheme + ":..."
	}
	return fmt.Sprintf("%q", zurl)
}

// fileURL is the URL of a FileStorage.
func fileURL(path string) string { return "file://" + path }
