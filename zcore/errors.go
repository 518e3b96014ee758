package zcore

import "errors"

// Kinds of errors that clients can tell apart; package tree says which errno each is.
var (
	ErrNotExist    = errors.New("no such file or directory")
	ErrInvalid     = errors.New("invalid argument")
	ErrReadOnly    = errors.New("read-only file system")
	ErrPermission  = errors.New("operation not permitted")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrNotConn     = errors.New("server is in EIO mode")
	ErrInterrupted = errors.New("interrupted")
	ErrIO          = errors.New("database failed to answer")
)
