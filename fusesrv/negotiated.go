package fusesrv

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"wcfs/fusesrv/kernel"
)

// checkKernel refuses a kernel that lacks what wcfs relies on, by what was agreed on with it and by its
// release.
func checkKernel(s *fuse.Server, opts Options) error {
	a, err := negotiated(s)
	if err != nil {
		return err
	}
	if !opts.AnyKernel {
		if a.Release, err = release(); err != nil {
			return err
		}
	}
	return a.Check()
}

// negotiated is what was really agreed on. go-fuse does not show its half, and some of its versions lost a
// flag without a word, so its field is read by reflection.
func negotiated(s *fuse.Server) (kernel.Answer, error) {
	f := reflect.ValueOf(s).Elem().FieldByName("negotiatedFlags")
	if !f.IsValid() || f.Kind() != reflect.Uint64 {
		return kernel.Answer{}, errors.New("this version of go-fuse does not tell what it negotiated; build with v2.12.1")
	}
	in := s.KernelSettings()
	return kernel.Answer{Flags: kernel.Flag(f.Uint()), Major: in.Major, Minor: in.Minor}, nil
}

// release is the running kernel's, as uname(2) tells it.
func release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
