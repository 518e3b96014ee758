package p9srv

import (
	"context"
	"errors"
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

// refusal returns the errno for messages that a read-only tree never obeys, and 0 for the others.
func refusal(t msgType) linux.Errno {
	switch t {
	case tLcreate, tSymlink, tMknod, tRename, tLink, tMkdir, tRenameat, tUnlinkat:
		return linux.EROFS
	case tReadlink:
		return linux.EINVAL // nothing here is a symbolic link
	case tLock, tGetlock:
		return linux.ENOLCK
	case tVersion, tAttach, tFlush, tWalk, tLopen, tGetattr, tSetattr, tRead, tReaddir, tWrite, tFsync, tClunk, tRemove, tStatfs:
		return 0
	}
	return linux.EOPNOTSUPP // extended attributes, Tauth, extensions, replies, unknown types
}
