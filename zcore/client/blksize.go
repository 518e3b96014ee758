package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"wcfs/zcore/zodb"
)

// blksize returns a file's block size in bytes. st_blksize is not to be trusted where there is something
// better: over FUSE the kernel makes it a power of two, virtfs puts another in its place.
func (c *Conn) blksize(f *os.File, oid zodb.Oid) (int64, error) {
	var blksize int64
	text, err := os.ReadFile(filepath.Join(c.dir, ".wcfs/blksize", oid.String()))
	if errors.Is(err, fs.ErrNotExist) { // only a part of the tree is mounted
		_, blksize, err = attrs(f)
	} else if err == nil {
		blksize, err = strconv.ParseInt(string(text), 10, 64)
	}
	if err == nil && blksize <= 0 {
		err = fmt.Errorf("ZBigFile %s: no block size: %w", oid, unix.EINVAL)
	}
	return blksize, err
}
