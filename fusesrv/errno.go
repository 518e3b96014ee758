package fusesrv

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"wcfs/zcore/tree"
)

// status is the one table from errors of the tree to errno.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	for _, e := range [...]struct {
		kind  error
		errno syscall.Errno
	}{
		{tree.ErrNotConn, syscall.ENOTCONN},
		{tree.ErrInterrupted, syscall.EINTR},
		{context.Canceled, syscall.EINTR},
		{tree.ErrNotExist, syscall.ENOENT},
		{tree.ErrInvalid, syscall.EINVAL},
		{tree.ErrReadOnly, syscall.EROFS},
		{tree.ErrPermission, syscall.EPERM},
		{tree.ErrTooMany, syscall.EMFILE},
		{tree.ErrNotDir, syscall.ENOTDIR},
		{tree.ErrIsDir, syscall.EISDIR},
		{tree.ErrStale, syscall.ESTALE}, // of an open by an old name: the kernel looks that up anew
	} {
		if errors.Is(err, e.kind) {
			return fuse.Status(e.errno)
		}
	}
	return fuse.EIO
}
