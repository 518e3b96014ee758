package tree

import (
	"errors"

	"wcfs/zcore"
)

// Kinds of errors; fronts turn them into errno in one table each, by errors.Is. Anything else is an
// I/O error.
var (
	ErrNotExist    = zcore.ErrNotExist    // ENOENT: no such name
	ErrInvalid     = zcore.ErrInvalid     // EINVAL: no such bigfile, or not a name
	ErrReadOnly    = zcore.ErrReadOnly    // EROFS
	ErrPermission  = zcore.ErrPermission  // EPERM
	ErrNotDir      = zcore.ErrNotDir      // ENOTDIR
	ErrIsDir       = zcore.ErrIsDir       // EISDIR
	ErrNotConn     = zcore.ErrNotConn     // ENOTCONN: EIO mode over FUSE (over 9P: EIO)
	ErrInterrupted = zcore.ErrInterrupted // EINTR: the request was cancelled
	ErrTooMany     = zcore.ErrTooMany     // EMFILE: a bound of what one client may have
	ErrIO          = zcore.ErrIO          // EIO: the database failed to answer

	// ErrStale is what an open of a bigfile that has failed answers, where a look-up would find another or none. ESTALE over
	// FUSE, which makes the kernel look up; over 9P: EIO.
	ErrStale = errors.New("the file is another by now: look it up again")
)
