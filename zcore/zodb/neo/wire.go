package neo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"wcfs/zcore/zodb"
)

// generation is one of the two protocols in use.
type generation int

const (
	structs generation = iota + 1 // protocol 6 of NEO 1.12: structs
	packed                        // protocol 5 of 2024 and later: msgpack
)

func (g generation) String() string {
	if g == structs {
		return "6 (struct)"
	}
	return "5 (msgpack)"
}

// hello is what both ends send first.
func (g generation) hello() []byte {
	if g == structs {
		return []byte{0, 0, 0, 6}
	}
	return []byte("\x92\xa3NEO\x05")
}

// readHello reads what the server sends first, and tells which protocol it speaks. Nothing may have been
// sent before: a server that gets the wrong handshake closes the connection.
func readHello(r *bufio.Reader) (generation, error) {
	head, err := r.Peek(4)
	if err != nil && len(head) == 0 {
		return 0, err
	}
	for _, g := range []generation{structs, packed} {
		hello := g.hello()
		if head[0] != hello[0] {
			continue
		}
		got := make([]byte, len(hello))
		if _, err := io.ReadFull(r, got); err != nil {
			return 0, fmt.Errorf("the server closes the connection within its greeting: %w", err)
		}
		if bytes.Equal(got, hello) {
			return g, nil
		}
		return 0, &refusal{otherProtocol(got)}
	}
	return 0, &refusal{fmt.Errorf("it is not a NEO server: it greets with %q", head)}
}

// otherProtocol names a protocol that is not supported.
func otherProtocol(hello []byte) error {
	const need = "wcfs speaks 6 (struct, NEO 1.12) and 5 (msgpack, since July 2024)"
	switch {
	case len(hello) == 6 && bytes.HasPrefix(hello, []byte("\x92\xa3NEO")):
		return fmt.Errorf("NEO protocol M%d (msgpack) is not supported: %s", hello[5], need)
	case len(hello) == 4 && hello[1] == 0 && hello[2] == 0:
		return fmt.Errorf("NEO protocol %d (struct) is not supported: %s", hello[3], need)
	}
	return fmt.Errorf("it is not a NEO server: it greets with %q", hello)
}

// none is an optional tid or oid that is not given.
const none = 1<<64 - 1

// stamp is the time of an identification, as the bits of a float64: it is sent back as it came.
type stamp uint64

const noStamp = stamp(none)

// address is where a node listens; the zero value stands for none.
type address struct {
	host string
	port uint16
}

// enum is the type of an enumeration, which protocol 5 sends along.
type enum int8

const (
	enumCellState enum = iota
	enumClusterState
	enumErrorCode
	enumNodeState
	enumNodeType
)

// Values of enumerations. -1 is none.
const (
	cellUpToDate  = 1
	cellFeeding   = 2
	cellDiscarded = 4

	nodeUnknown = 0 // forgotten
	nodeRunning = 2

	typeMaster  = 0
	typeStorage = 1
	typeClient  = 2

	clusterRunning   = 2
	clusterBackingUp = 5
)

// coder goes through the fields of a message, to encode or to decode them: each message says only once what
// it consists of. After a failure the calls that follow have no effect.
type coder interface {
	decoding() bool
	fail(format string, args ...any)
	failed() bool

	// tuple is a group of n fields.
	tuple(n int, fields func())
	// count begins a list: n values of at least min bytes each follow. A decoder sets n.
	count(n *int, min int)

	uint32(*uint32)     //
	uint64(*uint64)     //
	optional(*uint64)   // a number; 0 is none
	code(*uint32)       // of an error
	id(*uint64)         // oid or tid
	optID(*uint64)      // oid or tid, or none
	node(*int32)        // node id; 0 is none
	enum(enum, *int8)   // -1 is none
	stamp(*stamp)       // noStamp is none
	flag(*bool)         //
	compression(*int8)  // 0 none, 1 zlib, -1 there is no data
	checksum(*[20]byte) //
	bytes(*[]byte)      // decoded, they are the message's own
	address(*address)   //
	index(*int32)       // in a list; -1 is none
	identity(ro *bool)  // what ends an identification
}

// list goes through a list whose elements have at least min bytes.
func list[T any](c coder, l *[]T, min int, each func(*T)) {
	n := len(*l)
	c.count(&n, min)
	if !c.decoding() {
		for i := range *l {
			each(&(*l)[i])
		}
		return
	}
	for i := 0; i < n && !c.failed(); i++ {
		var v T
		each(&v)
		*l = append(*l, v)
	}
}

func oid(c coder, o *zodb.Oid) { c.id((*uint64)(o)) }
func tid(c coder, t *zodb.Tid) { c.id((*uint64)(t)) }

func oids(c coder, l *[]zodb.Oid) { list(c, l, 8, func(o *zodb.Oid) { oid(c, o) }) }
func tids(c coder, l *[]zodb.Tid) { list(c, l, 8, func(t *zodb.Tid) { tid(c, t) }) }

// maxID bounds what may be sent as oid or tid. Storages keep them as signed numbers, and one that gets a
// larger one may end.
const maxID = 1<<63 - 1

// Bounds of one message: see zodb/zeo. maxDepth is for what is skipped.
const (
	maxValues = 1 << 21
	maxDepth  = 64
)

// maxStruct is the largest body that protocol 6 allows.
const maxStruct = 0x4000000

var (
	errShort   = errors.New("it is cut short")
	errTooMany = errors.New("it has too many values")
)

// envelope is a message with what is around it.
type envelope struct {
	id   uint32 // of the request, counted by who made it
	code uint16
	msg  message // nil if the code is not known
	size int64   // bytes
}

// unreadableError is that a message cannot be read. Unless it is the last, the next one can.
type unreadableError struct {
	code uint16
	at   int // byte
	err  error
	last bool
}

func (e *unreadableError) Error() string {
	return fmt.Sprintf("the server sends a message (%#04x) that cannot be read: byte %d: %v", e.code, e.at, e.err)
}
func (e *unreadableError) Unwrap() error { return e.err }

// answer tells whether it is an answer, to a request of ours.
func (e *envelope) answer() bool { return e.code&isAnswer != 0 }

// readMessage reads one message, of at most limit bytes.
func (g generation) readMessage(r *bufio.Reader, limit int) (envelope, error) {
	if g == structs {
		return readStruct(r, min(limit, maxStruct))
	}
	return readPacked(r, limit)
}

// encode makes a message of m. It refuses what no server must get.
func (g generation) encode(id uint32, m message) ([]byte, error) {
	code := codeOf(g, m)
	if code == 0 {
		return nil, fmt.Errorf("%T is not part of NEO protocol %s", m, g)
	}
	if g == structs {
		return encodeStruct(id, code, m)
	}
	return encodePacked(id, code, m)
}

// step is how much memory is given to what is announced before it has come.
const step = 1 << 20

// readN reads n bytes; memory is taken as they come.
func readN(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, min(n, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if have = len(b); have == n {
			return b, nil
		}
		more := make([]byte, min(n, 2*have))
		copy(more, b)
		b = more
	}
}
