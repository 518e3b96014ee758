package main

import (
	"context"
	"errors"
	"time"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/open"
)

// storageOptions are the options that every subcommand has which opens a database.
type storageOptions struct {
	Timeout      time.Duration `name:"storage-timeout" default:"${storage_timeout}" help:"How long a read waits for a database server that does not answer before it fails."`
	PasswordFile string        `name:"storage-password-file" placeholder:"FILE" help:"File whose first line is the password of the database."`
	Poll         time.Duration `name:"storage-poll" default:"${storage_poll}" help:"How often a SQL database, or a NEO cluster that backs up another, is asked for commits."`
}

// openStorage opens the database zurl. A mistake in the URL itself is wrong use.
func openStorage(ctx context.Context, zurl string, o *storageOptions) (zodb.Storage, error) {
	stor, err := open.Storage(ctx, zurl, open.Options{Timeout: o.Timeout, Poll: o.Poll, PasswordFile: o.PasswordFile})
	if errors.Is(err, open.ErrPassword) {
		return nil, usagef("%v: take the password out of it and use PGPASSFILE or --storage-password-file", err)
	}
	if bad := new(zodb.URLError); errors.As(err, &bad) {
		return nil, usagef("%v", err)
	}
	return stor, err
}

// fileURL is the URL of a FileStorage.
func fileURL(path string) string { return "file://" + path }
