package qemu

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of errors, to be matched with errors.Is.
var (
	ErrMissing = errors.New("not installed")  // a program this package needs
	ErrKernel  = errors.New("no such kernel") // not found, not fetchable, not a kernel
	ErrConfig  = errors.New("options that a guest needs are not set")
	ErrBoot    = errors.New("guest did not start")    // init was not reached or could not set things up
	ErrPanic   = errors.New("guest kernel panicked")  //
	ErrTimeout = errors.New("guest ended by timeout") // the program did not end in time
	ErrOutput  = errors.New("the program's output cannot be written; the guest was ended")
	ErrDied    = errors.New("QEMU ended without exit status") // killed from outside, guest reset or powered itself off
)

var errNoFolder = errors.New("is not a folder") // what is to be shared

// Error is the error of a guest: its kind, what is known more, and the end of its console.
type Error struct {
	Kind    error
	Detail  string
	Console string // last lines of the kernel's console
}

// Error is the cause and the end of the console, on lines of their own.
func (e *Error) Error() string {
	if e.Console == "" {
		return e.Cause()
	}
	return e.Cause() + "\nend of its console:\n  " + strings.ReplaceAll(e.Console, "\n", "\n  ")
}

// Cause is kind and detail, on one line.
func (e *Error) Cause() string {
	if e.Detail == "" {
		return e.Kind.Error()
	}
	return e.Kind.Error() + ": " + strings.Join(strings.FieldsFunc(e.Detail, func(r rune) bool { return r == '\n' }), "; ")
}

func (e *Error) Unwrap() error { return e.Kind }

// missing says which Debian package has a program that was not found.
func missing(program, pkg string) error {
	return fmt.Errorf("%s: %w (Debian package %s)", program, ErrMissing, pkg)
}
