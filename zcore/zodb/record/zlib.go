package record

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"wcfs/zcore/zodb"
)

// MaxSize bounds an expanded record: the largest block there may be (1 GiB) and what is around it.
const MaxSize = 1<<30 + 1<<16

// ErrEncrypted says that a record cannot be read without a key.
var ErrEncrypted = zodb.Answer(errors.New("the record is encrypted (as cipher.encryptingstorage does) and wcfs has no key: " +
	"serve a copy of the database that was made through the decrypting storage"))

// Decompress returns the plain form of a record as a storage keeps it: one that the Python package
// zc.zlibstorage compressed (".z" and a zlib stream; no pickle begins like that) is expanded, every other one
// is returned as it is, except what cipher.encryptingstorage encrypted (".e"): ErrEncrypted. Allocation follows
// the output, and the output of n bytes is at most about 1032*n.
func Decompress(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte(".e")):
		return nil, ErrEncrypted
	case !bytes.HasPrefix(data, []byte(".z")):
		return data, nil
	}
	return inflate(data[2:], MaxSize)
}

// Inflate expands a zlib stream, bounded as Decompress is.
func Inflate(data []byte) ([]byte, error) { return inflate(data, MaxSize) }

func inflate(data []byte, max int64) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("compressed record: %w", err)
	}
	var out bytes.Buffer
	out.Grow(int(min(4*int64(len(data)), 1<<22, max)) + bytes.MinRead)
	n, err := out.ReadFrom(io.LimitReader(z, max+1))
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("compressed record: it is cut short")
	case err != nil:
		return nil, fmt.Errorf("compressed record: %w", err)
	case n > max:
		return nil, fmt.Errorf("compressed record: it expands to more than %d bytes", max)
	}
	return out.Bytes(), nil
}
