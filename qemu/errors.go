package qemu

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of errors, to be matched with errors.Is.
var (
	ErrMissing = errors.New("not installed")                  // a program this package needs
	ErrKernel  = errors.New("no such kernel")                 // not found, not fetchable, not a kernel
	ErrBoot    = errors.New("guest did not start")            // init was not reached or could not set things up
	ErrPanic   = errors.New("guest kernel panicked")          //
	ErrTimeout = errors.New("guest ended by timeout")         // the program did not end in time
	ErrDied    = errors.New("QEMU ended without exit status") // killed from outside, guest reset or powered itself off
)

var errNoFolder = errors.New("is not a folder") // what is to be shared

// Error is the error of a guest: its kind, what is known more, and the end of its console.
type Error struct {
	Kind    error
	Detail  string
	Console string // last lines of the kernel's console
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Console != "" {
		b.WriteString("\nend of its console:\n  " + strings.ReplaceAll(e.Console, "\n", "\n  "))
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Kind }

// missing says which Debian package has a program that was not found.
func missing(program, pkg string) error {
	return fmt.Errorf("%s: %w (Debian package %s)", program, ErrMissing, pkg)
}
