package zodb

import (
	"context"
	"errors"
)

// Kind says what an error means for the request that it ended. See "Errors have a kind" in the package doc.
type Kind uint8

const (
	// Unknown is the kind of an error that nobody marked: a mistake of the driver. It is never taken for an
	// outage: such a request is made a few times more, and then the error is final like an answer.
	Unknown Kind = iota

	// KindAnswer: the database answered, and this is the answer: the object is absent, deleted, damaged or not
	// what was asked for, or the server failed at it. Final for that object at that tid, and for nothing else.
	KindAnswer

	// KindOutage: nobody answered. The same request may succeed later.
	KindOutage

	// KindOtherDatabase: what answers is no longer the database that was opened. Final for everything.
	KindOtherDatabase
)

func (k Kind) String() string {
	return [...]string{"unknown", "answer", "outage", "other database"}[k]
}

// Answer marks an error as an answer; nil stays nil.
func Answer(err error) error { return mark(err, KindAnswer) }

// Outage marks an error as an outage; nil stays nil.
func Outage(err error) error { return mark(err, KindOutage) }

// OtherDatabase marks an error as one that ends everything; nil stays nil.
func OtherDatabase(err error) error { return mark(err, KindOtherDatabase) }

func mark(err error, k Kind) error {
	if err == nil {
		return nil
	}
	return &kindError{err, k}
}

type kindError struct {
	error
	kind Kind
}

func (e *kindError) Unwrap() error   { return e.error }
func (e *kindError) ErrorKind() Kind { return e.kind }

// KindOf returns the kind of an error: that of the outermost mark on it. Error types may say their kind by a method
// ErrorKind. No error is an answer, and who gave up waiting (a done context) got none.
func KindOf(err error) Kind {
	var marked interface{ ErrorKind() Kind }
	switch {
	case err == nil:
		return KindAnswer
	case errors.As(err, &marked):
		return marked.ErrorKind()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return KindOutage
	}
	return Unknown
}
