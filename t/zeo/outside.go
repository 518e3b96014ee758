package zeo

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// outside is a TB outside of a test. Fatal panics with a fatal, which Outside returns.
type outside struct {
	dir      string
	cleanups []func()
}

type fatal string

func (*outside) Helper()                           {}
func (*outside) Failed() bool                      { return false }
func (*outside) Logf(string, ...any)               {}
func (*outside) Fatal(args ...any)                 { panic(fatal(fmt.Sprint(args...))) }
func (*outside) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }
func (b *outside) Cleanup(fn func())               { b.cleanups = append(b.cleanups, fn) }
func (b *outside) TempDir() string                 { return b.dir }

// Outside runs fn with what a test would have, for benchmarks, and cleans up.
func Outside(fn func(TB) error) (err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	b := &outside{dir: dir}
	defer func() {
		r := recover()
		for _, fn := range slices.Backward(b.cleanups) {
			fn()
		}
		os.RemoveAll(dir)
		if f, ok := r.(fatal); ok {
			err = errors.New(string(f))
		} else if r != nil {
			panic(r)
		}
	}()
	return fn(b)
}
