package main

import (
	"errors"
	"fmt"
)

// Exit codes. Scripts may rely on them; `wcfs run` has those of the program it runs.
const (
	exitOK       = 0
	exitFailure  = 1 // something failed; stderr has one line saying what
	exitUsage    = 2 // wrong use: nothing was tried
	exitDegraded = 3 // `wcfs status`: not all is served, or not in time
)

// usageError is wrong use of the command.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitStatus is an exit code whose reason has been told already.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func exitCode(err error) int {
	var status exitStatus
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}
