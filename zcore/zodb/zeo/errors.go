package zeo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"wcfs/zcore/zodb"
)

// serverError is an exception that the server answered a call with.
type serverError struct {
	class string        // module and name of the Python class
	text  string        // its arguments, shortened
	errno syscall.Errno // its first argument, if that is a number and there are others
	oid   []byte        // its argument, if that is one of 8 bytes
}

func (e *serverError) Error() string {
	return fmt.Sprintf("the server raised %s: %s", e.class, e.text)
}

// ErrorKind is that of an answer, unless the server says that what it stands on is away for now.
func (e *serverError) ErrorKind() zodb.Kind {
	name := e.class[strings.LastIndexByte(e.class, '.')+1:]
	switch {
	case slices.Contains(awayClasses, name), slices.Contains(awayErrnos, e.errno):
		return zodb.KindOutage
	case name == "ValueError" && strings.Contains(e.text, "closed"): // the server is closing its files: it ends
		return zodb.KindOutage
	}
	return zodb.KindAnswer
}

// awayClasses are exceptions that are not about the object asked for: a storage behind the server that is not
// connected, a database of RelStorage that does not answer, no memory.
var awayClasses = []string{
	"ClientDisconnected", "OperationalError", "InterfaceError", "ReplicaClosedException",
	"ConnectionError", "ConnectionRefusedError", "ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError",
	"TimeoutError", "BlockingIOError", "InterruptedError", "MemoryError",
}

// awayErrnos are those of OSError and the like that another moment may mend.
var awayErrnos = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
	syscall.ESTALE, syscall.ETIMEDOUT, syscall.ENOTCONN, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE}

// isPOSKeyError tells whether the server answered that it has no such object (or none any more).
func isPOSKeyError(err error) bool {
	var e *serverError
	if !errors.As(err, &e) {
		return false
	}
	return e.class == "ZODB.POSException.POSKeyError" || strings.HasSuffix(e.class, ".KeyError")
}

func isServerError(err error) bool {
	var e *serverError
	return errors.As(err, &e)
}

// refusal is a failure to connect that another attempt will not mend.
type refusal struct{ err error }

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func isRefusal(err error) bool {
	var e *refusal
	return errors.As(err, &e)
}

// isDial tells whether there was nobody to connect to.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// lostError is what calls fail with whose connection went away before they were answered.
type lostError struct{ err error }

func (e *lostError) Error() string { return "connection lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// ErrorKind tells zodb.KindOf that nobody answered.
func (e *lostError) ErrorKind() zodb.Kind { return zodb.KindOutage }

// badReply is an answer of the right encoding and the wrong shape.
func badReply(method string, v any) error {
	return zodb.Answer(fmt.Errorf("the server answered %s with something else than it should: %s", method, short(v)))
}

// short describes a value in one short line, without formatting all of a large one.
func short(v any) string {
	switch x := v.(type) {
	case []any:
		return fmt.Sprintf("a sequence of %d", len(x))
	case dict:
		return fmt.Sprintf("a mapping of %d", len(x))
	case []byte:
		return fmt.Sprintf("%d bytes %q", len(x), x[:min(len(x), 40)])
	case string:
		return fmt.Sprintf("%q", x[:min(len(x), 80)])
	}
	return fmt.Sprint(v)
}

// idBytes is an oid or tid as it goes over the wire.
func idBytes[T zodb.Oid | zodb.Tid](id T) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}

func asID(v any) (uint64, bool) {
	b, ok := v.([]byte)
	if !ok || len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// asTid reads a tid. One beyond TidMax is not a tid.
func asTid(v any) (zodb.Tid, bool) {
	id, ok := asID(v)
	return zodb.Tid(id), ok && zodb.Tid(id) <= zodb.TidMax
}

// asOids reads a list of oids, dropping those named twice.
func asOids(v any) ([]zodb.Oid, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	oids := make([]zodb.Oid, 0, len(list))
	seen := make(map[zodb.Oid]struct{}, len(list))
	for _, x := range list {
		id, ok := asID(x)
		if !ok {
			return nil, false
		}
		oid := zodb.Oid(id)
		if _, ok := seen[oid]; !ok {
			seen[oid] = struct{}{}
			oids = append(oids, oid)
		}
	}
	return oids, true
}

// asText reads a name, which servers on Python 2 send as bytes.
func asText(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case []byte:
		return string(x), true
	}
	return "", false
}
