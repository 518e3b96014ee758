package neo

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"wcfs/zcore/zodb"
)

var (
	// ErrClosed is what operations on a closed Storage fail with.
	ErrClosed = zodb.Outage(errors.New("storage is closed"))

	// ErrTimeout is what an operation fails with that the cluster did not answer in time.
	ErrTimeout = zodb.Outage(errors.New("no answer from the NEO cluster"))

	// ErrOtherDatabase is what everything fails with once the cluster has been found to serve something
	// else than before.
	ErrOtherDatabase = zodb.OtherDatabase(errors.New("the NEO cluster no longer serves the same database"))
)

// Codes of errors that servers answer with.
const (
	codeNotReady        = 2
	codeOIDNotFound     = 3
	codeTIDNotFound     = 4
	codeOIDDoesNotExist = 5
	codeProtocolError   = 6
	codeNonReadableCell = 10
)

// serverError is an error that a server answered a request with.
type serverError struct {
	code uint32
	text string
}

func (e *serverError) Error() string {
	names := [...]string{"ACK", "DENIED", "NOT_READY", "OID_NOT_FOUND", "TID_NOT_FOUND", "OID_DOES_NOT_EXIST", "PROTOCOL_ERROR",
		"REPLICATION_ERROR", "CHECKING_ERROR", "BACKEND_NOT_IMPLEMENTED", "NON_READABLE_CELL", "READ_ONLY_ACCESS",
		"INCOMPLETE_TRANSACTION", "UNDO_PACK_ERROR"}
	name := fmt.Sprintf("error %d", e.code)
	if int(e.code) < len(names) {
		name = names[e.code]
	}
	if e.text == "" {
		return "the server answers " + name
	}
	return fmt.Sprintf("the server answers %s: %s", name, e.text)
}

func asServerError(m *answerError) *serverError {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, string(m.text[:min(len(m.text), 200)]))
	return &serverError{m.code, text}
}

// codeIs tells whether err is one that a server answered with, of one of these codes.
func codeIs(err error, codes ...uint32) bool {
	var e *serverError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.code == c {
			return true
		}
	}
	return false
}

// refusal is a failure to connect that another attempt will not mend.
type refusal struct{ err error }

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func isRefusal(err error) bool {
	var e *refusal
	return errors.As(err, &e)
}

// lostError is what requests fail with whose connection went away before they were answered.
type lostError struct{ err error }

func (e *lostError) Error() string { return "connection lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

func isLost(err error) bool {
	var e *lostError
	return errors.As(err, &e)
}

// badAnswer is an answer that can be read and is not what was asked for.
func badAnswer(what string, args ...any) error {
	return &badAnswerError{fmt.Sprintf(what, args...)}
}

type badAnswerError struct{ text string }

func (e *badAnswerError) Error() string {
	return "the server answers something else than it should: " + e.text
}
