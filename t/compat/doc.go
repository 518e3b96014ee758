// Package compat tests the database side against databases that Python writes: what the Go client
// reads is compared, byte for byte, with what Python itself says that it wrote.
//
// It holds tests only. The programs that write are in t/py.
package compat
