package zcore

import (
	"errors"

	"wcfs/zcore/zodb"
)

// Kinds of errors that clients can tell apart; package tree says which errno each is.
var (
	ErrNotExist    = errors.New("no such file or directory")
	ErrInvalid     = zodb.Answer(errors.New("invalid argument")) // also what an object is that is no bigfile
	ErrReadOnly    = errors.New("read-only file system")
	ErrPermission  = errors.New("operation not permitted")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrNotConn     = errors.New("server is in EIO mode")
	ErrInterrupted = errors.New("interrupted")
	ErrTooMany     = errors.New("too many at once")
	ErrIO          = errors.New("database failed to answer")
)
