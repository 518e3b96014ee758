package zodb

import (
	"errors"
	"fmt"
)

// Answers to a load that say why there is nothing. Their kind is KindAnswer.
var (
	ErrNoObject = Answer(errors.New("no such object"))
	ErrNoData   = Answer(errors.New("no data at this revision"))
	ErrDeleted  = Answer(errors.New("object is deleted"))
	ErrNoExtent = Answer(errors.New("record is not stored plainly in a file"))
)

// LoadError tells which object as of which revision an operation was about.
type LoadError struct {
	URL string // with any password removed
	Oid Oid
	At  Tid
	Err error
}

func (e *LoadError) Error() string {
	return fmt.Sprintf("%s: load %s@%s: %v", e.URL, e.Oid, e.At, e.Err)
}
func (e *LoadError) Unwrap() error { return e.Err }

// IsAbsent reports whether err says that the object has no data as of the revision asked for,
// rather than that the database failed.
func IsAbsent(err error) bool {
	return errors.Is(err, ErrNoObject) || errors.Is(err, ErrNoData) || errors.Is(err, ErrDeleted)
}

// URLError says what is wrong with a database URL itself, whatever database there may be.
type URLError struct{ Err error }

func (e *URLError) Error() string { return e.Err.Error() }
func (e *URLError) Unwrap() error { return e.Err }

// URLErrorf makes a URLError, which names the URL without a password and says what to write.
func URLErrorf(format string, args ...any) error { return &URLError{fmt.Errorf(format, args...)} }

// DataError says that stored data is not what it must be. Its kind is KindAnswer, whatever it wraps.
type DataError struct {
	Oid    Oid
	Serial Tid
	Pos    int64 // position in the file or record, -1 if unknown
	Msg    string
	Err    error // may be nil
}

func (e *DataError) Error() string {
	s := "bad data"
	if e.Oid != 0 || e.Serial != 0 { // else it is about no object, but the file around them
		s += fmt.Sprintf(": object %s@%s", e.Oid, e.Serial)
	}
	if e.Pos >= 0 {
		s += fmt.Sprintf(" at position %d", e.Pos)
	}
	if e.Msg != "" {
		s += ": " + e.Msg
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}
func (e *DataError) Unwrap() error { return e.Err }

// ErrorKind tells KindOf that this is an answer.
func (e *DataError) ErrorKind() Kind { return KindAnswer }
