package p9srv

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/hugelgupf/p9/linux"

	"wcfs/zcore/tree"
)

// Limits, by name: what a client ran into. Each is an option, see Options.
var (
	ErrTooManyConns    = errors.New("too many connections (--9p-max-conns)")
	ErrTooManyFids     = errors.New("too many fids (--9p-max-fids, --9p-max-fids-all)")
	ErrTooManyRequests = errors.New("too many requests in flight (--9p-max-reqs, --9p-max-reqs-all)")
	ErrHandshake       = errors.New("no Tversion in time (--9p-handshake-timeout)")
	ErrStalled         = errors.New("message did not arrive whole in time (--9p-stall-timeout)")
	ErrNotReading      = errors.New("client does not read its replies (--9p-write-timeout)")
)

// Ways in which a client breaks the protocol beyond answering: its connection is closed.
var (
	ErrNoVersion    = errors.New("first message is not Tversion")
	ErrDuplicateTag = errors.New("tag is in use by a request in flight")
	ErrMessageSize  = errors.New("message size is below 7 or above msize")
)

// errnoOf is the one table from kinds of errors to what 9P answers.
func errnoOf(err error) linux.Errno {
	for _, e := range []struct {
		kind  error
		errno linux.Errno
	}{
		{tree.ErrNotExist, linux.ENOENT},
		{tree.ErrInvalid, linux.EINVAL},
		{tree.ErrReadOnly, linux.EROFS},
		{tree.ErrPermission, linux.EPERM},
		{tree.ErrTooMany, linux.EMFILE},
		{tree.ErrNotDir, linux.ENOTDIR},
		{tree.ErrIsDir, linux.EISDIR},
		{tree.ErrNotConn, linux.EIO}, // the connection is there; the database is not
		{tree.ErrInterrupted, linux.EINTR},
		{tree.ErrIO, linux.EIO},
		{context.Canceled, linux.EINTR},
		{ErrTooManyFids, linux.EMFILE},
		{ErrTooManyRequests, linux.EAGAIN},
		{ErrNoVersion, linux.EPROTO},
		{errShort, linux.EPROTO},
		{errBadName, linux.EINVAL},
		{errNames, linux.EINVAL},
		{errLongName, linux.ENAMETOOLONG},
		{errTooLong, linux.EMSGSIZE},
		{errNoAname, linux.ENOENT},
	} {
		if errors.Is(err, e.kind) {
			return e.errno
		}
	}
	var errno linux.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return linux.EIO
}

// ErrnoOf returns what a server answered to a request of a Client, 0 if err is no such answer.
func ErrnoOf(err error) syscall.Errno {
	var errno linux.Errno
	errors.As(err, &errno)
	return syscall.Errno(errno)
}

// refusedName is an error about a name that a client sent.
type refusedName struct {
	name string
	err  error
}

func (e *refusedName) Error() string { return fmt.Sprintf("name %.40q: %v", e.name, e.err) }
func (e *refusedName) Unwrap() error { return e.err }

// isLimit tells errors for which requests count as refused.
func isLimit(err error) bool {
	return errors.Is(err, ErrTooManyFids) || errors.Is(err, ErrTooManyRequests)
}

// isName tells errors about the form of names.
func isName(err error) bool {
	return errors.As(err, new(*refusedName)) || errors.Is(err, errLongName) || errors.Is(err, errNames)
}
